"""Say what Snakemake would do for some targets, and why, before anything runs.

python scripts/plan.py experiments/X/merged experiments/Y/merged

Jobs and reasons are those of Snakemake's own dry run, with the settings of its profile. Times are
those of past runs; `--json` prints the same for programs.
"""

import ast
import contextlib
import io
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.experiment import load_studies
from snaketune.planning.job import Job, Past
from snaketune.planning.plan import make_plan, to_json
from snaketune.planning.plan_targets import read_targets
from snaketune.planning.plan_text import lines


def main(argv: Sequence[str] | None = None) -> None:
    """Plan."""
    parser = cli.parser(__doc__)
    parser.add_argument("targets", nargs="+", help="what you would ask Snakemake for")
    parser.add_argument("--config", type=json.loads, default={}, help="Snakemake's, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON to stdout")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    studies = load_studies(Path("experiments"))
    targets = read_targets({"target": args.targets}, studies)
    plan = make_plan(targets, dry_run(targets, args.config), studies)
    if args.json:
        print(json.dumps(to_json(plan), indent=2))
    else:
        for line in lines(plan):
            cli.console.print(line)


def dry_run(targets: Sequence[str], config: Mapping[str, Any]) -> list[Job]:
    """Return the jobs that Snakemake needs for some targets, in an order in which they could run.

    Raises:
        UserError: Snakemake cannot say, e.g. as no rule makes a target.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings import types as settings

    given = _profile(targets)
    output = settings.OutputSettings(
        dryrun=True, enable_file_logging=False, log_level_override=logging.CRITICAL
    )
    dag_settings = settings.DAGSettings(
        targets=given.targets,
        rerun_triggers=given.rerun_triggers,
        force_incomplete=given.rerun_incomplete,
        max_checksum_file_size=given.max_checksum_file_size,
    )
    with SnakemakeApi(output) as api:
        try:
            workflow = api.workflow(
                settings.ResourceSettings(cores=given.cores),
                config_settings=settings.ConfigSettings(config=dict(config)),
                deployment_settings=settings.DeploymentSettings(
                    deployment_method=given.software_deployment_method
                ),
                snakefile=Path("Snakefile"),
            )
            execution = settings.ExecutionSettings(lock=False)
            workflow.dag(dag_settings).execute_workflow("dryrun", execution_settings=execution)
        except SystemExit as stop:  # the Snakefile refuses a target
            raise UserError(str(stop).removeprefix("Error: ")) from stop
        except Exception as error:
            raise UserError(f"Snakemake cannot plan {' '.join(targets)}: {error}") from error
        dag = workflow._workflow.dag  # the API has no other way to the jobs and their reasons
        return [
            _job(dag, job) for level in dag.toposorted() for job in sorted(level, key=_by_output)
        ]


def _profile(targets: Sequence[str]) -> Any:
    """Return the options that Snakemake would have for these targets, from its profile."""
    from snakemake.cli import parse_args

    with contextlib.redirect_stderr(io.StringIO()):  # it tells which profile it reads
        return parse_args(["--dry-run", "--", *targets])[1]


def _by_output(job: Any) -> tuple[str, ...]:
    return (job.rule.name, *map(str, job.output))


def _job(dag: Any, job: Any) -> Job:
    wildcards, output = dict(job.wildcards_dict), list(map(str, job.output))
    if not dag.needrun(job):
        return Job(job.rule.name, wildcards, output, runs=False)
    reason, known = dag.reason(job), dag.workflow.persistence
    records = [record for file in job.output if (record := known.metadata(file))]
    own, then = set(map(str, job.input)), set(records[0].input or ()) if records else set()
    other_input = any(known.input_changed(job))
    changed = known.params_changed(job)
    return Job(
        rule=job.rule.name,
        wildcards=wildcards,
        output=output,
        input=sorted(own),
        always=reason.noio or reason.nooutput,
        made_before=bool(records) or any(Path(file).exists() for file in output),
        interrupted=bool(reason.incomplete_output),
        missing=[file for file in output if not Path(file).exists()],
        touched=sorted(map(str, reason.updated_input - reason.updated_input_run)),
        added=sorted(own - then) if other_input else (),
        removed=sorted(then - own) if other_input else (),
        after=sorted(_after(dag, job, reason)),
        before=[ast.literal_eval(text) for text in sorted(changed.only_old)],
        now={key: each for key, each in job.params.items() if repr(each) in changed.only_new},
        environment=bool(reason.software_stack_changed),
        past=list(_past(job, known)),
    )


def _after(dag: Any, job: Any, reason: Any) -> set[str]:
    """Return the rules of the jobs that make a job's input anew, and of which experiment."""
    found = set()
    for before, files in dag.dependencies[job].items():
        if files & reason.updated_input_run:
            name, own = before.wildcards_dict.get("experiment"), job.wildcards_dict
            other = name is not None and name != own.get("experiment")
            found.add(f"{before.rule.name} of {name}" if other else before.rule.name)
    return found


def _past(job: Any, known: Any) -> Iterator[Past]:
    """Yield what a job's rule has made so far, with any wildcards."""
    from snakemake.io import IOFile

    if not job.output:
        return
    anything = dict.fromkeys(job.wildcards_dict, "*") | {"at": job.wildcards_dict.get("at", "")}
    pattern = str(job.rule.output[0].apply_wildcards(anything))
    there = {path.as_posix() for path in Path().glob(pattern)}
    for path in sorted({*there, str(job.output[0])}):
        record = known.metadata(IOFile(path, rule=job.rule))
        if record and record.rule == job.rule.name:
            timed = record.starttime is not None and record.endtime is not None
            seconds = record.endtime - record.starttime if timed else None
            yield Past(path, seconds, record.endtime or 0.0, frozenset(record.input or ()))


if __name__ == "__main__":
    sys.exit(cli.run(main))
