"""Send MLflow whatever runs it has not seen, e.g. after its server was down.

python scripts/track.py [NAME ...]
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune import cli
from snaketune.errors import UserError
from snaketune.experiment.resolved import read_resolved
from snaketune.files import Busy, locked
from snaketune.tracking.mirror import Mirror, reason, shown_uri

log = logging.getLogger("snaketune.track")


def main(argv: Sequence[str] | None = None) -> None:
    """Bring MLflow up to date."""
    parser = cli.parser(__doc__)
    parser.add_argument("names", nargs="*", help="experiments; default: all that were trained")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    failed = []
    for metrics in sorted(Path("experiments").glob("*/checkpoints/metrics.jsonl")):
        name, folder = metrics.parts[1], metrics.parent
        if args.names and name not in args.names:
            continue
        try:
            with locked(folder, seconds=0):
                Mirror(folder, read_resolved(folder / "resolved.yaml")).catch_up()
        except Busy:
            log.info("%s is being trained, and sends its figures itself", name)
        except Exception as error:  # MLflow raises many kinds; the other runs may be well
            failed.append(f"{name}: {reason(error)}")
        else:
            log.info("%s is in MLflow at %s", name, shown_uri())
    if failed:
        listed = "\n  ".join(failed)
        raise UserError(
            f"MLflow at {shown_uri()} did not take these runs:\n  {listed}\n"
            "  Fix: start the server or correct MLFLOW_TRACKING_URI, then: snakemake track"
        )


if __name__ == "__main__":
    sys.exit(cli.run(main))
