"""What the tests of the chat share: an endpoint to talk to, and how to start the chat."""

import sys
import time

import pytest

from fake_endpoint import FakeEndpoint, echo


def reply(model, messages):
    """Echo the prompt, or do as it says."""
    prompt = messages[-1]["content"]
    if prompt == "count":
        return _count()
    if prompt == "wait":
        return _wait()
    if prompt == "break":
        return _break()
    if prompt == "attack":
        return ["\x1b]0;title\x07", "\x1b[2Jgone\r", "over\x9b31mred\x00", "\ud800."]
    return echo(model, messages)


def _wait():
    while True:
        yield ""
        time.sleep(0.005)


def _break():
    yield "half "
    raise BrokenPipeError  # the endpoint hangs up


def _count():
    for number in range(1, 3000):
        yield f"{number} "
        time.sleep(0.005)


@pytest.fixture(scope="module")
def endpoint():
    """An endpoint with the models `tuned` and `base`."""
    with FakeEndpoint(reply=reply).running() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def program(repository):
    """The command that starts the chat."""
    return [sys.executable, str(repository / "scripts/chat.py")]
