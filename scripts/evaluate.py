"""Compare base, checkpoints and merged model on the same prompts and held-out rows.

python scripts/evaluate.py --config X --base store/models/ID \
    --merged experiments/X/merged --data store/data/ID --checkpoints experiments/X/checkpoints \
    --output experiments/X/eval
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.layout import PROBES
from snaketune.experiment.resolved import load_resolved


def main(argv: Sequence[str] | None = None) -> None:
    """Run the evaluation stage."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="an experiment, or a resolved.yaml")
    for name in ("base", "merged", "data", "checkpoints", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--probes", type=Path, default=PROBES, help="the folder with their questions"
    )
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.evaluation.evaluate_models import evaluate
    from snaketune.tracking.tracked_run import send_run

    experiment = load_resolved(args.config)
    folders = (args.base, args.merged, args.data, args.checkpoints, args.output)
    evaluate(experiment, *folders, args.probes)
    send_run(args.checkpoints)


if __name__ == "__main__":
    sys.exit(cli.run(main))
