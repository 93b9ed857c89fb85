"""Make one model of a base and what was trained on it, and check that it is the trained one.

python scripts/merge.py --base store/models/ID --trained experiments/X/adapter \
    --output experiments/X/merged

A full fine-tune has no adapter: --trained experiments/X/checkpoints/last.pth
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Merge."""
    parser = cli.parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--trained", type=Path, required=True, help="adapter's folder, or .pth")
    parser.add_argument("--output", type=Path, required=True, help="the merged model's folder")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.models.merge import merge

    merge(args.base, args.trained, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
