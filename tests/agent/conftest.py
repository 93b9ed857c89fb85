"""Agents whose model is a list of answers."""

from collections.abc import Callable, Iterable

import openai
import pytest

from fake_endpoint import FakeEndpoint
from snaketune.agent import Agent


@pytest.fixture(scope="module")
def endpoint():
    with FakeEndpoint(models=["tuned"]).running() as running:
        yield running


@pytest.fixture
def agent(endpoint) -> Callable[..., Agent]:
    """Return a function that makes an agent whose model says these turns, one after the other."""
    endpoint.asked.clear()
    endpoint.refuses = None

    def make(turns: Iterable[str], tools=("arithmetic",), **settings) -> Agent:
        said = iter(turns)
        endpoint.reply = lambda model, messages: next(said)
        client = openai.OpenAI(base_url=endpoint.url, api_key="kEy0fTests", max_retries=0)
        return Agent(client, "tuned", tools, **settings)

    return make
