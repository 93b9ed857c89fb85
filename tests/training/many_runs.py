"""Train several runs one after the other in the same processes: starting them takes longest.

python [-m torch.distributed.run ...] many_runs.py BASE DATA FOLDER... [WHOLE:RESUMED...]

Of WHOLE:RESUMED the second goes on from what a kill -9 of the first would have left.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from snaketune.experiment.resolved import read_resolved
from snaketune.training.train_run import train

INTERRUPTED = 7


def prepare(whole: Path, resumed: Path) -> None:
    """Copy the checkpoints of a run, without what it had not written yet when it was killed."""
    output = shutil.copytree(whole / "checkpoints", resumed / "checkpoints")
    for path in output.glob("iter_*.pth"):
        if int(path.stem.removeprefix("iter_")) > INTERRUPTED:
            path.unlink()
    for name in ("last.pth", "train.json", "finished.json"):
        (output / name).unlink()
    lines = (output / "metrics.jsonl").read_text().splitlines(keepends=True)
    (output / "metrics.jsonl").write_text("".join(lines[:INTERRUPTED]))


def main(base: str, data: str, *folders: str) -> None:
    """Train them in their order."""
    for names in folders:
        *before, folder = map(Path, names.split(":"))
        if before and os.environ.get("RANK", "0") == "0":
            prepare(*before, folder)
            (folder / "prepared").touch()
        while before and not (folder / "prepared").exists():
            time.sleep(0.01)
        train(
            read_resolved(folder / "resolved.yaml"), Path(base), Path(data), folder / "checkpoints"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
