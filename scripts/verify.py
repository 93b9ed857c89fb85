"""Compare every file of a finished model with its manifest.

python scripts/verify.py --model experiments/X/merged --output experiments/X/verify
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Verify."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder with manifest.json")
    parser.add_argument("--output", type=Path, required=True, help="gets a line for each file")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.core.manifest import verify

    verify(args.model, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
