"""Write a model with one tensor in each file, or with files of another size.

python scripts/split.py --model experiments/X/merged --output experiments/X/split
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Split."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a merged model's folder")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--max-shard-size", default=1, help="e.g. 2GB; default: one tensor each")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.export.split import split

    split(args.model, args.output, args.max_shard_size)


if __name__ == "__main__":
    sys.exit(cli.run(main))
