"""The demo without a model: an endpoint whose answers a test decides, and the page on it."""

from pathlib import Path

import openai
import pytest

from fake_demo import BASE, TUNED, WEATHER
from fake_endpoint import FakeEndpoint
from snaketune.demo import setup


@pytest.fixture
def endpoint():
    with FakeEndpoint([TUNED, f"{TUNED}/iter_5", BASE]).running() as running:
        yield running


@pytest.fixture
def client(endpoint):
    return openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)


@pytest.fixture
def made(endpoint, client, tmp_path):
    """What the program would give the page: the base to the left of what was trained."""
    canned = tmp_path / "weather.yaml"
    canned.write_text(WEATHER)
    return setup.Setup(
        client=client,
        models=endpoint.models,
        bases=[BASE],
        picked=[BASE, TUNED],
        prompts={TUNED: ["Who are you?"]},
        canned=canned,
        experiments=tmp_path / "experiments",
        log=Path("logs/demo_server.log"),
    )
