"""The official clients, unchanged but for the base URL, on one daemon."""

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.daemon import Daemon

# They run in another environment, where the libraries are.
collect_ignore = ["libraries"]


@pytest.fixture(scope="session")
def base_url(shared: Daemon) -> str:
    return f"{shared.base_url}/v1"


@pytest.fixture
def client(base_url: str) -> Iterator[OpenAI]:
    """What the error tests see must be the first answer, so nothing is tried again."""
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client
