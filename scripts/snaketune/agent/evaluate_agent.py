"""The agent's report: base and trained model answer the same questions with the same tools."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import openai

from snaketune.agent.agent_metrics import by_tool, figures, judge
from snaketune.agent.agent_report import html
from snaketune.agent.events import Answer, Step
from snaketune.agent.react_loop import Agent, system_prompt
from snaketune.core.errors import UserError, nearest
from snaketune.core.files import write_json, write_text
from snaketune.core.progress import track_progress
from snaketune.experiment.agent_files import AgentQuestion, read_questions
from snaketune.experiment.resolved import Resolved
from snaketune.experiment.schema import AgentConfig
from snaketune.serving.server_process import model_server

log = logging.getLogger(__name__)


def report_agent(experiment: Resolved, root: Path, output: Path, log_file: Path) -> None:
    """Write report.json and report.html.

    Args:
        root: experiments/, which the files of questions and tools are relative to.
        output: experiments/X/agent.
        log_file: What the model server prints.

    Raises:
        UserError: The questions or the tools cannot be used, or a model is not there.
    """
    settings = experiment.config.agent
    assert settings.questions
    questions = read_questions(root / settings.questions)
    canned = root / settings.canned if settings.canned else None
    system = system_prompt(settings.tools, canned)  # before minutes of answers
    with model_server(
        [experiment.name], log_file, precision=experiment.config.train.precision
    ) as server:
        tuned = server.model(experiment.name)
        models = {"base": tuned.base, "tuned": tuned.name}
        rows = ask_all(server.client, models, questions, settings, canned, experiment.study)
    report = {
        "experiment": experiment.name,
        "study": experiment.study,
        "description": experiment.config.description,
        "ids": {"base": experiment.base_id, "train": experiment.train_id},
        "models": models,
        "agent": settings.model_dump(),
        "system": system,
        **tell(questions, rows),
    }
    write_json(output / "report.json", report)
    write_text(output / "report.html", html(report))


def ask_all(
    client: openai.OpenAI,
    models: Mapping[str, str],
    questions: Sequence[AgentQuestion],
    settings: AgentConfig,
    canned: Path | None,
    study: str | None = None,
) -> list[dict[str, Any]]:
    """Put every question to every model.

    Args:
        models: What each is called in the report, and its id in the endpoint.
        study: Its MLflow experiment gets each question as a trace.

    Returns:
        Of each question `question`, `tool`, `accept` and by model `text`, `finished`, `steps` and
        `verdict`, the questions in their order.

    Raises:
        UserError: A question needs a tool that there is not, or the endpoint failed.
    """
    rows: list[dict[str, Any]] = [each.model_dump() for each in questions]
    for name, model in models.items():
        agent = Agent(
            client,
            model,
            settings.tools,
            canned,
            settings.max_turn,
            trace=study,
            max_tokens=settings.max_new_tokens,
        )
        tools = {tool.name: tool.description["required"] for tool in agent.tools}
        _require_tools(questions, tools)
        with track_progress(f"{name}: agent", len(rows), "questions") as done:
            for count, (question, row) in enumerate(zip(questions, rows, strict=True), start=1):
                started = time.monotonic()
                answer = _answer(agent, question.question)
                seconds = time.monotonic() - started
                told = {"text": answer.text, "finished": answer.finished}
                steps = [asdict(step) for step in answer.steps]
                verdict = judge(question, answer, seconds, tools)
                row[name] = told | {"steps": steps, "verdict": verdict}
                done(count)
        agent.close()
    return rows


def _answer(agent: Agent, question: str) -> Answer:
    """Return an agent's answer, an unfinished one where the steps to it outgrew the context.

    Raises:
        UserError: The endpoint failed.
    """
    steps: list[Step] = []
    agent.on_event = lambda event: steps.append(event.step) if event.step else None
    try:
        return agent.ask(question)
    except UserError as error:
        if not isinstance(error.__cause__, openai.BadRequestError):
            raise
        return Answer(str(error), steps, finished=False, messages=[])


def tell(questions: Sequence[AgentQuestion], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the report tells of the answers: all figures, those of each tool, and the rows.

    Args:
        rows: What `ask_all` returned.
    """
    models = [key for key, value in rows[0].items() if isinstance(value, dict)]
    verdicts = {model: [row[model]["verdict"] for row in rows] for model in models}
    return {
        "figures": figures(verdicts),
        "right_by_tool": by_tool(questions, verdicts),
        "questions": list(rows),
    }


def _require_tools(questions: Sequence[AgentQuestion], tools: Mapping[str, Any]) -> None:
    for question in questions:
        if question.tool is not None and question.tool not in tools:
            raise UserError(
                f"'{question.question}' needs a tool '{question.tool}' that there is not."
                f"{nearest(question.tool, tools)} There are: {', '.join(tools)}\n"
                "  Fix: correct the question, or add it to agent.tools or agent.canned"
            )
