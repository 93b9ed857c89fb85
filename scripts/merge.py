"""Merge an adapter into its base model and check the result against base + adapter.

python scripts/merge.py --base store/models/ID --adapter experiments/X/adapter \
    --output experiments/X/merged
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Merge an adapter."""
    parser = cli.parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--adapter", type=Path, required=True, help="the adapter's folder")
    parser.add_argument("--output", type=Path, required=True, help="the merged model's folder")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.models.merge import merge

    merge(args.base, args.adapter, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
