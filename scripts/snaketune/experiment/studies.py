"""Load the studies of a folder, and collect every mistake with its line.

A broken file never stops the others: its mistakes are returned beside the good experiments.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from snaketune.core.errors import nearest
from snaketune.experiment.agent_files import canned_problems, question_problems
from snaketune.experiment.catalog import Catalog
from snaketune.experiment.document import Document, DocumentError, Place, Problem
from snaketune.experiment.experiment import Experiment, Source, Studies, personas
from snaketune.experiment.explain import validated
from snaketune.experiment.missing import does_not_exist, find_missing
from snaketune.experiment.probe_files import probe_problems
from snaketune.experiment.schema import PERSONA_PROBES, Configuration
from snaketune.experiment.variants import expand, read_inherited

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
NOT_STUDIES = {"catalog", "data", "deepspeed", "defaults", "probes"}
"""Folders of experiments/ that hold no results: a study of that name would write into them."""


def load_studies(root: Path) -> Studies:
    """Read every study of an experiments folder.

    Args:
        root: The folder that holds `*.yaml`, `catalog/` and `defaults/`.
    """
    studies = Studies()
    try:
        catalog = Catalog(root)
    except DocumentError as error:
        studies.catalog_problems.append(error.problem)
        return studies
    studies.catalog_problems = catalog.problems
    by_name: dict[str, list[Experiment]] = defaultdict(list)
    for file in sorted(root.glob("*.yaml")):
        problems = studies.study_problems.setdefault(file.stem, [])
        for experiment in _load_study(file, catalog, problems):
            by_name[experiment.name].append(experiment)
    for name, namesakes in by_name.items():
        if len(namesakes) == 1:
            studies.experiments[name] = namesakes[0]
        else:
            for experiment in namesakes:
                studies.study_problems[experiment.study].append(_name_clash(experiment, namesakes))
    _resolve_starts(studies)
    return studies


def probe_mistakes(experiments: Iterable[Experiment]) -> list[Problem]:
    """The mistakes in the files of experiments' probes, each once."""
    files = dict.fromkeys(
        (file, experiment.persona) for experiment in experiments for file in experiment.probe_files
    )
    problems = (probe_problems(Path(file), persona) for file, persona in files)
    return list(dict.fromkeys(chain.from_iterable(problems)))


def agent_mistakes(experiments: Iterable[Experiment]) -> list[Problem]:
    """The mistakes in the files of experiments' agents, each once."""
    files = dict.fromkeys(
        (experiment.file.parent / name, problems_of)
        for experiment in experiments
        for name, problems_of in (
            (experiment.config.agent.questions, question_problems),
            (experiment.config.agent.canned, canned_problems),
        )
        if name
    )
    problems = (problems_of(file) for file, problems_of in files if file.exists())
    return list(chain.from_iterable(problems))


def _resolve_starts(studies: Studies) -> None:
    """Replace each `start_from` by its experiment; impossible ones become mistakes."""
    known, resolved = studies.experiments, {}
    for name, experiment in known.items():
        try:
            resolved[name] = _with_start(experiment, known, (name,))
        except ValueError as error:
            problem = Problem(Place(experiment.file, 1), f"{name}: {error}", "method.start_from")
            studies.study_problems[experiment.study].append(problem)
    studies.experiments = resolved


def _with_start(
    experiment: Experiment, known: Mapping[str, Experiment], path: tuple[str, ...]
) -> Experiment:
    """The experiment with the whole chain of experiments it starts from.

    Raises:
        ValueError: One of them is unknown, has another base or method, or the chain is a cycle.
    """
    method, name = experiment.config.method, experiment.config.method.start_from
    if name is None:
        return experiment
    if name not in known:
        raise ValueError(f"no experiment '{name}' to start from.{nearest(name, known)}")
    if name in path:
        raise ValueError(f"a cycle: {' starts from '.join((*path, name))}")
    start = known[name]
    may_differ = {"start_from": None, "dropout": 0.0}
    if start.config.method.model_copy(update=may_differ) != method.model_copy(update=may_differ):
        raise ValueError(f"'{name}' has another method; only start_from and dropout may differ")
    if start.base != experiment.base:
        raise ValueError(f"'{name}' has another base model ({start.base_name})")
    return replace(experiment, start=_with_start(start, known, (*path, name)))


def _load_study(file: Path, catalog: Catalog, problems: list[Problem]) -> Iterator[Experiment]:
    try:
        document = read_inherited(file)
    except DocumentError as error:
        problems.append(error.problem)
        return
    if file.stem in NOT_STUDIES or not NAME.fullmatch(file.stem):
        message = f"'{file.stem}' cannot name a study: use letters, digits, '_', '-', '.'"
        problems.append(Problem(Place(file, 1), message))
        return
    for variant, own in expand(document, problems):
        experiment = _build(file, variant, own, catalog, problems)
        if experiment:
            yield experiment


def _build(
    file: Path, variant: str | None, document: Document, catalog: Catalog, problems: list[Problem]
) -> Experiment | None:
    name = file.stem if variant is None else f"{file.stem}_{variant}"
    if not NAME.fullmatch(name):
        problems.append(_invalid_name(name, variant, document))
        return None
    known = {"models": catalog.models, "datasets": catalog.datasets, "probes": catalog.probes}
    config = validated(Configuration, document, problems, context=known)
    if config is None:
        return None
    before = len(problems)
    sources = _sources(config, catalog, document, problems)
    if len(problems) == before and (mistake := _persona_mistake(config, sources)):
        place = document.place(("evaluate", "probes"))
        problems.append(Problem(place, mistake, "evaluate.probes"))
    if len(problems) > before:
        return None
    try:
        deepspeed = _deepspeed_json(file.parent, config.train.deepspeed)
    except ValueError as error:
        place = document.place(("train", "deepspeed"))
        problems.append(Problem(place, str(error), "train.deepspeed"))
        return None
    base_name, base = catalog.model(config.model)
    return Experiment(
        name=name,
        study=file.stem,
        variant=variant,
        file=file,
        config=config,
        base_name=base_name,
        base=base,
        sources=tuple(sources),
        deepspeed_json=deepspeed,
        missing=tuple(find_missing(config, base, sources, catalog, document)),
        convert_from=catalog.local(config.convert_from) if config.convert_from else None,
    )


def _invalid_name(name: str, variant: str | None, document: Document) -> Problem:
    key, hint = "variants", ""
    if ("matrix",) in document.places:
        key, hint = "matrix", ", or write the combinations as `variants`"
    message = f"'{name}' cannot name an experiment: use letters, digits, '_', '-', '.'{hint}"
    return Problem(document.place((key, variant or "")), message, key)


def _sources(
    config: Configuration, catalog: Catalog, document: Document, problems: list[Problem]
) -> list[Source]:
    sources = []
    for index, named in enumerate(config.data):
        try:
            sources.append(catalog.source(named))
        except ValueError as error:
            place = document.place(("data", index))
            problems.append(Problem(place, str(error), f"data[{index}]"))
    return sources


def _persona_mistake(config: Configuration, sources: list[Source]) -> str:
    probes = [name for name in config.evaluate.probes if name in PERSONA_PROBES]
    names = personas(sources)
    if not probes or len(names) == 1:
        return ""
    found = f"there are {len(names)}: {', '.join(names)}" if names else "there is none"
    return (
        f"{' and '.join(probes)} look for the one name that the data teaches, and {found}. "
        "Give the data source its `vars: {name: ...}`, or remove these probes"
    )


def _deepspeed_json(root: Path, name: str) -> dict[str, Any] | None:
    """The content of a DeepSpeed configuration file; None for a stage's name.

    Raises:
        ValueError: It is missing, is not a JSON object, or sets what `train:` decides.
    """
    if not name.endswith(".json"):
        return None
    try:
        content = json.loads((root / name).read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(does_not_exist((root / name).as_posix())) from None
    except ValueError as error:
        raise ValueError(f"{root / name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{root / name}: expected a JSON object, found {type(content).__name__}")
    zero = content.get("zero_optimization")
    if not isinstance(zero, dict) or zero.get("stage") not in (1, 2, 3):
        raise ValueError(f"{root / name}: expected `zero_optimization` with `stage` 1, 2 or 3")
    # two sources for one setting would make resolved.yaml lie about the run
    if others := sorted({"bf16", "fp16", "optimizer", "scheduler"} & content.keys()):
        raise ValueError(f"{root / name}: remove {', '.join(others)}: `train:` decides them")
    return content


def _name_clash(experiment: Experiment, namesakes: list[Experiment]) -> Problem:
    files = " and ".join(sorted({str(other.file) for other in namesakes}))
    message = f"duplicate experiment name '{experiment.name}' in {files}. Rename or remove one"
    return Problem(Place(experiment.file, 1), message)
