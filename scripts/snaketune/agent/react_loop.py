"""An agent: a question, turns of the model with calls of tools between them, and an answer."""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snaketune.agent.events import Answer, Message, OnEvent, ignore
from snaketune.agent.tracing import Spans, Tracer
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
        tools: Of `arithmetic`, `python`, `arxiv` and `google`.
        canned: A file of further tools with their answers.
        max_turn: The model's turns for a question; in the last it is told to answer.
        on_event: Hears each piece of the model's turns and each step.
        max_tokens: The longest turn.
        trace: The study whose MLflow experiment gets each question as a trace.

    Raises:
        UserError: A tool is unknown, its key or a package is missing, the file is wrong, or there
            is no turn.
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
        trace: str | None = None,
    ) -> None:
        _require_packages()
        from snaketune.agent.builtin import make_tools

        if max_turn < 1:
            raise UserError(f"max_turn is {max_turn}, and an answer takes a turn.\nFix: 1 or more")
        self.client, self.model, self.on_event = client, model, on_event
        self.max_turn, self.max_tokens = max_turn, max_tokens
        self.tools = make_tools(tools, canned)
        self.tracer = Tracer(trace) if trace else None

    def ask(self, question: str, history: Iterable[Message] = ()) -> Answer:
        """Return the answer to a question, with the steps to it.

        What a tool does wrong is told to the model and is no exception here.

        Args:
            history: Earlier messages of the conversation, without a system message.

        Raises:
            UserError: The endpoint failed.
        """
        asked = {
            "question": question,
            "model": self.model,
            "tools": [tool.name for tool in self.tools],
        }
        spans = Spans()
        try:
            with spans.span("agent", "AGENT", asked) as span:
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

    def _answer(self, messages: list[Message], spans: Spans) -> Answer:
        from lagent.agents import ReAct

        from snaketune.agent.lagent_adapter import Endpoint, Executor, Protocol

        endpoint = Endpoint(self.client, self.model, self.on_event, self.max_tokens, spans)
        executor = Executor(self.tools, self.on_event, spans)
        returned = ReAct(endpoint, executor, Protocol(), self.max_turn).chat(messages)
        finished = returned.actions[-1].type == executor.finish_action.name
        sent = [messages[-1], *returned.inner_steps]
        return Answer(returned.response.strip(), executor.steps, finished, sent)


def system_prompt(tools: Sequence[str], canned: Path | None = None) -> str:
    """Return the first message of every conversation with these tools: Lagent's, filled in."""
    _require_packages()
    from snaketune.agent.builtin import make_tools
    from snaketune.agent.lagent_adapter import Executor, Protocol

    executor = Executor(make_tools(tools, canned), ignore, Spans())
    return Protocol().format([], [], executor)[0]["content"]


def _require_packages() -> None:
    missing = [name for name in ("lagent", "pydantic_monty") if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"an agent needs {' and '.join(missing)}, not installed here.\n"
            "  Fix: .venv/bin/pip install -e '.[agent]'"
        )
