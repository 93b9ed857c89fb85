"""Turn a checkpoint into an adapter in PEFT's format.

python scripts/export_adapter.py --config X --checkpoint experiments/X/checkpoints/last.pth \
    --base store/models/ID --output experiments/X/adapter
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Export an adapter."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", help="an experiment's name or a resolved.yaml, for its card")
    parser.add_argument("--checkpoint", type=Path, required=True, help="iter_N.pth or last.pth")
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--output", type=Path, required=True, help="the adapter's folder")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.experiment.resolved import load_resolved
    from snaketune.export.export_adapter import export_adapter

    experiment = load_resolved(args.config) if args.config else None
    export_adapter(args.checkpoint, args.base, args.output, experiment)


if __name__ == "__main__":
    sys.exit(cli.run(main))
