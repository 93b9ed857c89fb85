"""transformers' own server with our models: /v1/chat/completions, /v1/completions, /v1/models.

Its handlers, streaming and OpenAI's formats are used as they are. Ours is what they lack for us:
answers of all models in one thread (they share weights), stop strings that are not sent, seeds that
two clients do not take from each other, and refusals instead of failures.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveInt, ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from snaketune.core.errors import UserError
from snaketune.serving.served_models import ServedModels
from snaketune.serving.transformers_adapter import (
    BaseHandler,
    ChatCompletionHandler,
    CompletionHandler,
    GenerateManager,
    GenerationState,
    StreamError,
    build_server,
)

log = logging.getLogger(__name__)

PATHS = {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"}
STOP_SECONDS = 2


def serve(models: ServedModels, listening: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Args:
        listening: A socket of 127.0.0.1.
    """
    config = uvicorn.Config(
        application(models), log_level="warning", timeout_graceful_shutdown=STOP_SECONDS
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def application(models: ServedModels) -> FastAPI:
    """Return the server of these models."""
    state = _OneThread()
    unused: Any = None  # handlers of paths that are taken away below
    handlers = _Chat(models, state), _Text(models, state), unused, unused, unused
    app = build_server(models, *handlers, generation_state=state)
    app.router.routes[:] = [each for each in app.router.routes if each.path in PATHS]  # type: ignore[attr-defined]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(TemplateError, _refused_by_template)
    app.add_exception_handler(Exception, _failed)
    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """Tell what is wrong with a request as OpenAI does, so that its clients show it."""
    assert isinstance(error, HTTPException)
    told = {"message": error.detail, "type": "invalid_request_error", "code": error.status_code}
    return JSONResponse({"error": told}, status_code=error.status_code)


async def _refused_by_template(request: Request, error: Exception) -> JSONResponse:
    told = f"the model's chat template refuses these messages: {error}"
    return await _refused(request, HTTPException(400, told))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return await _refused(request, HTTPException(500, f"{kind}{error}"))


class _Message(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _Body(BaseModel):
    """The values that would else fail in mid-generation; transformers refuses unknown keys."""

    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    temperature: NonNegativeFloat | None = None
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None


class _ChatBody(_Body):
    messages: list[_Message] = Field(min_length=1)


class _TextBody(_Body):
    prompt: str = Field(min_length=1)


class _Prepared(BaseHandler):
    """Loads the model outside the event loop, and completes how an answer is generated."""

    body: type[_Body]

    async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
        """Answer a request.

        Raises:
            HTTPException: The request is wrong, or its prompt longer than the model's context.
        """
        _require(self.body, body)
        name = str(body.get("model"))
        await asyncio.to_thread(self.model_manager.load_model_and_processor, name)
        return await super().handle_request(body, request_id)  # type: ignore[misc]

    def _build_generation_config(
        self, body: dict[str, Any], defaults: Any, use_cb: bool = False
    ) -> Any:
        # the seed is set when the answer's turn comes, not while another one is being sampled
        unseeded = {key: value for key, value in body.items() if key != "seed"}
        try:
            config: Any = super()._build_generation_config(unseeded, defaults)
        except (TypeError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        config.seed = body.get("seed")
        config.stop_strings = _stops(config) or None
        if not config.do_sample:
            config.temperature = config.top_p = None
        config.eos_token_id, config.pad_token_id = defaults.eos_token_id, defaults.pad_token_id
        config.context_length = self.model_manager.served[body["model"]].context_length  # type: ignore[attr-defined]
        return config


class _Chat(_Prepared, ChatCompletionHandler):
    """/v1/chat/completions."""

    body = _ChatBody


class _Text(_Prepared, CompletionHandler):
    """/v1/completions, for prompts that are rendered already."""

    body = _TextBody


def _require(expected: type[_Body], body: dict[str, Any]) -> None:
    try:
        json.dumps(body, ensure_ascii=False).encode()
        expected.model_validate(body)
    except UnicodeEncodeError as error:
        raise HTTPException(422, "half a character (a surrogate) is in the request") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        found = ascii(first["input"])[:80]
        raise HTTPException(422, f"{key}: {first['msg']}, found {found}") from error


class _OneThread(GenerationState):
    """One queue for all models."""

    def __init__(self) -> None:
        super().__init__()
        self._manager = _Generation()

    def use_continuous_batching(self, *_: Any) -> bool:
        return False

    def get_manager(self, *_: Any, **__: Any) -> Any:
        return self._manager


class _Generation(GenerateManager):
    """Refuses what does not fit, and ends an answer before its stop string."""

    def generate_streaming(
        self,
        model: Any,
        processor: Any,
        inputs: Any,
        gen_config: Any,
        request_id: str,
        response_parser: Any = None,
    ) -> Any:
        _fit(inputs, gen_config)
        queue, streamer = super().generate_streaming(
            model, processor, inputs, gen_config, request_id, response_parser
        )
        return _Cut(queue, streamer, _stops(gen_config)), streamer

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, request_id: str
    ) -> Any:
        _fit(inputs, gen_config)
        text, length, ids = await super().generate_non_streaming(
            model, processor, inputs, gen_config, request_id
        )
        return until_stop(text, _stops(gen_config))[0], length, ids


def _fit(inputs: Any, config: Any) -> None:
    """Leave the answer what the prompt leaves of the context.

    Raises:
        HTTPException: Nothing is left.
    """
    tokens = inputs["input_ids"].shape[-1]
    room = config.context_length - tokens
    if room <= 0:
        raise HTTPException(
            400,
            f"the prompt has {tokens} tokens, and the model reads {config.context_length}, its own "
            "answer included. Shorten it.",
        )
    config.max_new_tokens = min(config.max_new_tokens, room)


def _stops(config: Any) -> list[str]:
    given = config.stop_strings or []
    return [stop for stop in ([given] if isinstance(given, str) else given) if stop]


def until_stop(text: str, stops: Sequence[str]) -> tuple[str, str]:
    """Return what may be sent of a text, and its end that may be the beginning of a stop string.

    A text with a whole stop string in it ends before the first.
    """
    if found := [text.index(stop) for stop in stops if stop in text]:
        return text[: min(found)], ""
    held = max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )
    return text[: len(text) - held], text[len(text) - held :]


class _Cut:
    """The queue of a streaming answer, without its stop string and what comes after."""

    def __init__(self, queue: asyncio.Queue[Any], streamer: Any, stops: Sequence[str]) -> None:
        self._queue = queue
        self._streamer = streamer
        self._stops = stops
        self._ready: list[Any] = []
        self._held = ""
        self._stopped = False

    async def get(self) -> Any:
        """Return the next piece of text, an error, or None at the end."""
        while not self._ready:
            self._take(await self._queue.get())
        return self._ready.pop(0)

    def get_nowait(self) -> Any:
        """Return the same if it is there.

        Raises:
            asyncio.QueueEmpty: It is not.
        """
        while not self._ready:
            self._take(self._queue.get_nowait())
        return self._ready.pop(0)

    def _take(self, item: Any) -> None:
        if item is None:
            self._ready += [self._held, None] if self._held else [None]
        elif isinstance(item, StreamError):
            item.msg = json.dumps(item.msg)[1:-1]  # it is put between quotes as it is
            self._ready.append(item)
        elif type(item) is str:
            self._take_text(self._held + item)
        else:
            self._ready.append(item)

    def _take_text(self, text: str) -> None:
        if self._stopped:
            return
        sent, self._held = until_stop(text, self._stops)
        if any(stop in text for stop in self._stops):
            self._stopped = True
            self._streamer.cancel()
        if sent:
            self._ready.append(sent)
