"""Takes the place of scripts/serve.py: the same arguments, and answers without a model."""

import argparse
import socket
import sys
from pathlib import Path

from fake_demo import BASE, calls_the_weather
from fake_endpoint import FakeEndpoint
from snaketune.serving import lifetime


def reply(model: str, messages: list[dict]) -> str:
    """Call the weather tool where there is one; else say something long enough to watch."""
    if "Weather" in messages[0]["content"]:
        return calls_the_weather(model, messages)
    if "for ever" in messages[-1]["content"]:
        return "and so on " * 1000
    picture = "![](https://example.org/track.png) <img src='https://example.org/t.png'>"
    words = 80 if "your time" in messages[-1]["content"] else 20
    return f"I am {model}, **{len(messages)}**. {picture}" + " word" * words


class Endpoint(FakeEndpoint):
    """It tells no errors: clients hang up as they like."""

    def handle_error(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--fd", type=int)
    parser.add_argument("--log", type=Path)
    args, _ = parser.parse_known_args(sys.argv[1:])
    endpoint = Endpoint([*args.names, BASE], reply, seconds=0.05)
    endpoint.socket.close()
    endpoint.socket = socket.socket(fileno=args.fd)
    lifetime.end_with_stdin()
    endpoint.serve_forever()
