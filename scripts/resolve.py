"""Write an experiment's full configuration: every default, its ids, package versions.

python scripts/resolve.py X --output experiments/X/resolved.yaml
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune import cli
from snaketune.errors import UserError, nearest
from snaketune.experiment import load_studies
from snaketune.experiment.resolved import resolved_values, to_yaml
from snaketune.files import write_text


def main(argv: Sequence[str] | None = None) -> None:
    """Resolve one experiment."""
    parser = cli.parser(__doc__)
    parser.add_argument("experiment", help="its name, e.g. oasst1_zero2")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    studies = load_studies(Path("experiments"))
    if args.experiment not in studies.experiments:
        known = studies.experiments
        problems = "".join(f"\n  {p}" for p in studies.problems_of(args.experiment))
        raise UserError(
            f"no experiment '{args.experiment}'.{nearest(args.experiment, known)}{problems}"
        )
    write_text(args.output, to_yaml(resolved_values(studies.experiments[args.experiment])))


if __name__ == "__main__":
    sys.exit(cli.run(main))
