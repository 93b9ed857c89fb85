"""Tell what became of an experiment's data: as a page, as text, as JSON.

python scripts/data_report.py --config X --data store/data/ID --output experiments/X/data
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import read_json, write_json, write_text
from snaketune.data.report_page import report_html, report_text, with_training
from snaketune.experiment.resolved import load_resolved


def main(argv: Sequence[str] | None = None) -> None:
    """Write report.html, report.txt and report.json."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="an experiment, or a resolved.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the processed data's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the reports")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    experiment = load_resolved(args.config)
    report = with_training(read_json(args.data / "report.json"), experiment.config.train)
    write_json(args.output / "report.json", report)
    write_text(args.output / "report.txt", report_text(report))
    write_text(args.output / "report.html", report_html(experiment.name, report))
    cli.console.print(f"see {args.output}/report.html", markup=False)


if __name__ == "__main__":
    sys.exit(cli.run(main))
