"""Snakemake's dry run as plain jobs: the only file that uses Snakemake's private parts.

Snakemake's API runs a workflow and prints, but returns neither the jobs nor why they run. Both are
in `_workflow.dag`, in `dag.reason(job)` and in the records of earlier runs, `workflow.persistence`.
None of these is public, so tests/planning/test_snakemake_adapter.py checks each of them.

Checked with Snakemake 9.27.1.
"""

import ast
import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from snaketune.core.errors import UserError
from snaketune.planning.job import Job, PreviousResult


def dry_run(targets: Sequence[str], config: Mapping[str, Any]) -> list[Job]:
    """The jobs that Snakemake needs for some targets, in an order in which they could run.

    It reads the Snakefile of the working folder, with the settings of Snakemake's profile.

    Raises:
        UserError: Snakemake cannot plan them, e.g. because no rule makes a target.
    """
    # importing Snakemake takes most of a second: `plan --help` does without
    from snakemake.api import SnakemakeApi
    from snakemake.settings import types as settings

    options = _options_with_profile(targets)
    output = settings.OutputSettings(
        dryrun=True, enable_file_logging=False, log_level_override=logging.CRITICAL
    )
    dag_settings = settings.DAGSettings(
        targets=options.targets,
        rerun_triggers=options.rerun_triggers,
        force_incomplete=options.rerun_incomplete,
        max_checksum_file_size=options.max_checksum_file_size,
    )
    with SnakemakeApi(output) as api:
        try:
            workflow = api.workflow(
                settings.ResourceSettings(cores=options.cores),
                config_settings=settings.ConfigSettings(config=dict(config)),
                deployment_settings=settings.DeploymentSettings(
                    deployment_method=options.software_deployment_method
                ),
                snakefile=Path("Snakefile"),
            )
            # lock=False: a plan is possible while Snakemake runs in the same folder
            execution = settings.ExecutionSettings(lock=False)
            workflow.dag(dag_settings).execute_workflow("dryrun", execution_settings=execution)
        except SystemExit as stop:  # the Snakefile refused a target with sys.exit
            raise UserError(str(stop).removeprefix("Error: ")) from stop
        except Exception as error:
            raise UserError(f"Snakemake cannot plan {' '.join(targets)}: {error}") from error
        dag = workflow._workflow.dag
        return [
            _job(dag, job) for level in dag.toposorted() for job in sorted(level, key=_rule_output)
        ]


def _options_with_profile(targets: Sequence[str]) -> Any:
    """What Snakemake's command line makes of these targets and its profile.

    SnakemakeApi does not read profiles, so that rerun triggers and cores would be its own defaults.
    """
    from snakemake.cli import parse_args

    with contextlib.redirect_stderr(io.StringIO()):  # it prints the profile that it reads
        return parse_args(["--dry-run", "--", *targets])[1]


def _rule_output(job: Any) -> tuple[str, ...]:
    return (job.rule.name, *map(str, job.output))


def _job(dag: Any, job: Any) -> Job:
    wildcards, output = dict(job.wildcards_dict), list(map(str, job.output))
    if not dag.needrun(job):
        return Job(job.rule.name, wildcards, output, runs=False)
    reason, persistence = dag.reason(job), dag.workflow.persistence
    records = [record for file in job.output if (record := persistence.metadata(file))]
    input_now = set(map(str, job.input))
    input_before = set(records[0].input or ()) if records else set()
    input_changed = any(persistence.input_changed(job))
    params = persistence.params_changed(job)
    return Job(
        rule=job.rule.name,
        wildcards=wildcards,
        output=output,
        input=sorted(input_now),
        always=reason.noio or reason.nooutput,
        made_before=bool(records) or any(Path(file).exists() for file in output),
        interrupted=bool(reason.incomplete_output),
        missing=[file for file in output if not Path(file).exists()],
        touched=sorted(map(str, reason.updated_input - reason.updated_input_run)),
        added=sorted(input_now - input_before) if input_changed else (),
        removed=sorted(input_before - input_now) if input_changed else (),
        after=sorted(_rules_before(dag, job, reason)),
        # Snakemake keeps parameters as texts without names: repr() of each value, as a set
        before=[ast.literal_eval(text) for text in sorted(params.only_old)],
        now={k: value for k, value in job.params.items() if repr(value) in params.only_new},
        environment=bool(reason.software_stack_changed),
        past=list(_previous_results(job, persistence)),
    )


def _rules_before(dag: Any, job: Any, reason: Any) -> set[str]:
    """The rules that will make a job's input anew; with the experiment's name if it is another."""
    rules = set()
    for before, files in dag.dependencies[job].items():
        if files & reason.updated_input_run:
            name = before.wildcards_dict.get("experiment")
            is_other = name is not None and name != job.wildcards_dict.get("experiment")
            rules.add(f"{before.rule.name} of {name}" if is_other else before.rule.name)
    return rules


def _previous_results(job: Any, persistence: Any) -> Iterator[PreviousResult]:
    """What a job's rule has made so far, for any experiment."""
    from snakemake.io import IOFile

    if not job.output:
        return
    # `at` names an iteration: the result of another iteration took another time
    wildcards = dict.fromkeys(job.wildcards_dict, "*") | {"at": job.wildcards_dict.get("at", "")}
    pattern = str(job.rule.output[0].apply_wildcards(wildcards))
    existing = {path.as_posix() for path in Path().glob(pattern)}
    for path in sorted({*existing, str(job.output[0])}):
        record = persistence.metadata(IOFile(path, rule=job.rule))
        if record and record.rule == job.rule.name:
            is_timed = record.starttime is not None and record.endtime is not None
            seconds = record.endtime - record.starttime if is_timed else None
            inputs = frozenset(record.input or ())
            yield PreviousResult(path, seconds, record.endtime or 0.0, inputs)
