"""Download files of a data set on a hub, and record where they come from.

python scripts/fetch_dataset.py --spec JSON --output store/datasets/ID

The spec is source, revision, file and perhaps sha256, as in an experiment file.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import locked
from snaketune.hub import fetch_dataset


def main(argv: Sequence[str] | None = None) -> None:
    """Run the data set download."""
    parser = cli.parser(__doc__)
    parser.add_argument("--spec", required=True, help="JSON: source, revision, file, sha256")
    parser.add_argument("--output", type=Path, required=True, help="folder for the file")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    with locked(args.output):
        fetch_dataset(json.loads(args.spec), args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
