"""The agent stage: base and tuned model answer the same questions with the same tools."""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import openai

from snaketune.agent.agent_metrics import by_tool, figures, judge
from snaketune.agent.agent_record import AgentIds, AgentRecord, AgentTranscript, AnsweredQuestion
from snaketune.agent.agent_report import html
from snaketune.agent.events import AgentAnswer
from snaketune.agent.react_loop import Agent, system_prompt
from snaketune.agent.tracing import Tracer
from snaketune.client.answer import Step
from snaketune.core.errors import UserError, nearest
from snaketune.core.files import write_text
from snaketune.core.layout import ReportPaths
from snaketune.core.progress import track_progress
from snaketune.experiment.agent_files import AgentQuestion, read_questions
from snaketune.experiment.resolved import Resolved
from snaketune.experiment.schema import AgentConfig
from snaketune.serving.server_process import model_server


def report_agent(
    experiment: Resolved, root: Path, output: Path, log_file: Path, tracer: Tracer | None = None
) -> None:
    """Write report.json and report.html.

    Args:
        root: experiments/, which the files of questions and tools are relative to.
        output: experiments/X/agent.
        log_file: Receives the output of the model server.
        tracer: Receives every question as a trace.

    Raises:
        UserError: The questions or the tools cannot be used, or a model is missing.
    """
    config = experiment.config.agent
    assert config.questions
    questions = read_questions(root / config.questions)
    canned = root / config.canned if config.canned else None
    # mistakes in the tools show here, before minutes of loading and answers
    system = system_prompt(config.tools, canned)
    with model_server(
        [experiment.name], log_file, precision=experiment.config.train.precision
    ) as server:
        model = server.model(experiment.name)
        models = {"base": model.base, "tuned": model.name}
        base, tuned = (
            answer_all(server.client, name, models[name], questions, config, canned, tracer)
            for name in models
        )
    record = AgentRecord(
        experiment=experiment.name,
        study=experiment.study,
        description=experiment.config.description,
        ids=AgentIds(base=experiment.base_id, train=experiment.train_id),
        models=models,
        agent=config,
        system=system,
        **summarise(questions, base, tuned),
    )
    report = ReportPaths(output)
    record.write(report.json)
    write_text(report.html, html(record))


def answer_all(
    client: openai.OpenAI,
    name: str,
    model: str,
    questions: Sequence[AgentQuestion],
    config: AgentConfig,
    canned: Path | None,
    tracer: Tracer | None = None,
) -> list[AgentTranscript]:
    """Put every question to a model.

    Args:
        name: What progress lines call the model.
        model: Its id at the endpoint.

    Raises:
        UserError: A question requires an unknown tool, or the endpoint failed.
    """
    limit = config.max_new_tokens
    agent = Agent(
        client, model, config.tools, canned, config.max_turn, max_tokens=limit, tracer=tracer
    )
    tools = {tool.name: tool.required for tool in agent.tools}
    _require_tools(questions, tools)
    transcripts = []
    with track_progress(f"{name}: agent", len(questions), "questions") as done:
        for question in questions:
            started = time.monotonic()
            answer = _answer(agent, question.question)
            verdict = judge(question, answer, time.monotonic() - started, tools)
            transcripts.append(
                AgentTranscript(
                    text=answer.text,
                    finished=answer.finished,
                    steps=answer.steps,
                    verdict=verdict,
                )
            )
            done(len(transcripts))
    return transcripts


def _answer(agent: Agent, question: str) -> AgentAnswer:
    """An agent's answer, an unfinished one where the steps to it outgrew the context.

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
        return AgentAnswer(str(error), steps, finished=False, messages=[])


def summarise(
    questions: Sequence[AgentQuestion],
    base: Sequence[AgentTranscript],
    tuned: Sequence[AgentTranscript],
) -> dict[str, object]:
    """The record's `figures`, `right_by_tool` and `questions`."""
    verdicts = [[transcript.verdict for transcript in own] for own in (base, tuned)]
    answered = [
        AnsweredQuestion(**question.model_dump(), base=before, tuned=after)
        for question, before, after in zip(questions, base, tuned, strict=True)
    ]
    return {
        "figures": figures(*verdicts),
        "right_by_tool": by_tool(questions, *verdicts),
        "questions": answered,
    }


def _require_tools(
    questions: Sequence[AgentQuestion], tools: Mapping[str, Collection[str]]
) -> None:
    for question in questions:
        if question.tool is not None and question.tool not in tools:
            raise UserError(
                f"'{question.question}' requires unknown tool '{question.tool}'."
                f"{nearest(question.tool, tools)} Known: {', '.join(tools)}\n"
                "  Fix: correct the question, or add the tool to agent.tools or agent.canned"
            )
