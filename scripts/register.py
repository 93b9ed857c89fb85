"""Register a merged model in MLflow's model registry.

python scripts/register.py --merged experiments/X/merged --checkpoints experiments/X/checkpoints \
    --output experiments/X/registered
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import locked


def main(argv: Sequence[str] | None = None) -> None:
    """Register."""
    parser = cli.parser(__doc__)
    parser.add_argument("--merged", type=Path, required=True, help="with a manifest.json")
    parser.add_argument("--checkpoints", type=Path, required=True, help="what it was made of")
    parser.add_argument("--output", type=Path, required=True, help="what it is in the registry")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.tracking.registry import register

    with locked(args.checkpoints):
        register(args.merged, args.checkpoints, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
