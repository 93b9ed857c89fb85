"""Show what Snakemake would do for some targets, and why, before anything runs.

python scripts/plan.py experiments/X/merged experiments/Y/merged

Jobs and reasons are those of Snakemake's own dry run, with the settings of its profile. Times are
estimated from earlier runs. --json prints the same for programs.
"""

import json
import sys
from collections.abc import Sequence

from snaketune.core import cli
from snaketune.core.layout import EXPERIMENTS
from snaketune.experiment import load_studies
from snaketune.planning.plan import make_plan, to_json
from snaketune.planning.plan_targets import read_targets
from snaketune.planning.plan_text import lines
from snaketune.planning.snakemake_adapter import dry_run


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan."""
    parser = cli.parser(__doc__)
    parser.add_argument("targets", nargs="+", help="as for snakemake itself")
    parser.add_argument("--config", type=json.loads, default={}, help="Snakemake's, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON to stdout")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    studies = load_studies(EXPERIMENTS)
    targets = read_targets({"target": args.targets}, studies)
    plan = make_plan(targets, dry_run(targets, args.config), studies)
    if args.json:
        print(json.dumps(to_json(plan), indent=2))
    else:
        for line in lines(plan):
            cli.console.print(line)


if __name__ == "__main__":
    sys.exit(cli.run(main))
