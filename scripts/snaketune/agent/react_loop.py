"""An agent: a question, turns of the model with calls of tools between them, and an answer."""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snaketune.agent.events import AgentAnswer, OnEvent, ignore
from snaketune.agent.tools import make_tools
from snaketune.agent.tracing import Spans, Tracer
from snaketune.client.answer import ChatMessage
from snaketune.core.errors import UserError

if TYPE_CHECKING:
    import openai

MAX_TURN = 7
MAX_TOKENS = 512


class Agent:
    """A model that may call tools, in Lagent's ReAct loop.

    Args:
        client: Of an OpenAI-compatible endpoint.
        model: One of the endpoint's models.
        tools: Names of built-in tools (`toolbox.BUILTIN_TOOLS`).
        canned: A file of further tools with their answers.
        max_turn: The model's turns for a question; in the last it is told to answer.
        on_event: Called with each piece of the model's turns and each step.
        max_tokens: The longest turn.
        tracer: Receives the spans of each question.

    Raises:
        UserError: A tool is unknown, its key or a package is missing, the file has mistakes, or
            there are no turns.
    """

    def __init__(
        self,
        client: "openai.OpenAI",
        model: str,
        tools: Sequence[str],
        canned: Path | None = None,
        max_turn: int = MAX_TURN,
        on_event: OnEvent = ignore,
        max_tokens: int = MAX_TOKENS,
        tracer: Tracer | None = None,
    ) -> None:
        _require_lagent()
        if max_turn < 1:
            raise UserError(f"max_turn must be at least 1 (got {max_turn})")
        self.client, self.model, self.on_event = client, model, on_event
        self.max_turn, self.max_tokens = max_turn, max_tokens
        self.tools = make_tools(tools, canned)
        self.tracer = tracer

    def ask(self, question: str, history: Iterable[ChatMessage] = ()) -> AgentAnswer:
        """Answer a question.

        A tool's error is reported to the model and raises nothing here.

        Args:
            history: Earlier messages of the conversation, without a system message.

        Raises:
            UserError: The endpoint failed.
        """
        inputs = {
            "question": question,
            "model": self.model,
            "tools": [tool.name for tool in self.tools],
        }
        spans = Spans()
        try:
            with spans.span("agent", "AGENT", inputs) as span:
                answer = self._answer([*history, {"role": "user", "content": question}], spans)
                span.outputs = {"text": answer.text, "finished": answer.finished}
        finally:
            if self.tracer:
                self.tracer.send(spans)
        return answer

    def close(self) -> None:
        """Wait until the traces are sent."""
        if self.tracer:
            self.tracer.close()

    def _answer(self, messages: list[ChatMessage], spans: Spans) -> AgentAnswer:
        from snaketune.agent.lagent_adapter import Endpoint, run_react

        endpoint = Endpoint(self.client, self.model, self.on_event, self.max_tokens, spans)
        result = run_react(endpoint, self.tools, messages, self.max_turn)
        sent = [messages[-1], *result.messages]
        return AgentAnswer(result.text, result.steps, result.finished, sent)


def system_prompt(tools: Sequence[str], canned: Path | None = None) -> str:
    """The system message of every conversation with these tools: Lagent's, filled in."""
    _require_lagent()
    from snaketune.agent.lagent_adapter import react_prompt

    return react_prompt(make_tools(tools, canned), ignore)


def _require_lagent() -> None:
    if not importlib.util.find_spec("lagent"):
        raise UserError(
            "an agent needs lagent, not installed here.\n  Fix: .venv/bin/pip install -e '.[agent]'"
        )
