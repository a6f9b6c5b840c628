"""An engine that quotes prompts wherever it can: in what it raises, and in what it logs."""

import logging

from exo.inference.engine import Prepared, Sampled
from exo.inference.types import GenerateRequest

from .engine import FakeEngine

log = logging.getLogger("other.library")


class Blabber(FakeEngine):
    """As the fake, but for prompts with one of these words: `tokeniser` fails when it is read,
    `fail` when it is computed, `bug` in a way that ends the process."""

    def prepare(self, request: GenerateRequest) -> Prepared:
        said = str(request.messages or request.prompt)
        log.debug("Asked for %s", said)
        if "tokeniser" in said:
            raise KeyError(said)
        return super().prepare(request)

    def step(self) -> list[Sampled]:
        for spec, position in self.sequences.values():
            said = " ".join(self.vocabulary[token] for token in spec.prompt)
            if "fail" in said and position:
                raise RuntimeError(f"It failed at: {said}")
            if "bug" in said and position:
                raise ZeroDivisionError(said)
        return super().step()
