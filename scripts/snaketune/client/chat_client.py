"""The one client of a chat model behind an OpenAI-compatible API: messages in, an answer out."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import openai

from snaketune.client.answer import Answer, ChatMessage, GenerationSettings
from snaketune.client.context import Context, FittedMessages, fit
from snaketune.client.server_errors import explain_error
from snaketune.core.errors import UserError
from snaketune.core.text import encodable, printable


class ChatClient:
    """A chat model that streams its answers.

    `answer` is the one that `stream` generated last or is generating. It keeps what was streamed
    when the stream is closed early or fails.

    Args:
        client: Of the endpoint.
        name: The model's id at the endpoint.
        context: What fits the model's context; None if only the server knows.
        log: Of a server that this program started, which errors then refer to.
    """

    def __init__(
        self,
        client: openai.OpenAI,
        name: str,
        settings: GenerationSettings | None = None,
        context: Context | None = None,
        log: Path | None = None,
    ) -> None:
        self.client, self.name, self.context, self.log = client, name, context, log
        self.settings = settings or GenerationSettings()
        self.answer = Answer()

    def stream(self, messages: Sequence[ChatMessage]) -> Generator[str, None, None]:
        """Yield the answer in pieces; closing the iterator stops the generation on the server.

        Args:
            messages: They end with a prompt.

        Raises:
            UserError: The prompt is too long, or the server refuses it or fails.
        """
        fitted = self.fit(messages)
        self.answer = Answer(left_out=fitted.left_out)
        request = self.request(fitted.messages) | {"max_tokens": fitted.max_new_tokens}
        yield from self._stream(self.client.chat.completions.create, request, _delta)

    def complete(self, messages: Sequence[ChatMessage]) -> Answer:
        """Generate an answer as a whole; raises what `stream` raises."""
        with closing(self.stream(messages)) as pieces:
            for _ in pieces:
                pass  # `answer` collects them
        return self.answer

    def stream_text(self, prompt: str) -> Generator[str, None, None]:
        """Yield the continuation of a prompt that is rendered already (/v1/completions).

        Raises:
            UserError: The server refuses it or fails.
        """
        self.answer = Answer()
        request = {"model": self.name, "prompt": prompt, **self.settings.as_request()}
        yield from self._stream(self.client.completions.create, request, _text)

    def request(self, messages: Sequence[ChatMessage]) -> dict[str, Any]:
        """Build the request for an answer, without the streaming options."""
        return {"model": self.name, "messages": list(messages), **self.settings.as_request()}

    def fit(self, messages: Sequence[ChatMessage]) -> FittedMessages:
        """Leave out the oldest turns if the context is known and too short for all.

        Raises:
            UserError: The last prompt alone is too long.
        """
        longest = self.settings.max_new_tokens
        if self.context is None:
            return FittedMessages(list(messages), longest)
        return fit(messages, longest, self.context.limit, self.context.count)

    def _stream(
        self, create: Callable[..., Any], request: dict[str, Any], text: Callable[[Any], str | None]
    ) -> Iterator[str]:
        """Yield the text of a stream's events, and note their figures in `answer`."""
        answer, url = self.answer, str(self.client.base_url)
        started = time.monotonic()
        usage = {"include_usage": True}
        try:
            with create(**request, stream=True, stream_options=usage) as events:
                for event in events:
                    answer.wall_seconds = time.monotonic() - started
                    yield from _take(event, answer, text)
        # ValueError: OpenAI's client lets that of a malformed event through
        except (openai.OpenAIError, ValueError) as error:
            raise UserError(printable(explain_error(error, self.name, url, self.log))) from error
        finally:
            answer.wall_seconds = time.monotonic() - started
        if answer.finish_reason is None and not answer.text:
            raise UserError(f"{url} sent an empty stream: is it a model server?")


def _take(event: Any, answer: Answer, text: Callable[[Any], str | None]) -> Iterator[str]:
    """Add an event to the answer, and yield its text if it has any."""
    if event.usage:  # the last event; it has no choices
        answer.prompt_tokens = event.usage.prompt_tokens
        answer.completion_tokens = event.usage.completion_tokens
    for choice in event.choices:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        # half a surrogate pair could be neither shown nor sent back with the next prompt
        if piece := encodable(text(choice) or ""):
            answer.text += piece
            yield piece


def _delta(choice: Any) -> str | None:
    return choice.delta.content


def _text(choice: Any) -> str | None:
    return choice.text
