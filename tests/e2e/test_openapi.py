"""schemathesis over `/openapi.json`: no 5xx, and no answer outside the schema."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from exo.api.app import ROUTES
from exo.api.openapi import document

from .daemon import Daemon

pytestmark = pytest.mark.e2e

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 25
# Bodies of so many shapes that it takes a second to think of each.
LARGE = "/v1/responses(/input_tokens)?$"

schema = schemathesis.openapi.from_dict(document(ROUTES))


@pytest.fixture(scope="module")
def target(shared: Daemon) -> Iterator[Daemon]:
    """With an instance of `tiny`, so that there is something to find."""
    instance = shared.create("tiny")
    yield shared
    shared.delete(instance)


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@schema.exclude(path_regex=f"/cluster/(lock|rotate)|{LARGE}").parametrize()
@examples(EXAMPLES)
def test_every_operation(case: schemathesis.Case, target: Daemon) -> None:
    check(case, target)


@schema.include(path_regex=LARGE).parametrize()
@examples(EXAMPLES // 6)
def test_large_bodies(case: schemathesis.Case, target: Daemon) -> None:
    check(case, target)


def check(case: schemathesis.Case, target: Daemon) -> None:
    if case.query and case.query.get("follow"):
        case.query["follow"] = False  # A followed log has no end.
    if case.meta and case.meta.generation.mode.is_positive:
        make_answerable(case, target)
    response = case.call(base_url=target.base_url, timeout=60)
    case.validate_response(response, checks=CHECKS)
    if case.operation.label == "POST /instance" and response.status_code == 200:
        target.delete(response.json())


def make_answerable(case: schemathesis.Case, target: Daemon) -> None:
    """Random names mean nothing: those that exist take their places, and answers are short."""
    if isinstance(case.body, dict):
        make_body_answerable(case, case.body)
    if case.query and "model_id" in case.query:
        case.query["model_id"] = "tiny"
    if "model_id" in (case.path_parameters or {}):
        case.path_parameters["model_id"] = "tiny"
    if "instance_id" in (case.path_parameters or {}) and case.method == "GET":
        [instance, *_] = target.get("/instance")["data"]
        case.path_parameters["instance_id"] = instance["instance_id"]


def make_body_answerable(case: schemathesis.Case, body: dict[str, Any]) -> None:
    if "prompt" in body:
        body["model"] = "tiny"  # It makes no images, and says so.
    elif "messages" in body:
        body |= {"model": "tiny", "max_tokens": 4, "max_completion_tokens": None, "n": 2}
    elif case.path in {"/v1/embeddings", "/api/embed"}:
        body |= {"model": "tiny", "input": "Hello", "dimensions": None}
    elif case.path == "/api/pull":
        body.clear()
        body["model"] = "tiny"
    elif "input" in body or "previous_response_id" in body:
        body |= {"model": "tiny", "input": "Hello", "previous_response_id": None}
        if case.path == "/v1/responses":
            body |= {"max_output_tokens": 4, "background": False}
    elif "instance" in body:
        body["instance"] = {**body["instance"], "model_id": "tiny"}
    elif "model_id" in body:
        body["model_id"] = "tiny"


def test_served_document_is_the_published_one(shared: Daemon) -> None:
    assert shared.get("/openapi.json") == json.loads(json.dumps(document(ROUTES)))
