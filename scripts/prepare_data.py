"""Turn rows into packed token ids with a loss mask, and report what happened to every row.

python scripts/prepare_data.py --spec JSON --base store/models/ID --output store/data/ID

The spec holds the keys that decide the processed data (`identity.data_key`).
`snakemake experiments/X/data/report.html` calls this with the right one.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import locked
from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare


def main(argv: Sequence[str] | None = None) -> None:
    """Run the data stage."""
    parser = cli.parser(__doc__)
    parser.add_argument("--spec", required=True, help="JSON: sources, template, max_length, ...")
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--workers", type=int, default=1, help="processes to use; default 1")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    with locked(args.output):
        prepare(DataSpec.from_key(json.loads(args.spec)), args.base, args.output, args.workers)


if __name__ == "__main__":
    sys.exit(cli.run(main))
