"""Make one model of a base and what was trained on it, and check that it is the trained one.

python scripts/merge.py --config X --base store/models/ID --trained experiments/X/adapter \\
    --heldout store/data/ID/heldout.arrow --output experiments/X/merged

--config says what to ask both models and how to write the merged one; other flags win over it.
A full fine-tune has no adapter: --trained experiments/X/checkpoints/last.pth
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Merge."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", help="an experiment's name, or a resolved.yaml")
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--trained", type=Path, required=True, help="adapter's folder, or .pth")
    parser.add_argument("--heldout", type=Path, help="held-out packs, to choose QLoRA's base by")
    parser.add_argument("--output", type=Path, required=True, help="the merged model's folder")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp16", "fp32"), help="of the weights")
    parser.add_argument("--max-shard-size", help="of one file of weights, e.g. 2GB")
    bases = ("auto", "original", "dequantized")
    parser.add_argument("--merge-into", choices=bases, help="the base of a QLoRA run")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.experiment.resolved import load_resolved
    from snaketune.experiment.schema import Export
    from snaketune.export.merge import merge

    experiment = load_resolved(args.config) if args.config else None
    flags = {name: v for name, v in vars(args).items() if v and name in Export.model_fields}
    export = (experiment.config.export if experiment else Export()).model_copy(update=flags)
    merge(args.base, args.trained, args.output, experiment, args.heldout, export)


if __name__ == "__main__":
    sys.exit(cli.run(main))
