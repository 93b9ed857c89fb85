"""An answer in the making, in a thread of its own, so that a page can be used meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import openai

from snaketune.core.errors import UserError
from snaketune.core.refusal import refusal
from snaketune.demo.conversation import Answer, Message, Settings, Step

UNSEEN_SECONDS = 15.0
"""An answer ends when nobody has looked at it for so long: its page was closed."""


class _Stopped(BaseException):
    """Raised through an agent, whatever it catches."""


class Answering:
    """One model's answer.

    Args:
        write: Does it, telling what comes; see `stream` and `use_tools`.
        explain: Says what an error means and what to do.
    """

    def __init__(
        self,
        model: str,
        write: Callable[["Answering"], None],
        explain: Callable[[Exception], str] = str,
    ) -> None:
        self.model = model
        self._write, self._explain = write, explain
        self._answer = Answer(model=model, end="writing")
        self._lock = threading.Lock()
        self._begin, self._first = time.monotonic(), 0.0
        self._seen = self._begin
        threading.Thread(target=self._run, name=f"answer of {model}", daemon=True).start()

    @property
    def answer(self) -> Answer:
        """What there is of it now; looking keeps it going."""
        self._seen = time.monotonic()
        with self._lock:
            return self._answer

    @property
    def done(self) -> bool:
        """Tell whether it has ended, in whatever way."""
        return self.answer.end != "writing"

    @property
    def elapsed(self) -> float:
        """The seconds since it was asked for."""
        return time.monotonic() - self._begin

    def stop(self) -> None:
        """End it here; the server is told with the next token."""
        self._change(end="stopped")

    def add(self, text: str) -> None:
        """Append to the text, unless it was stopped."""
        now = time.monotonic()
        if now - self._seen > UNSEEN_SECONDS:
            self.stop()
        self._first = self._first or now
        waited = self._first - self._begin
        whole = self._answer.text + text
        if not self._change(text=whole, waited_seconds=waited, seconds=now - self._first):
            raise _Stopped

    def add_step(self, step: Step) -> None:
        """Append a finished tool call; the text before it was the call."""
        if not self._change(steps=[*self._answer.steps, step], text=""):
            raise _Stopped

    def finish(self, **changes: Any) -> None:
        """End it by itself, with what is known then."""
        self._change(**({"end": "complete"} | changes))

    def _change(self, **changes: Any) -> bool:
        """Change it unless it has ended, and tell whether it had not."""
        with self._lock:
            if self._answer.end != "writing":
                return False
            self._answer = self._answer.model_copy(update=changes)
            return True

    def _run(self) -> None:
        try:
            self._write(self)
        except _Stopped:
            pass
        except Exception as error:
            self._change(end="failed", error=self._explain(error))


def stream(
    client: openai.OpenAI, model: str, messages: list[Message], settings: Settings
) -> Callable[[Answering], None]:
    """Return what writes an answer of the endpoint, a token at a time."""

    def write(answering: Answering) -> None:
        create: Any = client.chat.completions.create  # its types want literal dictionaries
        with create(
            model=model,
            messages=_with_system(messages, settings),
            stream=True,
            stream_options={"include_usage": True},
            **generation(settings),
        ) as events:
            reason, tokens = "", None
            for event in events:
                tokens = event.usage.completion_tokens if event.usage else tokens
                for choice in event.choices:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        answering.add(choice.delta.content)
        answering.finish(end="length" if reason == "length" else "complete", tokens=tokens)

    return write


def use_tools(
    client: openai.OpenAI,
    model: str,
    messages: list[Message],
    tools: Sequence[str],
    canned: Path | None,
    max_turn: int,
    study: str | None = None,
) -> Callable[[Answering], None]:
    """Return what writes an agent's answer: its steps as they happen, and what it ends with.

    Args:
        messages: The conversation; the last is the question.
        tools: Names of built-in tools.
        canned: A file of further tools, or None.
        study: Its MLflow experiment gets the question as a trace.
    """

    def write(answering: Answering) -> None:
        from snaketune.agent import Agent, Event, answer_message

        def hear(event: Event) -> None:
            if event.step:
                answering.add_step(Step(**asdict(event.step)))
            else:
                answering.add(event.text)

        *earlier, question = messages
        history = [
            answer_message(each["content"]) if each["role"] == "assistant" else each
            for each in earlier
        ]
        agent = Agent(client, model, tools, canned, max_turn, hear, trace=study)
        found = agent.ask(question["content"], history)
        answering.finish(end="complete" if found.finished else "turns", text=found.text)

    return write


def generation(settings: Settings) -> dict[str, Any]:
    """Return the settings as the endpoint's parameters."""
    given: dict[str, Any] = {"temperature": settings.temperature, "top_p": settings.top_p}
    given["max_tokens"] = settings.max_new_tokens
    return given if settings.seed is None else given | {"seed": settings.seed}


def _with_system(messages: list[Message], settings: Settings) -> list[Message]:
    if not settings.system.strip():
        return messages  # the server puts the experiment's own in front
    return [{"role": "system", "content": settings.system}, *messages]


def explain(error: Exception, model: str, log: Path) -> str:
    """Return what an error of the endpoint means, and what to do."""
    if isinstance(error, UserError) and isinstance(error.__cause__, openai.APIError):
        error = error.__cause__
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, openai.APITimeoutError):
        return f"{model} has not answered for minutes.\n  Fix: ask again, or something shorter."
    if isinstance(error, openai.APIConnectionError):
        return (
            f"the model server has ended.\n  Fix: read {log}, stop this program and start it again."
        )
    if isinstance(error, openai.NotFoundError):
        experiment = model.partition("/")[0]
        return (
            f"there is no model {model} at the server ({refusal(error)}).\n"
            f"  Fix: snakemake experiments/{experiment}/adapter, then start this program again."
        )
    if isinstance(error, openai.APIStatusError) and error.status_code in (409, 429, 503):
        return f"{model} is busy ({refusal(error)}).\n  Fix: ask again when that is done."
    if isinstance(error, openai.APIError):
        return f"{model} refused: {refusal(error)}"
    return f"{type(error).__name__}: {error}"
