"""Answers that do not end by themselves, within any test's patience."""

from typing import Any

from tests.models_maker import END_ID

MODEL = "tiny-endless"
# The context is a million tokens, and the token that would end the answer is never drawn.
FIELDS: dict[str, Any] = {"logit_bias": {str(END_ID): -100}, "temperature": 0}
