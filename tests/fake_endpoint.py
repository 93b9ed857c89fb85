"""An OpenAI-compatible server on 127.0.0.1 whose answers a test decides.

    with FakeEndpoint().running() as endpoint:
        openai.OpenAI(base_url=endpoint.url, api_key="none").chat.completions.create(...)

It answers with `reply(model, messages)`: a text, or the pieces that are streamed. Tokens are words.
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stand_in import Replies, Server

Reply = Callable[[str, list[dict[str, Any]]], str | Iterable[str]]


def echo(model: str, messages: list[dict[str, Any]]) -> str:
    """Return who heard what, and after how many messages."""
    return f"{model} heard: {messages[-1]['content']} ({len(messages)})"


class FakeEndpoint(Server):
    """The server.

    Attributes:
        url: What a client takes as `base_url`.
        asked: The bodies of the requests for an answer, in their order.
        abandoned: The models whose client hung up before the end of an answer.
        refuses: (status, message) with which the next requests for an answer are refused.
        seconds: Between two streamed pieces.
    """

    def __init__(
        self,
        models: Iterable[str] = ("tuned", "base"),
        reply: Reply = echo,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(Routes)
        self.url += "/v1"
        self.models = list(models)
        self.reply, self.seconds = reply, seconds
        self.asked: list[dict[str, Any]] = []
        self.abandoned: list[str] = []
        self.refuses: tuple[int, str] | None = None


class Routes(Replies):
    """The routes that clients ask."""

    server: FakeEndpoint
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path == "/health":
            return self.json({"status": "ok"})
        if self.path != "/v1/models":
            return self.json({"detail": "Not Found"}, 404)
        listed = [{"id": name, "object": "model"} for name in self.server.models]
        self.json({"object": "list", "data": listed})

    def do_POST(self) -> None:
        body = json.loads(self.body())
        self.server.requests.append(self.path)
        self.server.asked.append(body)
        if self.path != "/v1/chat/completions":
            return self.json({"detail": "Not Found"}, 404)
        if self.server.refuses:
            status, message = self.server.refuses
            return self.json({"detail": message}, status)
        if body["model"] not in self.server.models:
            return self.json({"detail": f"there is no model '{body['model']}'"}, 404)
        pieces = _shortened(self.server.reply(body["model"], body["messages"]), body)
        self.stream(body, pieces) if body.get("stream") else self.whole(body, list(pieces))

    def whole(self, body: dict[str, Any], pieces: list[str]) -> None:
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": _reason(body, pieces)}
        about = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        self.json(about | {"choices": [choice], "usage": _usage(body, pieces)})

    def stream(self, body: dict[str, Any], pieces: Iterator[str]) -> None:
        """Send server-sent events in chunks; note it if the client hangs up."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = []
        try:
            self.event(body, {"role": "assistant", "content": ""})
            for piece in pieces:
                sent.append(piece)
                self.event(body, {"content": piece})
                time.sleep(self.server.seconds)
            self.event(body, {}, _reason(body, sent))
            if (body.get("stream_options") or {}).get("include_usage"):
                self.event(body, None, usage=_usage(body, sent))
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            self.server.abandoned.append(body["model"])
            self.close_connection = True

    def event(
        self,
        body: dict[str, Any],
        delta: dict[str, str] | None,
        reason: str | None = None,
        usage: dict[str, int] | None = None,
    ) -> None:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        about = {"id": "1", "object": "chat.completion.chunk", "created": 0, "usage": usage}
        about |= {"model": body["model"], "choices": [] if delta is None else choices}
        self.chunk(b"data: " + json.dumps(about).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _shortened(reply: str | Iterable[str], body: dict[str, Any]) -> Iterator[str]:
    """Yield an answer's pieces up to a stop string or as many as `max_tokens` allows."""
    pieces: Iterable[str] = (
        re.findall(r"\s*\S+\s*$|\s*\S+", reply) if isinstance(reply, str) else reply
    )
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    for piece in itertools.islice(pieces, limit):
        ends = [piece.index(stop) for stop in stops if stop in piece]
        yield piece[: min(ends)] if ends else piece
        if ends:
            return


def _reason(body: dict[str, Any], pieces: list[str]) -> str:
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    return "length" if len(pieces) == limit else "stop"


def _usage(body: dict[str, Any], pieces: list[str]) -> dict[str, int]:
    asked = sum(len(str(message["content"]).split()) for message in body["messages"])
    total = asked + len(pieces)
    return {"prompt_tokens": asked, "completion_tokens": len(pieces), "total_tokens": total}
