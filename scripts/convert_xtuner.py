"""Turn a checkpoint of XTuner 0.1 into one of ours, in place of training.

python scripts/convert_xtuner.py --config X --base store/models/ID \
    --source experiments/iter_500.pth --output experiments/X/checkpoints

The source is a file, or the folder that DeepSpeed wrote. Writes last.pth and train.json.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.experiment.resolved import load_resolved


def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="an experiment, or a resolved.yaml")
    parser.add_argument("--train-id", help="refuse if the experiment has another by now")
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--source", type=Path, required=True, help="XTuner's iter_N.pth")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoints")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.training.convert import convert
    from snaketune.training.train_run import require_train_id

    experiment = load_resolved(args.config)
    require_train_id(experiment, args.train_id)
    convert(experiment, args.base, args.source, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
