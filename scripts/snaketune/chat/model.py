"""One model behind an endpoint: a conversation in, the pieces of its answer out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import openai

from snaketune.chat.context import Context, Fitted, Message, fit
from snaketune.chat.text import encodable, printable
from snaketune.core.errors import UserError
from snaketune.core.refusal import refusal


@dataclass(frozen=True)
class Settings:
    """How an answer is made.

    Attributes:
        temperature: 0 takes the likeliest token each time (greedy); above, tokens are sampled.
        top_p: Sample of the likeliest tokens that have this probability together.
        max_new_tokens: Longest answer.
        seed: Of the sampling.
        stop: An answer ends before any of these.
    """

    temperature: float = 0.0
    top_p: float | None = None
    max_new_tokens: int = 512
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass
class Answer:
    """An answer, growing while it streams.

    Attributes:
        finish_reason: `stop`, `length`, or None while it is not done, also when it was stopped.
        prompt_tokens, completion_tokens: As the server counts them, if it does.
        left_out: How many of the oldest turns did not fit and were not sent.
    """

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    wall_seconds: float = 0.0
    left_out: int = 0


class Speaker(Protocol):
    """What turns a user's turn into an answer: a model, or one with plugins or tools around it.

    Attributes:
        name: Shown above an answer where several answer.
        answer: The one that `reply` made last, or is making.
    """

    name: str
    answer: Answer

    def reply(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield the pieces of an answer to a conversation that ends with a question.

        Closing the iterator, or an exception in it, stops the generation.
        """


class ChatModel:
    """A model of an OpenAI-compatible endpoint.

    Args:
        client: That of the endpoint.
        name: The model's id there.
        context: What fits it; None where only the server knows.
    """

    def __init__(
        self, client: openai.OpenAI, name: str, settings: Settings, context: Context | None
    ) -> None:
        self.client, self.name, self.settings, self.context = client, name, settings, context
        self.answer = Answer()

    def reply(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield the pieces of an answer; closing the iterator stops the server's work on it.

        Raises:
            UserError: The question is too long, or the server refuses it or is gone.
        """
        fitted = self._fitted(messages)
        self.answer = answer = Answer(left_out=fitted.left_out)
        started = time.monotonic()
        try:
            with self.client.chat.completions.create(**self._request(fitted)) as stream:
                for event in stream:
                    answer.wall_seconds = time.monotonic() - started
                    yield from _take(event, answer)
        except (openai.OpenAIError, ValueError) as error:
            raise UserError(printable(self._explained(error))) from error
        finally:
            answer.wall_seconds = time.monotonic() - started
        if answer.finish_reason is None and not answer.text:
            raise UserError(f"{self.client.base_url} sent no answer: is it a model server?")

    def _fitted(self, messages: Sequence[Message]) -> Fitted:
        most = self.settings.max_new_tokens
        if self.context is None:
            return Fitted(list(messages), most)
        return fit(messages, most, self.context.limit, self.context.count)

    def _request(self, fitted: Fitted) -> dict[str, Any]:
        wanted = {
            "top_p": self.settings.top_p,
            "seed": self.settings.seed,
            "stop": list(self.settings.stop) or None,
        }
        return {
            "model": self.name,
            "messages": fitted.messages,
            "temperature": self.settings.temperature,
            "max_tokens": fitted.max_new_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **{key: value for key, value in wanted.items() if value is not None},
        }

    def _explained(self, error: Exception) -> str:
        where = str(self.client.base_url).rstrip("/")
        if isinstance(error, openai.APITimeoutError):
            return f"{where} does not answer in time."
        if isinstance(error, openai.APIConnectionError):
            return (
                f"the model server at {where} is not there (any more): {error.__cause__}.\n"
                "  Fix: start it again; its log tells why it ended."
            )
        if isinstance(error, openai.APIStatusError):
            return f"the server refuses this ({error.status_code}): {refusal(error)}"
        return f"the server at {where} failed: {error}"


def _take(event: Any, answer: Answer) -> Iterator[str]:
    """Add an event of a stream to the answer, and yield its text if it has one."""
    if event.usage:
        answer.prompt_tokens = event.usage.prompt_tokens
        answer.completion_tokens = event.usage.completion_tokens
    for choice in event.choices:
        answer.finish_reason = choice.finish_reason or answer.finish_reason
        if text := encodable(choice.delta.content or ""):  # it is sent back with the next question
            answer.text += text
            yield text
