"""Find the studies, expand them to experiments, and collect every mistake with its line.

A broken file never stops the others: its mistakes are returned beside the good experiments.
"""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from snaketune.core.data_paths import data_files
from snaketune.core.digests import digest
from snaketune.core.errors import nearest
from snaketune.experiment.agent_files import canned_problems, question_problems
from snaketune.experiment.document import (
    Document,
    DocumentError,
    Place,
    Problem,
    merge,
    read_document,
)
from snaketune.experiment.explain import explain
from snaketune.experiment.probe_files import known_probes, probe_problems
from snaketune.experiment.schema import (
    PERSONA_PROBES,
    Columns,
    Configuration,
    Dataset,
    DataSource,
    Expansion,
    Filter,
    FormatName,
    Model,
    Strict,
    require_pin,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_WILDCARD = re.compile(r"\{.*\}")
NOT_STUDIES = {"catalog", "data", "deepspeed", "defaults", "probes"}


def is_task_file(task: str) -> bool:
    """Tell a file of a task of lm-evaluation-harness from a task's name."""
    return task.endswith((".yaml", ".yml"))


class Source(Strict):
    """A data source with its catalog entry filled in: what the data stage is given."""

    label: str
    path: str
    format: FormatName
    vars: dict[str, str]
    weight: float
    max_rows: int | None
    map: Columns | None = None
    filter: Filter | None = None
    group: str | None = None
    system: str | None = None
    hub: "HubFile | None" = None


class HubFile(Strict):
    """One file of a data set on a hub, or those a pattern matches."""

    source: str
    revision: str
    file: str
    sha256: str | None = None

    @property
    def folder(self) -> str:
        """Where the file is kept once fetched."""
        return f"store/datasets/{digest(self.model_dump())}"


@dataclass(frozen=True)
class Experiment:
    """One thing to train: a study, or one variant of it, ready to run.

    `absent` tells the local files it names that are not there; it cannot be built without them.
    `start` is the experiment whose trained weights it begins with, `convert_from` the checkpoint
    of XTuner that takes the place of training.
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
    absent: tuple[Problem, ...]
    convert_from: str | None = None
    start: "Experiment | None" = None

    @property
    def prompts(self) -> list[str]:
        """The user messages the evaluation puts to all models."""
        own = self.config.evaluate.prompts
        return self.config.sample.prompts if own is None else own

    @property
    def persona(self) -> str | None:
        """The name that the data teaches the model, None where there is none, or several."""
        names = _personas(self.sources)
        return names[0] if len(names) == 1 else None

    @property
    def probe_files(self) -> list[str]:
        """The files with the questions of its probes."""
        folder = self.file.parent / "probes"
        return [f"{folder.as_posix()}/{name}.yaml" for name in self.config.evaluate.probes]

    @property
    def agent_files(self) -> list[str]:
        """The files of the agent's questions and of its canned tools, as far as it has any."""
        given = (self.config.agent.questions, self.config.agent.canned)
        return [(self.file.parent / name).as_posix() for name in given if name]

    @property
    def lm_eval(self) -> list[str]:
        """Its tasks of lm-evaluation-harness: names, and paths of files."""
        tasks = self.config.evaluate.lm_eval
        return [(self.file.parent / t).as_posix() if is_task_file(t) else t for t in tasks]


def mistakes_in_probes(experiments: Iterable[Experiment]) -> list[Problem]:
    """Return what is wrong in the files of the probes of some experiments, each told once."""
    asked = dict.fromkeys((file, each.persona) for each in experiments for file in each.probe_files)
    found = (probe_problems(Path(file), persona) for file, persona in asked)
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def mistakes_in_agents(experiments: Iterable[Experiment]) -> list[Problem]:
    """Return what is wrong in the files of some experiments' agents, each told once."""
    asked = dict.fromkeys(
        (each.file.parent / name, problems_of)
        for each in experiments
        for name, problems_of in (
            (each.config.agent.questions, question_problems),
            (each.config.agent.canned, canned_problems),
        )
        if name
    )
    found = (problems_of(file) for file, problems_of in asked if file.exists())
    return list(itertools.chain.from_iterable(found))


@dataclass
class Studies:
    """All experiments of a folder, and all mistakes found on the way."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    catalog_problems: list[Problem] = field(default_factory=list)
    study_problems: dict[str, list[Problem]] = field(default_factory=dict)

    @property
    def problems(self) -> list[Problem]:
        """All mistakes, each told once: a file that several studies extend may be wrong."""
        found = itertools.chain(self.catalog_problems, *self.study_problems.values())
        return list(dict.fromkeys(found))

    @property
    def absent(self) -> list[Problem]:
        """All local files that are named but not there, each told once."""
        found = (experiment.absent for experiment in self.experiments.values())
        return list(dict.fromkeys(itertools.chain.from_iterable(found)))

    def problems_of(self, name: str) -> list[Problem]:
        """Return what keeps a target's experiment, whose name this is, from being known."""
        of_study = [
            problem
            for study, found in self.study_problems.items()
            if name == study or name.startswith(f"{study}_")
            for problem in found
        ]
        if self.study_problems and not of_study:
            return []
        return list(dict.fromkeys([*self.catalog_problems, *of_study]))


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
    owners: dict[str, list[Experiment]] = defaultdict(list)
    for file in sorted(root.glob("*.yaml")):
        found = studies.study_problems.setdefault(file.stem, [])
        for experiment in _load_study(file, catalog, found):
            owners[experiment.name].append(experiment)
    for name, same in owners.items():
        if len(same) == 1:
            studies.experiments[name] = same[0]
        else:
            for experiment in same:
                studies.study_problems[experiment.study].append(_name_clash(experiment, same))
    _join(studies)
    return studies


def _join(studies: Studies) -> None:
    """Give every experiment the one it starts from; those that cannot have it are mistakes."""
    known, joined = studies.experiments, {}
    for name, experiment in known.items():
        try:
            joined[name] = _with_start(experiment, known, (name,))
        except ValueError as error:
            problem = Problem(Place(experiment.file, 1), f"{name}: {error}", "method.start_from")
            studies.study_problems[experiment.study].append(problem)
    studies.experiments = joined


def _with_start(
    experiment: Experiment, known: dict[str, Experiment], chain: tuple[str, ...]
) -> Experiment:
    """Return an experiment with all it starts from, directly or by way of others.

    Raises:
        ValueError: There is no such experiment, it has another base or method, or a cycle.
    """
    method, name = experiment.config.method, experiment.config.method.start_from
    if name is None:
        return experiment
    if name not in known:
        raise ValueError(f"there is no experiment '{name}' to start from.{nearest(name, known)}")
    if name in chain:
        raise ValueError(f"a cycle: {' starts from '.join((*chain, name))}")
    start = known[name]
    free = {"start_from": None, "dropout": 0.0}
    if start.config.method.model_copy(update=free) != method.model_copy(update=free):
        raise ValueError(f"'{name}' has another method; only start_from and dropout may differ")
    if start.base != experiment.base:
        raise ValueError(f"'{name}' has another base model ({start.base_name})")
    return replace(experiment, start=_with_start(start, known, (*chain, name)))


class Catalog:
    """The named models and data sets of experiments/catalog, and the names of the probes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.models = self._read("models.yaml", Model)
        self.datasets = self._read("datasets.yaml", Dataset)
        self.probes = known_probes(root / "probes")

    def _read(self, name: str, entry_type: type[BaseModel]) -> dict[str, Any]:
        file = self.root / "catalog" / name
        if not file.exists():
            return {}
        document, entries = read_document(file), {}
        for key in document.values:
            entry = document.select(key)
            parsed = _validated(entry_type, entry, self.problems, prefix=key)
            if parsed is not None:
                entries[key] = parsed
        return entries

    def model(self, named: str | Model) -> tuple[str, Model]:
        """Return a base model's short name and where it comes from."""
        if isinstance(named, Model):
            name, model = named.source.rstrip("/").rsplit("/", 1)[-1], named
        else:
            name, model = named, self.models[named]
        if ":" in model.source:
            return name, model
        return name, model.model_copy(update={"source": self.local(model.source)})

    def source(self, given: DataSource) -> Source:
        """Fill a data source's open keys from the catalog entry it names.

        Raises:
            ValueError: No format is known, a hub source lacks its revision or file, or a local
                file's path is none that Snakemake can take.
        """
        entry = self.datasets[given.dataset] if given.dataset else Dataset.model_construct()
        merged = entry.model_dump() | given.model_dump(exclude_unset=True)
        merged["vars"] = entry.vars | given.vars
        if bool(merged["format"]) == bool(merged["map"]):
            raise ValueError(
                "expected either a `format:` (how a row is laid out; auto recognises it) or a "
                f"`map:` of columns, found {'both' if merged['map'] else 'none'}"
            )
        hub = _hub_file(merged)
        path = f"{hub.folder}/{hub.file}" if hub else self.local(merged["path"])
        if not hub:
            _refuse_braces(path)
        return Source(
            label=given.dataset or Path(merged["path"] or merged["file"]).stem,
            path=path,
            format=merged["format"] or "auto",
            map=merged["map"],
            filter=merged["filter"],
            group=merged["group"],
            system=merged["system"],
            vars=merged["vars"],
            weight=given.weight,
            max_rows=given.max_rows,
            hub=hub,
        )

    def local(self, path: str) -> str:
        """Return a path of an experiment file, which is relative to experiments/."""
        return (self.root / Path(path).expanduser()).as_posix()


def _hub_file(merged: dict[str, Any]) -> HubFile | None:
    if not merged["source"]:
        return None
    missing = [key for key in ("revision", "file") if not merged[key]]
    if missing:
        raise ValueError(f"'{merged['source']}' also needs {' and '.join(missing)}")
    if not merged["source"].startswith(("hf:", "modelscope:")):
        raise ValueError(
            f"source: expected hf:ORG/NAME or modelscope:ORG/NAME, found '{merged['source']}'. "
            "For a local file use `path:`"
        )
    require_pin(merged["source"], merged["revision"])
    return HubFile.model_validate({key: merged[key] for key in HubFile.model_fields})


def _refuse_braces(path: str) -> None:
    for file in map(str, data_files(Path(path))):
        if wildcard := _WILDCARD.search(file):
            raise ValueError(
                f"path: {file}: Snakemake takes {wildcard[0]} for a wildcard. Rename the file or "
                "folder, without braces"
            )


def _load_study(file: Path, catalog: Catalog, problems: list[Problem]) -> Iterator[Experiment]:
    try:
        document = _inherit(read_document(file), file.parent, (file,))
    except DocumentError as error:
        problems.append(error.problem)
        return
    if file.stem in NOT_STUDIES or not NAME.fullmatch(file.stem):
        message = f"'{file.stem}' cannot name a study: use letters, digits, '_', '-', '.'"
        problems.append(Problem(Place(file, 1), message))
        return
    for variant, changed in _expand(document, problems):
        experiment = _build(file, variant, changed, catalog, problems)
        if experiment:
            yield experiment


def _inherit(document: Document, root: Path, chain: tuple[Path, ...]) -> Document:
    """Lay a document over the one it extends, and that over its own, to the end of the chain."""
    if "extends" not in document.values:
        return document
    name, place = document.values.pop("extends"), document.place(("extends",))
    parent = root / f"{name}.yaml"
    if not parent.is_file():
        known = [path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")]
        hint = nearest(str(name), known) or " Name a file beside this one, such as defaults/lora"
        message = f"{parent} does not exist.{hint}"
        raise DocumentError(Problem(place, message, "extends"))
    if parent in chain:
        circle = " -> ".join(path.stem for path in (*chain, parent))
        raise DocumentError(Problem(place, f"a cycle: {circle}. Remove one of them", "extends"))
    return merge(_inherit(read_document(parent), root, (*chain, parent)), document)


def _expand(document: Document, problems: list[Problem]) -> Iterator[tuple[str | None, Document]]:
    """Yield (variant name, its document); a study without variants is its own experiment."""
    study = _validated(Expansion, document, problems)
    if study is None:
        return
    own = {
        key: document.values[key] for key in document.values if key not in Expansion.model_fields
    }
    common = Document(document.file, own, document.places)
    if wrong := _matrix_mistake(study):
        problems.append(Problem(document.place(("matrix",)), wrong, "matrix"))
    elif study.variants:
        for name, changes in study.variants.items():
            yield name, merge(common, _variant(document, ("variants", name), changes or {}))
    elif study.matrix:
        for name, changes in _combinations(study.matrix):
            places = {
                tuple(key.split(".")): document.place(("matrix", key)) for key in study.matrix
            }
            yield name, merge(common, Document(document.file, changes, dict(places)))
    else:
        yield None, common


def _matrix_mistake(study: Expansion) -> str:
    keys = study.matrix or {}
    if study.variants and keys:
        return "use either `variants` or `matrix`, not both"
    for outer, inner in itertools.permutations(keys, 2):
        if inner.startswith(f"{outer}."):
            return f"'{outer}' holds '{inner}'. Remove one of them"
    return ""


def _variant(document: Document, at: tuple[str, str], changes: dict[str, Any]) -> Document:
    places = {path[2:]: place for path, place in document.places.items() if path[:2] == at}
    return Document(document.file, changes, places)


def _combinations(matrix: dict[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name such as `deepspeed-zero2_lr-0.0001` and the nested keys of each combination."""
    for values in itertools.product(*matrix.values()):
        nested: dict[str, Any] = {}
        for dotted, value in zip(matrix, values, strict=True):
            *parents, last = dotted.split(".")
            level = nested
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = value
        pairs = zip(matrix, values, strict=True)
        yield "_".join(f"{dotted.rsplit('.', 1)[-1]}-{value}" for dotted, value in pairs), nested


def _build(
    file: Path, variant: str | None, document: Document, catalog: Catalog, problems: list[Problem]
) -> Experiment | None:
    name = file.stem if variant is None else f"{file.stem}_{variant}"
    if not NAME.fullmatch(name):
        key = "matrix" if ("matrix",) in document.places else "variants"
        message = f"'{name}' cannot name an experiment: use letters, digits, '_', '-', '.'" + (
            ", or write the combinations as `variants`" if key == "matrix" else ""
        )
        problems.append(Problem(document.place((key, variant or "")), message, key))
        return None
    known = {"models": catalog.models, "datasets": catalog.datasets, "probes": catalog.probes}
    config = _validated(Configuration, document, problems, context=known)
    if config is None:
        return None
    found = len(problems)
    base_name, base = catalog.model(config.model)
    sources = []
    for index, given in enumerate(config.data):
        try:
            sources.append(catalog.source(given))
        except ValueError as error:
            place = document.place(("data", index))
            problems.append(Problem(place, str(error), f"data[{index}]"))
    if len(problems) == found and (wrong := _persona_mistake(config, sources)):
        place = document.place(("evaluate", "probes"))
        problems.append(Problem(place, wrong, "evaluate.probes"))
    if len(problems) > found:
        return None
    try:
        deepspeed = _deepspeed_json(file.parent, config.train.deepspeed)
    except ValueError as error:
        place = document.place(("train", "deepspeed"))
        problems.append(Problem(place, str(error), "train.deepspeed"))
        return None
    convert_from = catalog.local(config.convert_from) if config.convert_from else None
    absent = tuple(_absent(config, base, sources, catalog, document))
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
        absent=absent,
        convert_from=convert_from,
    )


def _personas(sources: Iterable[Source]) -> list[str]:
    return sorted({source.vars["name"] for source in sources if source.vars.get("name")})


def _persona_mistake(config: Configuration, sources: list[Source]) -> str:
    asking = [name for name in config.evaluate.probes if name in PERSONA_PROBES]
    names = _personas(sources)
    if not asking or len(names) == 1:
        return ""
    found = f"there are {len(names)}: {', '.join(names)}" if names else "there is none"
    return (
        f"{' and '.join(asking)} look for the one name that the data teaches, and {found}. "
        "Give the data source its `vars: {name: ...}`, or leave these probes out"
    )


def _deepspeed_json(root: Path, name: str) -> dict[str, Any] | None:
    """Return the content of a DeepSpeed configuration given as a file, None for a stage's name.

    Raises:
        ValueError: It is missing or no JSON object.
    """
    if not name.endswith(".json"):
        return None
    try:
        content = json.loads((root / name).read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(_does_not_exist((root / name).as_posix())) from None
    except ValueError as error:
        raise ValueError(f"{root / name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{root / name}: expected a JSON object, found {type(content).__name__}")
    zero = content.get("zero_optimization")
    if not isinstance(zero, dict) or zero.get("stage") not in (1, 2, 3):
        raise ValueError(f"{root / name}: expected `zero_optimization` with `stage` 1, 2 or 3")
    if others := sorted({"bf16", "fp16", "optimizer", "scheduler"} & content.keys()):
        raise ValueError(f"{root / name}: leave out {', '.join(others)}: train: decides them")
    return content


def _absent(
    config: Configuration,
    base: Model,
    sources: list[Source],
    catalog: Catalog,
    document: Document,
) -> Iterator[Problem]:
    """Yield a problem for each local file or folder that is not there (yet)."""
    for index, (given, source) in enumerate(zip(config.data, sources, strict=True)):
        if source.hub or any(map(Path.exists, data_files(Path(source.path)))):
            continue
        entry = catalog.datasets[given.dataset] if given.dataset else None
        place, key = document.place(("data", index)), f"data[{index}]"
        if entry and entry.homepage:
            message = (
                f"{source.path} is not here yet. Get it from {entry.homepage} and put it there"
            )
            yield Problem(place, message, key, to_get=True)
        else:
            yield Problem(place, _does_not_exist(source.path), key)
    if ":" not in base.source and not Path(base.source).exists():
        yield Problem(document.place(("model",)), _does_not_exist(base.source), "model")
    for index, task in enumerate(config.evaluate.lm_eval):
        if is_task_file(task) and not Path(file := catalog.local(task)).exists():
            place = document.place(("evaluate", "lm_eval", index))
            yield Problem(place, _does_not_exist(file), f"evaluate.lm_eval[{index}]")
    for key in ("questions", "canned"):
        given = getattr(config.agent, key)
        if given and not Path(file := catalog.local(given)).is_file():
            yield Problem(document.place(("agent", key)), _does_not_exist(file), f"agent.{key}")
    if config.convert_from and not Path(origin := catalog.local(config.convert_from)).exists():
        yield Problem(document.place(("convert_from",)), _does_not_exist(origin), "convert_from")


def _does_not_exist(name: str) -> str:
    if Path(name).is_dir():
        return f"{name} holds no data files (what is hidden or a README is none). Put rows there"
    beside = (other.name for other in Path(name).parent.glob("*") if other.suffix)
    hint = nearest(Path(name).name, beside)
    return f"{name} does not exist; paths are relative to experiments/.{hint}"


def _validated(
    model: type[BaseModel],
    document: Document,
    problems: list[Problem],
    prefix: str = "",
    context: dict[str, Any] | None = None,
) -> Any:
    """Return the parsed model, or None after adding what is wrong to `problems`."""
    try:
        return model.model_validate(document.values, context=context)
    except ValidationError as error:
        problems += explain(error, model, document, prefix)
        return None


def _name_clash(experiment: Experiment, same: list[Experiment]) -> Problem:
    files = sorted({str(other.file) for other in same})
    givers = f"{' and '.join(files)} both give" if len(files) > 1 else f"{files[0]} gives twice"
    message = f"{givers} an experiment '{experiment.name}'. Rename or remove one"
    return Problem(Place(experiment.file, 1), message)
