"""Report what became of an experiment's data: as a page, as text, as JSON.

python scripts/data_report.py --config X --data store/data/ID --output experiments/X/data
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import write_text
from snaketune.core.layout import DataPaths, ReportPaths
from snaketune.data.data_record import DataReport, ExperimentDataReport, TrainingLength
from snaketune.data.data_report_page import report_html, report_text
from snaketune.experiment.resolved import load_resolved
from snaketune.experiment.schema import Train


def main(argv: Sequence[str] | None = None) -> None:
    """Write report.html, report.txt and report.json."""
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, help="an experiment, or a resolved.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the processed data's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for the reports")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    experiment = load_resolved(args.config)
    report = with_training_length(
        DataReport.read(DataPaths(args.data).report), experiment.config.train
    )
    paths = ReportPaths(args.output)
    report.write(paths.json)
    write_text(paths.text, report_text(report))
    write_text(paths.html, report_html(experiment.name, report))
    cli.console.print(f"see {paths.html}", markup=False)


def with_training_length(report: DataReport, train: Train) -> ExperimentDataReport:
    """Add how long training on this data will take with these settings."""
    _, iterations = train.iterations(report.train.packs)
    training = TrainingLength(
        iterations=iterations,
        updates=-(-iterations // train.accumulate),
        checkpoints=-(-iterations // train.save_every),
    )
    return ExperimentDataReport(**dict(report), training=training)


if __name__ == "__main__":
    sys.exit(cli.run(main))
