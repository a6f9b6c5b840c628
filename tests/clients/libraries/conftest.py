"""What every library is told: where exo is. These tests run in the environment of this folder;
`tests/clients/test_libraries.py` runs them."""

import os

import pytest


@pytest.fixture(scope="session")
def base_url() -> str:
    return os.environ["EXO_BASE_URL"]
