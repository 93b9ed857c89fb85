"""What can be asked of Snakemake, and what to say when something else is asked."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from snaketune.core.errors import nearest
from snaketune.experiment.document import Problem
from snaketune.experiment.experiment import Experiment, Studies
from snaketune.experiment.studies import NOT_STUDIES, agent_mistakes, probe_mistakes

TARGETS = {
    "resolved.yaml": "the full configuration with every default and the ids",
    "data/report.html": "what was read, dropped and cut, and what the model learns from",
    "data/report.json": "the same for programs",
    "checkpoints/last.pth": "training",
    "adapter": "the adapter in PEFT format",
    "merged": "the full model in Hugging Face format",
    "split": "the same with one tensor in each file",
    "gguf": "the full model as one file for llama.cpp",
    "verify": "compares every file of `merged` with its manifest",
    "published": "the model on a hub: --config to=hf:ORG/NAME",
    "to_publish.txt": "what `published` would send; sends nothing",
    "registered": "the full model in MLflow's model registry",
    "eval/report.html": "base and merged model side by side",
    "eval/report.json": "the same for programs",
    "agent/report.html": "an agent with tools, as base and as trained model",
    "agent/report.json": "the same for programs",
}
"""Below experiments/X/, and what each is."""

STUDY_TARGETS = {
    "compare/report.html": "the variants side by side: what differs, what it brought and cost",
    "compare/table.csv": "the same as a table, a row a variant",
    "compare/report.json": "the same for programs",
}
"""Below experiments/STUDY/, and what each is."""

_ALSO_MADE = {"checkpoints/train.json", "data/report.txt"}
_AT_ITERATION = (
    *("adapter", "merged", "split", "gguf", "verify", "published", "to_publish.txt", "registered"),
)


def explain_unknown(target: str, studies: Studies) -> str | None:
    """Return why a target cannot be built and what to type instead, or None if it can.

    Only paths below experiments/ are judged; Snakemake knows about the rest.
    """
    parts = PurePosixPath(target).parts  # drops a leading ./ and a trailing /
    if len(parts) < 2 or parts[0] != "experiments" or parts[1] in NOT_STUDIES:
        return None
    name, file = parts[1], "/".join(parts[2:])
    variants = [each for each in studies.experiments.values() if each.study == name]
    if file.split("/")[0] == "compare" or (variants and name not in studies.experiments):
        return _explain_unknown_of_study(target, variants, studies)
    problems = (
        studies.experiments[name].missing
        if name in studies.experiments
        else studies.problems_of(name)
    )
    if problems:
        return _mistaken(target, problems)
    if name not in studies.experiments:
        known = ", ".join(sorted(studies.experiments)) or "none"
        return (
            f"there is no experiment '{name}'.{nearest(name, studies.experiments)} Known: {known}"
        )
    if file.startswith("eval/") and (wrong := probe_mistakes([studies.experiments[name]])):
        listed = "\n".join(f"  {problem}" for problem in wrong)
        return f"{target} cannot be built until its probes are corrected:\n{listed}"
    if file.startswith("agent/") and (told := _agent_mistake(studies.experiments[name])):
        return f"{target} cannot be built: {told}"
    if file.startswith("data/") and not studies.experiments[name].sources:
        return f"{name} has no data, as it is converted. Give it data:, or build another target"
    if file.endswith("adapter") and studies.experiments[name].config.method.name == "full":
        return f"{name} is a full fine-tune, which has no adapter. Build experiments/{name}/merged"
    of_iteration = re.fullmatch(r"iter_[1-9]\d*/(.+)", file)
    if file in TARGETS or file in _ALSO_MADE or (of_iteration and of_iteration[1] in _AT_ITERATION):
        return None
    known = ", ".join([*TARGETS, *(f"iter_N/{each}" for each in _AT_ITERATION)])
    if not file:
        return f"name a target of {target}, e.g. {target.rstrip('/')}/merged. Known: {known}"
    return f"an experiment has no target '{file}'.{nearest(file, TARGETS)} Known: {known}"


def _agent_mistake(experiment: Experiment) -> str:
    """Return why an agent cannot be asked, "" if it can."""
    if not experiment.config.agent.questions:
        return f"{experiment.name} has no questions for an agent. Give it agent: {{questions: ...}}"
    listed = "\n".join(f"  {problem}" for problem in agent_mistakes([experiment]))
    return f"its agent's files must first be corrected:\n{listed}" if listed else ""


def _explain_unknown_of_study(
    target: str, variants: list[Experiment], studies: Studies
) -> str | None:
    """Return the same for a target of a study that has these variants, or of one not known."""
    _, name, *rest = PurePosixPath(target).parts
    file = "/".join(rest)
    if not variants and name in studies.experiments:
        study = studies.experiments[name].study
        return f"{name} is one variant. Compare it with the others: experiments/{study}/{file}"
    if not variants:
        if problems := studies.problems_of(name):
            return _mistaken(target, problems)
        known = sorted({each.study for each in studies.experiments.values()})
        listed = ", ".join(known) or "none"
        return f"there is no study '{name}'.{nearest(name, known)} Known: {listed}"
    if file in STUDY_TARGETS:
        absent = dict.fromkeys(problem for each in variants for problem in each.missing)
        wrong = [*absent, *probe_mistakes(variants)]
        now = f"\nThe page of what is there: snakemake compare --config study={name}"
        return _mistaken(target, wrong) + now if wrong else None
    if not file:
        return f"name a target of {target}, e.g. experiments/{name}/compare/report.html"
    known = [*STUDY_TARGETS, *TARGETS]
    if file in TARGETS:
        first = variants[0].name
        named = ", ".join(each.name for each in variants)
        return f"{name} is a study of {named}. Build e.g. experiments/{first}/{file}"
    listed = ", ".join(STUDY_TARGETS)
    return f"a study has no target '{file}'.{nearest(file, known)} Known: {listed}"


def _mistaken(target: str, problems: Iterable[Problem]) -> str:
    listed = "\n".join(f"  {problem}" for problem in problems)
    return f"{target} cannot be built until these mistakes are corrected:\n{listed}"
