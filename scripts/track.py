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
from snaketune.tracking.mirror import Mirror, reason, shown_uri

log = logging.getLogger("snaketune.track")


def main(argv: Sequence[str] | None = None) -> None:
    """Bring MLflow up to date."""
    parser = cli.parser(__doc__)
    parser.add_argument("names", nargs="*", help="experiments; default: all that were trained")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    for metrics in sorted(Path("experiments").glob("*/checkpoints/metrics.jsonl")):
        name = metrics.parts[1]
        if not args.names or name in args.names:
            send(metrics.parent)
            log.info("%s is in MLflow at %s", name, shown_uri())


def send(folder: Path) -> None:
    """Send one run.

    Raises:
        UserError: MLflow cannot be reached.
    """
    mirror = Mirror(folder, read_resolved(folder / "resolved.yaml"))
    try:
        mirror.catch_up()
    except Exception as error:  # MLflow raises many kinds, each meaning it was not reached
        raise UserError(
            f"MLflow at {shown_uri()} does not answer: {reason(error)}\n"
            "  Fix: start the server or correct MLFLOW_TRACKING_URI, then: snakemake track"
        ) from error


if __name__ == "__main__":
    sys.exit(cli.run(main))
