"""Train an adapter, resuming from the newest checkpoint if there is one.

python scripts/train.py --config X --base store/models/ID \
    --data store/data/ID --output experiments/X/checkpoints

Writes iter_N.pth, metrics.jsonl and samples.jsonl as it goes, last.pth and train.json at the end.
Ctrl-C and SIGTERM save a checkpoint and exit non-zero. It starts as many processes as
`train.processes` says, by default one for each GPU.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.experiment.resolved import load_resolved


def main(argv: Sequence[str] | None = None) -> None:
    """Run the training stage."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="an experiment, or a resolved.yaml")
    parser.add_argument("--train-id", help="refuse if the experiment has another by now")
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--data", type=Path, required=True, help="the processed data's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights to begin with")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.tracking.mirror import Mirror
    from snaketune.training.processes import process_count
    from snaketune.training.train_run import require_train_id, train

    experiment = load_resolved(args.config)
    require_train_id(experiment, args.train_id)
    processes = process_count(experiment.config.train.processes)
    if processes > 1 and "RANK" not in os.environ:
        cli.close_log()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        launcher += ["--shutdown-timeout=300"]  # after a signal: the iteration and its checkpoint
        program = ["--", __file__, *(sys.argv[1:] if argv is None else argv)]
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // processes))
        os.execv(sys.executable, [sys.executable, *launcher, *program])
    mirror = Mirror(args.output, experiment, args.data)
    train(experiment, args.base, args.data, args.output, args.start, [mirror])


if __name__ == "__main__":
    sys.exit(cli.run(main))
