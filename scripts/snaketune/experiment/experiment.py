"""One experiment ready to run, and all the experiments of a folder with the mistakes in them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaketune.core.digests import digest
from snaketune.core.layout import hub_files
from snaketune.data.names import FormatName
from snaketune.experiment.document import Problem
from snaketune.experiment.schema import ColumnMap, Configuration, Filter, Model, Strict


def is_task_file(task: str) -> bool:
    """Whether a task of lm-evaluation-harness is a file, not the name of a task it ships."""
    return task.endswith((".yaml", ".yml"))


class HubFile(Strict):
    """One file of a data set on a hub, or those that a pattern matches."""

    source: str
    revision: str
    file: str
    sha256: str | None = None

    @property
    def folder(self) -> str:
        """Where the file is kept once fetched."""
        return hub_files(digest(self.model_dump())).as_posix()


class Source(Strict):
    """A data source with its catalog entry filled in: the data stage's input."""

    label: str
    path: str
    format: FormatName
    vars: dict[str, str]
    weight: float
    max_rows: int | None
    map: ColumnMap | None = None
    filter: Filter | None = None
    group: str | None = None
    system: str | None = None
    hub: HubFile | None = None


def personas(sources: Iterable[Source]) -> list[str]:
    """The names that data sources teach the model, by their variable `name`."""
    return sorted({source.vars["name"] for source in sources if source.vars.get("name")})


@dataclass(frozen=True)
class Experiment:
    """One model to train: a study, or one variant of it.

    Attributes:
        missing: Local files that it names and that do not exist; it cannot be built without them.
        convert_from: The XTuner checkpoint that replaces training.
        start: The experiment whose trained weights it begins with.
    """

    name: str
    study: str
    variant: str | None
    file: Path
    config: Configuration
    base_name: str
    base: Model
    sources: tuple[Source, ...]
    deepspeed_json: dict[str, Any] | None
    missing: tuple[Problem, ...]
    convert_from: str | None = None
    start: "Experiment | None" = None

    @property
    def prompts(self) -> list[str]:
        """The user messages that all models answer in the evaluation."""
        own = self.config.evaluate.prompts
        return self.config.sample.prompts if own is None else own

    @property
    def persona(self) -> str | None:
        """The name that the data teaches the model; None for no name, or several."""
        names = personas(self.sources)
        return names[0] if len(names) == 1 else None

    @property
    def probe_files(self) -> list[str]:
        """The files with the questions of its probes."""
        return [self._beside(f"probes/{name}.yaml") for name in self.config.evaluate.probes]

    @property
    def agent_files(self) -> list[str]:
        """The files of the agent's questions and canned tools that it names."""
        agent = self.config.agent
        return [self._beside(name) for name in (agent.questions, agent.canned) if name]

    @property
    def lm_eval(self) -> list[str]:
        """Its tasks of lm-evaluation-harness: names, and paths of files."""
        tasks = self.config.evaluate.lm_eval
        return [self._beside(task) if is_task_file(task) else task for task in tasks]

    def _beside(self, name: str) -> str:
        return (self.file.parent / name).as_posix()


@dataclass
class Studies:
    """All experiments of a folder, and all mistakes in their files."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    catalog_problems: list[Problem] = field(default_factory=list)
    study_problems: dict[str, list[Problem]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of the studies that have experiments."""
        return sorted({experiment.study for experiment in self.experiments.values()})

    @property
    def problems(self) -> list[Problem]:
        """All mistakes, each once: several studies may extend the file that has it."""
        found = itertools.chain(self.catalog_problems, *self.study_problems.values())
        return list(dict.fromkeys(found))

    @property
    def missing(self) -> list[Problem]:
        """All local files that are named and do not exist, each once."""
        return missing_files(self.experiments.values())

    def variants(self, study: str) -> list[Experiment]:
        """The experiments of a study, in the order of its file."""
        return [variant for variant in self.experiments.values() if variant.study == study]

    def problems_of(self, name: str) -> list[Problem]:
        """The mistakes that may be why there is no experiment of this name."""
        of_study = [
            problem
            for study, problems in self.study_problems.items()
            if name == study or name.startswith(f"{study}_")
            for problem in problems
        ]
        if self.study_problems and not of_study:
            return []
        return list(dict.fromkeys([*self.catalog_problems, *of_study]))


def missing_files(experiments: Iterable[Experiment]) -> list[Problem]:
    """The local files that experiments name and that do not exist, each once."""
    problems = (experiment.missing for experiment in experiments)
    return list(dict.fromkeys(itertools.chain.from_iterable(problems)))
