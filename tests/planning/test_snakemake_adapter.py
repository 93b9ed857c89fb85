"""Snakemake's private parts that the plan reads: they exist and say what the plan needs."""

import subprocess
import sys

import pytest

from snaketune.core.errors import UserError
from snaketune.planning.snakemake_adapter import dry_run

SNAKEFILE = """
rule first:
    output: "one/{experiment}.txt"
    params: lr=config.get("lr", "0.1")
    shell: "echo {params.lr} > {output}"

rule second:
    input: "one/{experiment}.txt"
    output: "two/{experiment}.txt"
    shell: "cp {input} {output}"
"""


@pytest.fixture
def workflow(tmp_path, monkeypatch):
    """A folder with two rules whose files are built."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    profile = tmp_path / "profiles/default/profile.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("cores: 1\nrerun-triggers: [mtime, params, input]\n")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "snakemake", "two/a.txt"]
    subprocess.run(command, check=True, timeout=120)
    return tmp_path


def test_what_is_built_does_not_run(workflow):
    assert not [job for job in dry_run(["two/a.txt"], {}) if job.runs]


def test_a_changed_parameter_has_its_old_and_new_value(workflow):
    first, second = dry_run(["two/a.txt"], {"lr": "0.2"})

    assert (first.before, first.now) == (["0.1"], {"lr": "0.2"})
    assert second.after == ["first"]


def test_a_missing_file_is_named(workflow):
    (workflow / "two/a.txt").unlink()

    [job] = [job for job in dry_run(["two/a.txt"], {}) if job.runs]

    assert (job.rule, job.missing, job.made_before) == ("second", ["two/a.txt"], True)


def test_earlier_results_have_their_time(workflow):
    [first, _] = dry_run(["two/b.txt"], {})

    assert [result.path for result in first.past] == ["one/a.txt"]
    assert first.past[0].seconds is not None


def test_a_target_without_a_rule_is_refused(workflow):
    with pytest.raises(UserError, match="cannot plan three"):
        dry_run(["three"], {})
