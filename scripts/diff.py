"""Say how two experiments differ: settings, data and results, in the shortest form.

python scripts/diff.py X Y

What is not built is told with the command that builds it; `--json` prints the same for programs.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from snaketune.comparison.pair_config import KEYS, read_pair
from snaketune.core import cli
from snaketune.experiment import load_studies
from snaketune.experiment.settings import shown


def main(argv: Sequence[str] | None = None) -> None:
    """Compare."""
    parser = cli.parser(__doc__)
    parser.add_argument("one", help="an experiment, e.g. assistant_none")
    parser.add_argument("two", help="another one")
    parser.add_argument("--json", action="store_true", help="print JSON to stdout")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    studies = load_studies(Path("experiments"))
    names = read_pair({"one": args.one, "two": args.two}, studies)
    from snaketune.comparison.collect import collect  # these two take a second
    from snaketune.comparison.pair import compare_pair

    found = compare_pair(*(collect(studies.experiments[name]) for name in names))
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(found)


def show(found: Mapping[str, Any]) -> None:
    """Print what differs: a line a setting, a figure of the data, a result."""
    names = [found["experiments"][side] for side in KEYS]
    table = Table("", *(Column(name, overflow="fold") for name in names), "", box=None)
    for row in found["settings"]:
        table.add_row(row["key"], *(Text(shown(row[side])) for side in KEYS))
    for row in found["data"]:
        table.add_row(row["figure"], *(_figure(row[side]) for side in KEYS))
    for row in filter(_differs, found["results"]):
        table.add_row(row["label"], *(row["told"][side] for side in KEYS), _judged(row))
    cli.console.print(table)
    for line in _remarks(found):
        cli.console.print(Text(line))


def _figure(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _judged(row: Mapping[str, Any]) -> str:
    """Return a difference in words: how much, and whether it is more than chance explains."""
    if row["difference"] is None:
        return f"not comparable: {row['incomparable']}"
    parts = []
    if row["one"] and not row["figure"].startswith("probe:"):
        percent = 100 * row["difference"] / row["one"]
        parts.append(f"{percent:+.{0 if abs(percent) >= 10 else 1}f} %")
    if row["beyond_chance"] is not None:
        parts.append("beyond chance" if row["beyond_chance"] else "within chance")
    return ", ".join(parts)


def _differs(row: Mapping[str, Any]) -> bool:
    return row["told"]["one"] != row["told"]["two"]


def _remarks(found: Mapping[str, Any]) -> list[str]:
    lines = [] if found["settings"] else ["The settings are the same."]
    if same := [row["label"] for row in found["results"] if not _differs(row)]:
        lines.append(f"The same in both: {', '.join(same)}.")
    if answers := found["answers"]:
        lines.append(f"{answers['same']} of {answers['of']} answers to the same prompts are equal.")
    for side in KEYS:
        if found["states"][side] != "complete":
            name, state = found["experiments"][side], found["states"][side]
            lines.append(f"{name} is {state}. To see its results: {found['todo'][side]}")
    return lines


if __name__ == "__main__":
    sys.exit(cli.run(main))
