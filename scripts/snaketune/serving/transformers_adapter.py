"""The private parts of `transformers serve` that our server is built on. Nothing else imports them.

`transformers.cli.serving` streams answers in OpenAI's formats, but it is no public API: names and
signatures change between minor versions (5.24 renamed `get_gen_models` to `list_models`, and the
endpoint listed nothing). Checked with transformers 5.23.0 and 5.24.0. The contract test,
tests/serving/test_transformers_adapter.py, names the part that a new version has changed.

What is overridden, and why:
* the model manager: our models share the weights of their base;
* the generation state: one queue for all models, as a PEFT model has one active adapter at a time;
* the handlers: they check requests, load outside the event loop, and seed when generation begins;
* the generation manager: it limits an answer to the context and removes stop strings.
"""

import asyncio
import json
from typing import Any

from fastapi import FastAPI, HTTPException
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.server import build_server
from transformers.cli.serving.utils import (
    BaseHandler,
    GenerateManager,
    GenerationState,
    Modality,
    _StreamError,
)

from snaketune.serving.request_checks import ChatBody, CompletionBody, TextBody, check_request
from snaketune.serving.served_models import ServedModels
from snaketune.serving.stop_strings import StopStringFilter, cut_at_stop

PATHS = {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health"}


def build_app(models: ServedModels) -> FastAPI:
    """Build transformers' application with our models, limited to `PATHS`."""
    manager, state = SharedModelManager(models), OneQueue()
    unused: Any = None  # handlers of responses, audio and systemone, whose routes are removed below
    handlers = ChatHandler(manager, state), TextHandler(manager, state), unused, unused, unused
    app = build_server(manager, *handlers, generation_state=state)
    app.router.routes[:] = [route for route in app.router.routes if route.path in PATHS]  # type: ignore[attr-defined]
    return app


class SharedModelManager(ModelManager):
    """Hands transformers' handlers our models."""

    def __init__(self, models: ServedModels) -> None:
        super().__init__()
        self.models = models

    @staticmethod
    def process_model_name(model_id: str) -> str:
        """Keep the id as it is; transformers would add a revision, `@main`."""
        return model_id

    def load_model_and_processor(  # type: ignore[override]
        self, model_id_and_revision: str, *_: Any, **__: Any
    ) -> tuple[Any, Any]:
        """Load a model and its tokenizer on first use."""
        return self.models.load(model_id_and_revision)

    @staticmethod
    def get_model_modality(model: Any, processor: Any = None) -> Modality:
        """All our models read text only; transformers would look the class name up."""
        return Modality.LLM

    def list_models(self, *_: Any) -> list[dict[str, Any]]:
        """Entries of GET /v1/models; called by transformers 5.24."""
        return self.models.entries()

    def get_gen_models(self, *_: Any) -> list[dict[str, Any]]:  # type: ignore[override, unused-ignore]
        """The same, as transformers 5.23 calls it."""
        return self.models.entries()

    def shutdown(self) -> None:
        """Leave the models to the end of the process, which is near."""


class OneQueue(GenerationState):
    """One generation queue for all models; transformers has one for each."""

    def __init__(self) -> None:
        super().__init__()
        self._manager = BoundedGeneration()

    def use_continuous_batching(self, *_: Any) -> bool:
        """Never: it would generate for two adapters at once."""
        return False

    def get_manager(self, *_: Any, **__: Any) -> Any:
        """The only one."""
        return self._manager


class _CheckedHandler(BaseHandler):
    """What the two handlers share. Mixed in before transformers' own handler."""

    body: type[CompletionBody]

    async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
        """Answer a request.

        Raises:
            HTTPException: The request is invalid, or its prompt does not fit the context.
        """
        check_request(self.body, body)
        # transformers loads inside the event loop, where nothing else would be answered meanwhile
        name = str(body.get("model"))
        await asyncio.to_thread(self.model_manager.load_model_and_processor, name)
        return await super().handle_request(body, request_id)  # type: ignore[misc]

    def _build_generation_config(
        self, body: dict[str, Any], defaults: Any, use_cb: bool = False
    ) -> Any:
        # transformers seeds here, while another answer may still be sampled: LoadedModel seeds
        # when the turn of this one comes
        unseeded = {key: value for key, value in body.items() if key != "seed"}
        try:
            config: Any = super()._build_generation_config(unseeded, defaults)
        except (TypeError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        config.seed = body.get("seed")
        config.stop_strings = _stop_strings(config) or None
        if not config.do_sample:
            config.temperature = config.top_p = None
        # a request's own generation_config must not drop the end tokens of the template
        config.eos_token_id, config.pad_token_id = defaults.eos_token_id, defaults.pad_token_id
        models = self.model_manager.models  # type: ignore[attr-defined]
        config.context_length = models.served[body["model"]].context_length
        return config


class ChatHandler(_CheckedHandler, ChatCompletionHandler):
    """/v1/chat/completions."""

    body = ChatBody


class TextHandler(_CheckedHandler, CompletionHandler):
    """/v1/completions, for prompts that are rendered already."""

    body = TextBody


class BoundedGeneration(GenerateManager):
    """Limits answers to the context and removes stop strings, which transformers would send."""

    def generate_streaming(
        self,
        model: Any,
        processor: Any,
        inputs: Any,
        gen_config: Any,
        request_id: str,
        response_parser: Any = None,
    ) -> Any:
        """Start an answer; returns the queue of its pieces and the streamer that can cancel it."""
        _limit_to_context(inputs, gen_config)
        queue, streamer = super().generate_streaming(
            model, processor, inputs, gen_config, request_id, response_parser
        )
        return FilteredQueue(queue, streamer, _stop_strings(gen_config)), streamer

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, request_id: str
    ) -> Any:
        """Generate an answer; returns its text, the length of the prompt and the token ids."""
        _limit_to_context(inputs, gen_config)
        text, length, ids = await super().generate_non_streaming(
            model, processor, inputs, gen_config, request_id
        )
        return cut_at_stop(text, _stop_strings(gen_config))[0], length, ids


class FilteredQueue:
    """The queue of a streamed answer, which ends before its stop string.

    It yields text, reasoning, tool calls, an error, and None at the end, as transformers' own.
    """

    def __init__(self, queue: asyncio.Queue[Any], streamer: Any, stops: list[str]) -> None:
        self._queue = queue
        self._streamer = streamer
        self._filter = StopStringFilter(stops)
        self._ready: list[Any] = []

    async def get(self) -> Any:
        """Wait for the next item."""
        while not self._ready:
            self._take(await self._queue.get())
        return self._ready.pop(0)

    def get_nowait(self) -> Any:
        """The next item if there is one.

        Raises:
            asyncio.QueueEmpty: There is none yet.
        """
        while not self._ready:
            self._take(self._queue.get_nowait())
        return self._ready.pop(0)

    def _take(self, item: Any) -> None:
        if type(item) is str:  # reasoning is a subclass of str
            item = self._filter.feed(item)
            if self._filter.stopped:
                self._streamer.cancel()
            self._ready += [item] if item else []
        elif item is None:
            held = self._filter.flush()
            self._ready += [held, None] if held else [None]
        else:
            if isinstance(item, _StreamError):
                # transformers 5.23 and 5.24 put it between quotes without escaping it
                item.msg = json.dumps(item.msg)[1:-1]
            self._ready.append(item)


def _limit_to_context(inputs: Any, config: Any) -> None:
    """Limit the answer to what the prompt leaves of the context.

    Raises:
        HTTPException: Nothing is left.
    """
    tokens = inputs["input_ids"].shape[-1]
    room = config.context_length - tokens
    if room <= 0:
        raise HTTPException(
            400,
            f"the prompt has {tokens} tokens, but the context of the model holds "
            f"{config.context_length}, including the answer. Shorten the prompt.",
        )
    config.max_new_tokens = min(config.max_new_tokens, room)


def _stop_strings(config: Any) -> list[str]:
    stops = config.stop_strings or []
    return [stop for stop in ([stops] if isinstance(stops, str) else stops) if stop]
