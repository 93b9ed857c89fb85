"""List the experiments and what is built of them, or check every experiment file.

python scripts/experiments.py list
python scripts/experiments.py check
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from snaketune import cli
from snaketune.errors import UserError
from snaketune.experiment import Studies, load_studies
from snaketune.experiment.targets import TARGETS

STAGES = {
    "data": "data/report.txt",
    "trained": "checkpoints/train.json",
    "adapter": "adapter",
    "merged": "merged",
    "evaluated": "eval/report.html",
}
"""A column's name and the target that shows the stage is done."""

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
    problems = studies.problems + studies.absent
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        count = len(problems)
        raise UserError(f"{count} mistake{'s' * (count > 1)} in experiments/:\n{listed}")
    cli.console.print(f"{len(studies.experiments)} experiments, no mistakes.")


def show(studies: Studies) -> None:
    """Print a table of the experiments, and what to type next."""
    longest = max(map(len, studies.experiments), default=0)
    name = Column("experiment", min_width=longest)  # to be typed, so never cut
    description = Column("description", overflow="fold")
    table = Table(name, *STAGES, description, box=None, header_style="bold")
    for each, experiment in studies.experiments.items():
        folder = Path("experiments") / each
        done = ["yes" if (folder / target).exists() else "-" for target in STAGES.values()]
        table.add_row(each, *done, Text(experiment.config.description))
    cli.console.print(table, width=max(cli.console.width, longest + _BESIDE_NAME))
    for problem in studies.problems + studies.absent:
        cli.console.print(f"{problem}", style="red", markup=False)
    first = next(iter(studies.experiments), "NAME")
    cli.console.print(f"\nBuild a target, e.g.  snakemake experiments/{first}/merged")
    for target, meaning in TARGETS.items():
        cli.console.print(f"  experiments/NAME/{target:<22} {meaning}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
