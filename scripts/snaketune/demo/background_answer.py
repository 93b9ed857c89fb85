"""An answer that is generated in a thread of its own, so that the page can be used meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import openai

from snaketune.client.answer import ChatMessage, Step
from snaketune.client.chat_client import ChatClient
from snaketune.client.server_errors import explain_error
from snaketune.core.errors import UserError
from snaketune.demo.demo_conversation import DemoAnswer

UNSEEN_SECONDS = 15.0
"""An answer that no page has looked at for so long is stopped: its page was closed."""


class _Stopped(BaseException):
    """Raised through an agent, which catches every Exception."""


class BackgroundAnswer:
    """One model's answer.

    Args:
        generate: Generates it and reports the progress; see `stream_answer`, `use_tools`.
    """

    def __init__(self, model: ChatClient, generate: Callable[["BackgroundAnswer"], None]) -> None:
        self.model = model
        self._generate = generate
        self._answer = DemoAnswer(model=model.name, end="writing")
        self._lock = threading.Lock()
        self._started, self._first_token = time.monotonic(), 0.0
        self._seen = self._started
        name = f"answer of {model.name}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def answer(self) -> DemoAnswer:
        """The answer so far; looking at it keeps it going."""
        self._seen = time.monotonic()
        with self._lock:
            return self._answer

    @property
    def done(self) -> bool:
        return self.answer.end != "writing"

    @property
    def elapsed(self) -> float:
        """In seconds, since the request."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """End it here; the server notices at the next token."""
        self._change(end="stopped")

    def add(self, text: str) -> None:
        """Append to the text; ends the thread if the answer was stopped."""
        now = time.monotonic()
        if now - self._seen > UNSEEN_SECONDS:
            self.stop()
        self._first_token = self._first_token or now
        waited = self._first_token - self._started
        whole = self._answer.text + text
        if not self._change(text=whole, waited_seconds=waited, seconds=now - self._first_token):
            raise _Stopped

    def add_step(self, step: Step) -> None:
        """Append a completed tool call; the text so far was the call itself."""
        if not self._change(steps=[*self._answer.steps, step], text=""):
            raise _Stopped

    def finish(self, **changes: Any) -> None:
        """Mark it as complete, with the figures that are known only then."""
        self._change(**({"end": "complete"} | changes))

    def _change(self, **changes: Any) -> bool:
        """Change an answer that has not ended; False if it has."""
        with self._lock:
            if self._answer.end != "writing":
                return False
            # a copy: the page may still be drawing the one before
            self._answer = self._answer.model_copy(update=changes)
            return True

    def _run(self) -> None:
        try:
            self._generate(self)
        except _Stopped:
            pass
        except Exception as error:
            self._change(end="failed", error=_explain(error, self.model))


def stream_answer(model: ChatClient, messages: list[ChatMessage], system: str) -> BackgroundAnswer:
    """Answer a conversation token by token."""
    if system.strip():  # else the server adds the experiment's own
        messages = [{"role": "system", "content": system}, *messages]

    def generate(answer: BackgroundAnswer) -> None:
        with closing(model.stream(messages)) as pieces:  # a stopped answer hangs up at once
            for piece in pieces:
                answer.add(piece)
        end = "length" if model.answer.finish_reason == "length" else "complete"
        answer.finish(end=end, tokens=model.answer.completion_tokens)

    return BackgroundAnswer(model, generate)


def use_tools(
    model: ChatClient,
    messages: list[ChatMessage],
    tools: Sequence[str],
    canned: Path | None,
    max_turn: int,
    study: str | None = None,
) -> BackgroundAnswer:
    """Answer a conversation with an agent: its steps as they happen, then the answer.

    Args:
        messages: They end with a prompt.
        tools: Names of built-in tools.
        canned: A file of further tools, or None.
        study: Its MLflow experiment gets a trace.
    """

    def generate(answer: BackgroundAnswer) -> None:
        from snaketune.agent import Agent, Event, answer_message
        from snaketune.tracking.agent_traces import MlflowTracer

        def on_event(event: Event) -> None:
            if event.step:
                answer.add_step(event.step)
            else:
                answer.add(event.text)

        *earlier, prompt = messages
        history = [
            answer_message(message["content"]) if message["role"] == "assistant" else message
            for message in earlier
        ]
        tracer = MlflowTracer(study) if study else None
        agent = Agent(model.client, model.name, tools, canned, max_turn, on_event, tracer=tracer)
        result = agent.ask(prompt["content"], history)
        answer.finish(end="complete" if result.finished else "turns", text=result.text)

    return BackgroundAnswer(model, generate)


def _explain(error: Exception, model: ChatClient) -> str:
    # an agent does not know the server's log
    if isinstance(error, UserError) and isinstance(error.__cause__, openai.OpenAIError):
        return explain_error(error.__cause__, model.name, str(model.client.base_url), model.log)
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
