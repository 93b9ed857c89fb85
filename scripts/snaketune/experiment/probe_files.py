"""experiments/probes/NAME.yaml: read and checked, every mistake with its line.

A file is a list of questions, or a mapping with `kind:` and `questions:` (or `rows:`, a data file
in the same folder with one question per row). No torch here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snaketune.core.errors import UserError, nearest
from snaketune.experiment.document import Document, DocumentError, Place, Problem, read_document
from snaketune.experiment.explain import explain
from snaketune.experiment.probe_kinds import PROBE_KINDS, RESERVED_NAMES, Contains, Probe


def known_probes(folder: Path) -> list[str]:
    names = (file.stem for file in folder.glob("*.yaml"))
    return sorted(name for name in names if name not in RESERVED_NAMES and "." not in name)


def read_probe(file: Path, persona: str | None) -> Probe:
    """Read a file whose questions can all be scored.

    Args:
        persona: The name that the data teaches the model: the default of `accept` in probes of
            kind `contains` and `excludes`.

    Raises:
        UserError: With every mistake in the file.
    """
    problems: list[Problem] = []
    probe = _read(file, persona, problems)
    if probe is None or problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"probe '{file.stem}' cannot be used:\n{listed}")
    return probe


def probe_problems(file: Path, persona: str | None) -> list[Problem]:
    """Every mistake in a probe's file."""
    problems: list[Problem] = []
    _read(file, persona, problems)
    return problems


def rows_file(file: Path) -> Path | None:
    """The data file that a probe's questions are read from, if it names one."""
    try:
        rows = _document(file).values.get("rows")
    except DocumentError:
        return None
    return file.parent / rows if isinstance(rows, str) else None


def task_files(task: Path) -> list[Path]:
    """A task file of lm-evaluation-harness and the local data files that it names.

    Their paths are relative to the working folder, as the harness resolves them.
    """
    try:
        arguments = read_document(task).values.get("dataset_kwargs") or {}
    except DocumentError:
        return [task]
    data_files = arguments.get("data_files") if isinstance(arguments, dict) else None
    splits = data_files.values() if isinstance(data_files, dict) else [data_files]
    names = (name for split in splits for name in (split if isinstance(split, list) else [split]))
    return [task, *(Path(name) for name in names if isinstance(name, str) and Path(name).is_file())]


def _read(file: Path, persona: str | None, problems: list[Problem]) -> Probe | None:
    try:
        document = _document(file)
    except DocumentError as error:
        problems.append(error.problem)
        return None
    kind = document.values.setdefault("kind", "excludes" if file.stem == "leak" else "contains")
    if not isinstance(kind, str) or kind not in PROBE_KINDS:
        hint = nearest(str(kind), PROBE_KINDS)
        message = f"found {kind!r}, expected {', '.join(PROBE_KINDS)}.{hint}"
        problems.append(Problem(document.place(("kind",)), message, "kind"))
        return None
    _fill_in_rows(document, problems)
    if problems:
        return None
    try:
        probe = PROBE_KINDS[kind].model_validate(document.values)
    except ValidationError as error:
        problems += explain(error, PROBE_KINDS[kind], document)
        return None
    return _with_persona(probe, persona, document, problems)


def _document(file: Path) -> Document:
    return read_document(file, list_as="questions")


def _fill_in_rows(document: Document, problems: list[Problem]) -> None:
    """Replace `rows:` by the questions of that file, each with its line there."""
    if "rows" not in document.values:
        return
    place, name = document.place(("rows",)), document.values.pop("rows")
    if "questions" in document.values:
        problems.append(Problem(place, "use either `questions` or `rows`, not both", "rows"))
    elif not isinstance(name, str):
        problems.append(Problem(place, "expected the name of a file in the same folder", "rows"))
    else:
        try:
            rows = list(_rows(document.file.parent / name))
        except UserError as error:
            problems.append(Problem(place, str(error).splitlines()[0], "rows"))
            return
        document.values["questions"] = [value for _, value in rows]
        for index, (row_place, _) in enumerate(rows):
            document.places["questions", index] = row_place


def _rows(file: Path) -> Iterator[tuple[Place, Any]]:
    from snaketune.rows.reading import read_rows  # imports pyarrow, which few probes need

    for row in read_rows(file):
        name, _, line = row.place.rpartition(":")
        yield Place(Path(name), int(line)), row.value


def _with_persona(
    probe: Probe, persona: str | None, document: Document, problems: list[Problem]
) -> Probe:
    """Fill in the persona's name where a question has no `accept`."""
    if not isinstance(probe, Contains):
        return probe
    lacking = [index for index, question in enumerate(probe.questions) if not question.accept]
    if lacking and persona is None:
        message = (
            "`accept` is missing, and the data does not teach exactly one name. Add "
            "accept: [...] to the question, or vars: {name: ...} to the data source"
        )
        place = document.place(("questions", lacking[0]))
        problems.append(Problem(place, message, f"questions[{lacking[0]}]"))
        return probe
    default = {"accept": [persona]}
    questions = [
        question if question.accept else question.model_copy(update=default)
        for question in probe.questions
    ]
    return probe.model_copy(update={"questions": questions})
