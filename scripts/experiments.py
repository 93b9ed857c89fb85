"""List the experiments and what is built of them, or check every experiment file.

python scripts/experiments.py list
python scripts/experiments.py check
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from snaketune.core import cli
from snaketune.core.data_paths import data_files
from snaketune.core.digests import canonical
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl
from snaketune.experiment import Experiment, Studies, data_id, load_studies, train_id
from snaketune.experiment.studies import agent_mistakes, probe_mistakes
from snaketune.experiment.targets import STUDY_TARGETS, TARGETS

STAGES = ("data", "trained", "adapter", "merged", "evaluated")

_BESIDE_NAME = 65
"""Characters that the columns beside the name need, with 20 for the description."""


def main(argv: Sequence[str] | None = None) -> None:
    """List or check."""
    parser = cli.parser(__doc__)
    parser.add_argument("action", choices=["list", "check"])
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    studies = load_studies(Path("experiments"))
    if args.action == "check":
        check(studies)
    else:
        show(studies)


def check(studies: Studies) -> None:
    """Say that all is well.

    Raises:
        UserError: With every mistake in every file.
    """
    problems: list[object] = [*studies.problems]
    problems += [each for each in studies.missing if not each.to_download]
    problems += probe_mistakes(studies.experiments.values())
    problems += agent_mistakes(studies.experiments.values())
    problems += mistakes_in_rows(studies)
    for each in studies.missing:
        if each.to_download:
            cli.console.print(f"{each}", markup=False)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        count = len(problems)
        raise UserError(f"{count} mistake{'s' * (count > 1)} in experiments/:\n{listed}")
    cli.console.print(f"{len(studies.experiments)} experiments, no mistakes.")


def mistakes_in_rows(studies: Studies) -> list[str]:
    """Return what is wrong with the first rows of each local data file, each told once."""
    from snaketune.data.data_spec import SourceSpec  # listing the experiments needs none of it
    from snaketune.data.prepare import first_mistakes

    dumps = (
        source.model_dump(mode="json")
        for experiment in studies.experiments.values()
        for source in experiment.sources
        if any(map(Path.exists, data_files(Path(source.path))))
    )
    sources = {canonical(dump): dump for dump in dumps}
    specs = map(SourceSpec.from_key, sources.values())
    return list(dict.fromkeys(mistake for spec in specs for mistake in first_mistakes(spec)))


def show(studies: Studies) -> None:
    """Print a table of the experiments, and what to type next."""
    longest = max(map(len, studies.experiments), default=0)
    name = Column("experiment", min_width=longest)  # to be typed, so never cut
    description = Column("description", overflow="fold")
    table = Table(name, *STAGES, description, box=None, header_style="bold")
    for each, experiment in studies.experiments.items():
        table.add_row(each, *states(experiment), Text(experiment.config.description))
    cli.console.print(table, width=max(cli.console.width, longest + _BESIDE_NAME))
    for problem in studies.problems + studies.missing:
        style = "yellow" if problem.to_download else "red"
        cli.console.print(f"{problem}", style=style, markup=False)
    first = next(iter(studies.experiments), "NAME")
    cli.console.print(f"\nBuild a target, e.g.  snakemake experiments/{first}/merged")
    for target, meaning in TARGETS.items():
        cli.console.print(f"  experiments/NAME/{target:<22} {meaning}")
    for target, meaning in STUDY_TARGETS.items():
        cli.console.print(f"  experiments/STUDY/{target:<21} {meaning}")
    cli.console.print(f"\nAsk first:  snakemake plan --config target=experiments/{first}/merged")
    if len(studies.experiments) > 1:
        one, two, *_ = studies.experiments
        cli.console.print(f"Compare:    snakemake diff --config one={one} two={two}")


def states(experiment: Experiment) -> list[str]:
    """Return for each stage `yes`, `-`, `old` if made with other settings, or how far it is."""
    folder, now = Path("experiments") / experiment.name, train_id(experiment)
    checkpoints = folder / "checkpoints"
    trained = state(checkpoints / "train.json", now)
    if trained == "-" and (rows := read_jsonl(checkpoints / "metrics.jsonl")):
        trained = f"at {rows[-1]['iteration']}"
    data = Path("store/data") / data_id(experiment) / "data.json"
    made = [state(folder / kind / "snaketune.json", now) for kind in ("adapter", "merged")]
    return [
        "yes" if data.exists() else "-",
        trained,
        *made,
        state(folder / "eval/report.json", now),
    ]


def state(file: Path, now: str) -> str:
    """Return `yes` if a file tells this train_id, `old` if another, `-` if it is not there."""
    if not file.exists():
        return "-"
    told = read_json(file)
    return "yes" if now in (told.get("train_id"), told.get("ids", {}).get("train")) else "old"


if __name__ == "__main__":
    sys.exit(cli.run(main))
