"""Send MLflow whatever it has not seen, e.g. after its server was down.

python scripts/track.py [NAME ...]
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.files import Busy, locked
from snaketune.experiment.resolved import read_resolved
from snaketune.tracking.mlflow_client import FIX, reason, shown_uri
from snaketune.tracking.study import put_study
from snaketune.tracking.tracked_run import TrackedRun

log = logging.getLogger("snaketune.track")


def main(argv: Sequence[str] | None = None) -> None:
    """Bring MLflow up to date."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "names", nargs="*", help="experiments and studies; default: all that have results"
    )
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    files = sorted(Path("experiments").glob("*/checkpoints/resolved.yaml"))
    files += sorted(Path("experiments").glob("*/compare/report.html"))
    known = {file.parts[1] for file in files}
    if unknown := sorted(set(args.names) - known):
        listed = ", ".join(sorted(known)) or "none"
        raise UserError(f"{', '.join(unknown)}: no results are there. Known: {listed}")
    failed = []
    for file in files:
        name, folder = file.parts[1], file.parent
        if args.names and name not in args.names:
            continue
        send = _send_run if folder.name == "checkpoints" else _send_comparison
        failed += _failure(name, folder, send)
    if failed:
        listed = "\n  ".join(failed)
        raise UserError(
            f"MLflow at {shown_uri()} did not take these:\n  {listed}\n"
            f"  {FIX}, then: snakemake track"
        )


def _failure(name: str, folder: Path, send: Callable[[Path], None]) -> list[str]:
    """Send one folder, and return why it could not be sent."""
    try:
        send(folder)
    except Busy:
        log.info("%s is being trained, and sends its figures itself", name)
    except Exception as error:  # MLflow raises many kinds; the others may be well
        return [f"{name}: {reason(error)}"]
    else:
        log.info("%s is in MLflow at %s", name, shown_uri())
    return []


def _send_run(folder: Path) -> None:
    with locked(folder, seconds=0):
        TrackedRun(folder, read_resolved(folder / "resolved.yaml")).catch_up()


def _send_comparison(folder: Path) -> None:
    put_study(folder.parent.name, folder)


if __name__ == "__main__":
    sys.exit(cli.run(main))
