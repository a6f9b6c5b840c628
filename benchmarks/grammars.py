"""What it costs to hold answers to a JSON schema.

    python -m benchmarks.grammars [--model FOLDER] [--streams 8] [--tokens 100] [--rounds 20]

First the engine alone: so many streams without and with a schema, in turns, and the share of the
time between two tokens that the schema takes: the median over all pairs of turns, and its
quartiles, since a machine is not always as fast. Then the mask of one token by itself, for
vocabularies of up to 150,000 made-up tokens. A model computes for longer with each of its
parameters, and a mask does not: small models show the most.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import mlx.core as mx
from llguidance import LLTokenizer, TokenizerWrapper

from exo.inference.engine import SequenceSpec
from exo.inference.grammars.compiler import Grammars, Vocabulary
from exo.inference.grammars.text import grammar_of
from exo.inference.messages import Load
from exo.inference.mlx.engine import MlxEngine
from exo.inference.mlx.masking import masked
from exo.inference.types import Format, GenerateRequest, Sampling

SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "kind": {"enum": ["person", "place", "thing"]},
            "size": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,12}$"}},
        },
        "required": ["name", "kind", "size", "tags"],
        "additionalProperties": False,
    },
}
FORM = Format(kind="json", text=json.dumps(SCHEMA))
SIZES = (2_000, 32_000, 150_000)


def load(folder: Path) -> MlxEngine:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    engine = MlxEngine()
    settings = {
        "path": folder,
        "start_layer": 0,
        "end_layer": config["num_hidden_layers"],
        "context_length": 1024,
        "max_concurrency": 64,
        "max_queue": 64,
        "kv_tokens": 10**6,
        "kv_bytes_per_token": 1024,
        "prefix_cache_bytes": 10**8,
        "cast_float32": True,
    }
    engine.load(Load.model_validate(settings), lambda _done, _total: None)
    engine.warm_up()
    return engine


def seconds_per_step(engine: MlxEngine, form: Format | None, streams: int, tokens: int) -> float:
    """Between two tokens of a stream, while all streams decode."""
    messages = [{"role": "user", "content": "Give me JSON of some things."}]
    prepared = engine.prepare(GenerateRequest(request_id="r", messages=messages, format=form))
    ends = {2: -100.0}
    sampling = Sampling(temperature=1, logit_bias=ends)
    engine.add(
        [
            SequenceSpec(
                sequence_id=n,
                prompt=prepared.prompt,
                max_tokens=tokens,
                sampling=sampling.model_copy(update={"seed": n}),
                grammar=prepared.grammar,
            )
            for n in range(streams)
        ]
    )
    seen: dict[int, int] = dict.fromkeys(range(streams), 0)
    begun = 0.0
    while any(count < tokens for count in seen.values()):
        for sampled in engine.step():
            seen[sampled.sequence_id] += 1
        if not begun and min(seen.values()) > 3:
            begun, steps = time.perf_counter(), min(seen.values())
    return (time.perf_counter() - begun) / (tokens - steps)


class Words:
    """So many tokens: all bytes, made-up words with and without a space, numbers."""

    eos_token_id = 0
    bos_token_id = None
    special_token_ids = (0,)

    def __init__(self, size: int) -> None:
        chance = random.Random(1)
        letters = "etaoinshrdlucmfwypvbgkqjxz"
        words = {b"<end>": None, **{bytes([n]): None for n in range(256)}}
        while len(words) < size:
            word = "".join(chance.choices(letters, k=chance.randint(2, 9)))
            words[f"{chance.choice(['', ' '])}{word}".encode()] = None
        self.tokens = list(words)

    def __call__(self, text: str | bytes) -> list[int]:
        raw = text.encode() if isinstance(text, str) else text
        return [self.tokens.index(bytes([byte])) for byte in raw]


def one_mask(size: int) -> tuple[float, float, float, float]:
    """Seconds to make a vocabulary ready, for one mask along a text, and for 8 on logits: before
    the logits are needed, and from then on."""
    begun = time.perf_counter()
    words = Words(size)
    vocabulary = Vocabulary(LLTokenizer(TokenizerWrapper(words)), frozenset({0}))
    ready = time.perf_counter() - begun
    grammars = Grammars(lambda: vocabulary)
    constraint = grammars.open(grammar_of(FORM))
    item = {"name": "a thing of beauty", "kind": "thing", "size": 3.5, "tags": ["some", "words"]}
    tokens = words(json.dumps([item] * 5))[:-1]
    masks: list[bytes | None] = [constraint.mask()]
    begun = time.perf_counter()
    for token in tokens:
        constraint.push(token)
        masks.append(constraint.mask())
    asked = (time.perf_counter() - begun) / len(tokens)
    logits = mx.zeros((8, size))
    mx.eval(logits)
    before: list[float] = []
    after: list[float] = []
    for at in range(20):
        begun = time.perf_counter()
        put = masked(logits, masks[at : at + 8])
        spread = time.perf_counter()
        mx.eval(put)
        before.append(spread - begun)
        after.append(time.perf_counter() - spread)
    return ready, asked, statistics.median(before), statistics.median(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("exo/models/bundled/exo-demo"))
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    engine = load(arguments.model)
    took: dict[str, list[float]] = {"free": [], "held": []}
    for number in range(arguments.rounds + 1):
        for name, form in (("free", None), ("held", FORM)):
            found = seconds_per_step(engine, form, arguments.streams, arguments.tokens)
            if number:
                took[name].append(found)
    free, held = (statistics.median(times) for times in took.values())
    shares = [1 - free / held for free, held in zip(*took.values(), strict=True)]
    low, share, high = statistics.quantiles(shares)
    print(f"{arguments.streams} streams: {free * 1e3:.2f} ms between tokens, {held * 1e3:.2f} ms")
    print(f"with a schema, whose share of that is {share:.1%} ({low:.1%} to {high:.1%})")
    for size in SIZES:
        ready, asked, before, after = one_mask(size)
        print(
            f"{size:7} tokens: ready in {ready:.2f} s, {asked * 1e6:.0f} us a mask, "
            f"{before * 1e3:.2f} + {after * 1e3:.2f} ms to put 8 on logits"
        )


if __name__ == "__main__":
    main()
