"""Train several runs one after the other in the same processes: starting them takes longest.

python [-m torch.distributed.run ...] many_runs.py BASE DATA FOLDER...
"""

import sys
from pathlib import Path

from snaketune.experiment.resolved import read_resolved
from snaketune.training import stage

if __name__ == "__main__":
    base, data, *folders = map(Path, sys.argv[1:])
    for folder in folders:
        stage.train(read_resolved(folder / "resolved.yaml"), base, data, folder / "checkpoints")
