"""The comparison stage: a study's variants, as far as they are built, on one page."""

import logging
import shutil
from pathlib import Path

from snaketune.comparison.collect import collect
from snaketune.comparison.comparison_page import html
from snaketune.comparison.comparison_report import build, table
from snaketune.core.errors import UserError, nearest
from snaketune.core.files import write_json, write_text
from snaketune.experiment import Studies, load_studies

log = logging.getLogger(__name__)

NOW = "now"
"""The folder beside report.html for the page of what is there; Snakemake does not know of it, so
it can never pass for the page of all variants."""


def compare(study: str, output: Path) -> None:
    """Write report.html, table.csv and at last report.json.

    Args:
        study: The name of a file in experiments/, whether or not it has variants.
        output: experiments/STUDY/compare, or `now` in it while variants are missing.

    Raises:
        UserError: There is no such study, or nothing in its file is right.
    """
    studies = load_studies(Path("experiments"))
    experiments = [each for each in studies.experiments.values() if each.study == study]
    if not experiments:
        raise UserError(_unknown(study, studies))
    variants = [collect(each) for each in experiments]
    report = build(study, variants, studies.study_problems.get(study, []))
    write_text(output / "report.html", html(report, variants))
    write_text(output / "table.csv", table(report, variants))
    write_json(output / "report.json", report)
    shutil.rmtree(output / NOW, ignore_errors=True)
    missing = [found for found in variants if not found.complete]
    for found in missing:
        log.warning("%s is %s: %s", found.name, found.state, found.told.splitlines()[0])
    complete = len(variants) - len(missing)
    log.info("%d of %d variants: see %s/report.html", complete, len(variants), output)


def _unknown(study: str, studies: Studies) -> str:
    known = sorted({each.study for each in studies.experiments.values()})
    if not study:
        return f"name a study: --config study=NAME. Known: {', '.join(known)}"
    if problems := studies.study_problems.get(study):
        listed = "".join(f"\n  {problem}" for problem in problems)
        return f"no variant of {study} is right:{listed}"
    if study in studies.experiments:
        owner = studies.experiments[study].study
        return f"{study} is a variant.\n  Fix: name its study, {owner}"
    return f"there is no study '{study}'.{nearest(study, known)} Known: {', '.join(known)}"
