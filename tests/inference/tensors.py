"""Architectures that mlx-lm can split by tensors, in a size of a few layers with random weights:
are the tokens of ranks that have a part of every layer those of the whole model?

    python -m tests.inference.tensors [NAME …]     one line of JSON for each

Each is computed by two processes that are linked by `mx.distributed`. The configurations are those
of `architectures`, and some more.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx_lm.models

from exo.errors import ModelInvalid
from exo.inference.mlx.adapter import can_batch
from exo.inference.mlx.group import join
from exo.inference.mlx.stage import WholeModel
from exo.inference.mlx.together import SharedModel, shard
from exo.inference.ring.gathering import Address
from exo.models.shares import shares
from tests.inference.architectures import (
    PROMPTS,
    build,
    configurations,
    generate,
    generate_batch,
    random_weights,
)

RANKS = 2
# How long ranks may take for an architecture, which is some seconds: who waits longer waits for
# ever, unless the machine has long been busy with something else.
SECONDS = 600
# Sums come in another order than in the whole model: so much may logits differ, as a part of the
# largest.
CLOSE = 1e-4

_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 1000,
}
_MORE: list[dict[str, Any]] = [
    {
        "name": "ministral3",
        "module": "ministral3",
        "config": {
            **_TEXT,
            "model_type": "ministral3",
            "head_dim": 32,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_theta": 1000,
                "llama_4_scaling_beta": 0.1,
                "original_max_position_embeddings": 64,
                "rope_type": "default",
            },
        },
    },
]


@dataclasses.dataclass
class Outcome:
    """What came of one architecture: `parts` says what each rank gets an equal part of; it is
    `refused` if it cannot be split, and `wrong` if the ranks compute something else."""

    name: str
    parts: dict[str, int] = dataclasses.field(default_factory=dict)
    passed: list[str] = dataclasses.field(default_factory=list)
    refused: str | None = None
    wrong: str | None = None


def known() -> list[str]:
    """The names of configurations of the architectures that mlx-lm can split."""
    able = {name for name, model in splitting_modules().items() if model}
    return sorted(name for name, entry in all_entries().items() if entry["module"] in able)


def all_entries() -> dict[str, dict[str, Any]]:
    """By name, the module of mlx-lm and the model's arguments."""
    entries = {**configurations(), **{entry["name"]: entry for entry in _MORE}}
    # Other names of the same layers.
    for name, like in {"glm_moe_dsa": "deepseek_v32", "solar_open": "glm4_moe"}.items():
        more = {"model_type": name, "rope_parameters": {"rope_theta": 10000.0}}
        config = {**entries[like]["config"], **more}
        entries[name] = {"name": name, "module": name, "config": config}
    kimi = {"model_type": "kimi_k25", "text_config": entries["deepseek_v3"]["config"]}
    entries["kimi_k25"] = {"name": "kimi_k25", "module": "kimi_k25", "config": kimi}
    return entries


def splitting_modules() -> dict[str, bool]:
    """Which of mlx-lm's modules have a model that can be split."""
    found: dict[str, bool] = {}
    for module in pkgutil.iter_modules(mlx_lm.models.__path__):
        try:
            with contextlib.redirect_stdout(None):
                imported = importlib.import_module(f"mlx_lm.models.{module.name}")
        except SystemExit:
            continue  # It wants something that is not installed.
        if model := getattr(imported, "Model", None):
            found[module.name] = hasattr(model, "shard")
    return found


def config_of(entry: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": entry["module"], **entry["config"]}


def judge(entry: dict[str, Any], group: mx.distributed.Group) -> Outcome:
    """Try an architecture over the ranks of a group: each rank calls this at the same time."""
    outcome = Outcome(entry["name"])
    config = config_of(entry)
    mx.random.seed(1)  # All ranks have the same weights.
    weights = random_weights(build(entry))
    # First, since some models change their weights in place when they are split.
    whole = [WholeModel(build(entry, weights))]
    expected = {name: generate(whole, chunks) for name, chunks in PROMPTS.items()}
    if can_batch(whole[0].model):
        expected["in a batch"] = generate_batch(whole)
    split = build(entry, weights)
    try:
        shard(split, group, config)
    except ModelInvalid as error:
        outcome.refused = error.message
        return outcome
    rule = shares(config)
    outcome.parts = rule.parts if rule else {}
    part = [SharedModel(split, last=True)]
    for name, logits in expected.items():
        found = generate(part, PROMPTS[name]) if name in PROMPTS else generate_batch(part)
        _compare(outcome, name, found, logits)
    return outcome


def _compare(
    outcome: Outcome, what: str, found: Sequence[mx.array], expected: Sequence[mx.array]
) -> None:
    for one, other in zip(found, expected, strict=True):
        off = mx.abs(one - other).max().item() / mx.abs(other).max().item()
        if off > CLOSE or not mx.array_equal(mx.argmax(one, -1), mx.argmax(other, -1)).item():
            outcome.wrong = outcome.wrong or f"{what}: other logits"
            return
    outcome.passed.append(what)


def judged(names: Sequence[str]) -> Iterator[Outcome]:
    """Try architectures, each in processes of its own."""
    for name in names:
        ports = free_ports(RANKS)
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.inference.tensors", "--rank", str(rank), ports, name],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            for rank in range(RANKS)
        ]
        try:
            told, said = ranks[0].communicate(timeout=SECONDS)
            lines = [line for line in told.splitlines() if line.startswith("{")]
            yield Outcome(**json.loads(lines[0])) if lines else Outcome(name, wrong=said[-300:])
        except subprocess.TimeoutExpired:
            yield Outcome(name, wrong=f"nothing after {SECONDS} s: the ranks wait for each other")
        finally:
            for rank in ranks:
                rank.kill()
                rank.communicate()


def free_ports(count: int) -> str:
    """So many ports of this machine that nobody listens on, with commas."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ",".join(ports)


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] != ["--rank"]:
        for outcome in judged(arguments or known()):
            print(json.dumps(dataclasses.asdict(outcome)), flush=True)  # noqa: T201
        return
    _, rank, ports, name = arguments
    mx.disable_compile()
    group = join("ring", int(rank), [Address("127.0.0.1", int(port)) for port in ports.split(",")])
    outcome = judge(all_entries()[name], group)
    print(json.dumps(dataclasses.asdict(outcome)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
