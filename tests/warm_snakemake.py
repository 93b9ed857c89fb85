"""Snakemake without its start: its imports are done once, and each command runs in a fork.

python -u warm_snakemake.py

Reads a line of JSON for each command, {"arguments": [...], "folder": ..., "environment": {...},
"output": FILE}, and prints its exit status. Four fifths of a dry run's time are imports.
"""

import gc
import json
import os
import sys
from collections.abc import Sequence

import snakemake.cli
import snakemake.report.html_reporter
import snakemake.storage

import snaketune.comparison.pair_config
import snaketune.experiment
import snaketune.planning.plan_targets
import snaketune.publish.publish_config
import snaketune.tracking.mlflow_client  # noqa: F401


def run(arguments: Sequence[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Do as `python -m snakemake ARGUMENTS` does, and end with its status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, file), (2, file)):
        os.dup2(source, descriptor)
    sys.argv[1:] = arguments
    snakemake.cli.main()
    sys.exit()


if __name__ == "__main__":
    gc.freeze()  # else a fork's first collection copies all memory
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
