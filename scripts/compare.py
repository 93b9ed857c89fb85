"""Put a study's variants on one page: what differs, what it brought, what it cost.

python scripts/compare.py STUDY

It builds nothing: what is not there is shown as such, with what to type. The page of what is there
is experiments/STUDY/compare/now/report.html; Snakemake's, of all variants, is one folder above.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison stage."""
    parser = cli.parser(__doc__)
    parser.add_argument("study", help="the name of a file in experiments/, without .yaml")
    parser.add_argument("--output", type=Path, help="default: experiments/STUDY/compare/now")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.comparison.compare_study import NOW, compare

    now = Path("experiments") / args.study / "compare" / NOW
    compare(args.study, args.output or now)
    if args.output:
        from snaketune.tracking.study import send_study

        send_study(args.study, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
