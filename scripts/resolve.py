"""Write an experiment's full configuration: every default, its ids, package versions.

python scripts/resolve.py X --output experiments/X/resolved.yaml
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import write_text
from snaketune.experiment.resolved import find_experiment, resolved_values, to_yaml


def main(argv: Sequence[str] | None = None) -> None:
    """Resolve one experiment."""
    parser = cli.parser(__doc__)
    parser.add_argument("experiment", help="its name, e.g. oasst1_zero2")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    write_text(args.output, to_yaml(resolved_values(find_experiment(args.experiment))))


if __name__ == "__main__":
    sys.exit(cli.run(main))
