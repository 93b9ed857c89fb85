"""`snakemake plan` against what Snakemake then does, and `snakemake diff`."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest

from snaketune.core.files import read_json, read_jsonl

TRAINED = "experiments/study_none/checkpoints/last.pth"
ADAPTER = "experiments/study_none/adapter"
ENDS = [f"experiments/study_none/{end}" for end in ("eval/report.html", "resolved.yaml")]


def plan(project, *targets):
    """Return what scripts/plan.py prints as JSON."""
    command = [sys.executable, "scripts/plan.py", "--json", *targets]
    done = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def planned(project, *targets):
    return sorted(stage["rule"] for stage in plan(project, *targets)["stages"])


def stage(found, rule):
    [line] = [line for line in found["stages"] if line["rule"] == rule]
    return line


def ran(output):
    """Return the rules of the jobs that a real run finished."""
    return sorted(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", output, re.MULTILINE))


def replace(study, old, new):
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))


def trained_iterations(project):
    return len(read_jsonl(project.folder / "experiments/study_none/checkpoints/metrics.jsonl"))


def test_the_plan_from_nothing_is_what_then_happens(fresh, build):
    _, done = build
    jobs = ran(done.stdout)
    assert {"fetch_base", "prepare_data", "train", "export_adapter", "merge"} < set(jobs)
    found = plan(fresh, *(each for each in done.args if each.startswith("experiments/")))
    assert sorted(line["rule"] for line in found["stages"]) == jobs
    assert all(line["reasons"] == [] and line["seconds"] is None for line in found["stages"])


def test_the_plan_is_what_then_happens(copy_built):
    """Half built, with another lr, killed, going on, and back to the first lr."""
    project = copy_built()
    checkpoints = project.folder / "experiments/study_none/checkpoints"
    assert plan(project, ADAPTER)["stages"] == []

    shutil.rmtree(project.folder / "experiments/study_none/merged")
    half = plan(project, "experiments/study_none/merged")
    assert {each["what"] for each in half["reused"]} >= {"base model", "data", "training"}
    assert ran(project.snakemake("experiments/study_none/merged").stdout) == ["merge"]
    assert [line["rule"] for line in half["stages"]] == ["merge"]

    replace(project.study, "lr: 1e-3", "lr: 2e-3")
    changed = plan(project, ADAPTER)
    assert stage(changed, "train")["reasons"] == ["train.lr 0.001 -> 0.002"]
    assert stage(changed, "export_adapter")["reasons"] == ["of train"]
    assert "keeps the earlier run" in stage(changed, "train")["note"]
    figures = read_json(checkpoints / "train.json")
    assert stage(changed, "train")["memory_bytes"] == figures["peak_rss_bytes"]
    assert stage(changed, "train")["seconds"] > figures["training_seconds"]

    def nine_trained():
        return (checkpoints / "superseded").exists() and trained_iterations(project) in range(9, 22)

    project.stop_when(nine_trained, signal.SIGKILL, TRAINED)
    stopped = plan(project, TRAINED)
    told = stage(stopped, "train")["note"]
    begins, total = map(int, re.findall(r"goes on from iteration (\d+) of (\d+)", told)[0])
    assert begins >= 6
    output = project.snakemake(TRAINED).stdout
    assert f"resuming from iteration {begins}\n" in output
    assert trained_iterations(project) == total == figures["iterations"]
    assert ran(output) == sorted(line["rule"] for line in stopped["stages"])

    replace(project.study, "lr: 2e-3", "lr: 1e-3")
    back = plan(project, ADAPTER)
    assert stage(back, "train")["reasons"] == ["train.lr 0.002 -> 0.001"]
    assert "takes its run back from checkpoints/superseded" in stage(back, "train")["note"]
    assert f"is trained already, to iteration {total}" in stage(back, "train")["note"]
    output = project.snakemake(ADAPTER).stdout
    assert "these settings were trained before" in output
    assert f"already trained to iteration {total};" in output
    assert ran(output) == sorted(line["rule"] for line in back["stages"])


CHANGES = {
    "description": ("max_length", "description: new words\nmax_length", "resolve", "description"),
    "evaluation prompt": (
        "[Say 4]",
        "[Say 5]",
        "evaluate",
        "evaluate.prompts Say 4 -> Say 5",
    ),
    "rank": ("r: 4", "r: 8", "train", "method.r 4 -> 8"),
    "merged dtype": ("max_length", "export: {dtype: fp16}\nmax_length", "merge", "export.dtype"),
    "max_length": ("max_length: 160", "max_length: 150", "prepare_data", "max_length 160 -> 150"),
    "data weight": ("alpaca}", "alpaca, weight: 2}", "prepare_data", "data rows -> rows (× 2)"),
    "nothing": ("max_length", "# a comment\nmax_length", None, None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_is_the_reason(built, change):
    old, new, rule, reason = CHANGES[change]
    before = built.study.read_text()
    replace(built.study, old, new)
    try:
        found, expected = plan(built, *ENDS), built.would_run(*ENDS)
    finally:
        built.study.write_text(before)
    assert sorted(line["rule"] for line in found["stages"]) == sorted(expected)
    if rule:
        assert reason in " ".join(stage(found, rule)["reasons"])


def test_a_missing_and_a_changed_file_are_named(built):
    report = built.folder / "experiments/study_none/eval/report.json"
    questions = built.folder / "experiments/probes/retention.yaml"
    page, text = report.read_bytes(), questions.read_text()
    try:
        report.unlink()
        missing = plan(built, str(report.relative_to(built.folder)))
        report.write_bytes(page)
        questions.write_text(text.replace("Say 3", "Say 5"))
        edited = plan(built, *ENDS)
    finally:
        report.write_bytes(page)
        questions.write_text(text)
    name = "experiments/study_none/eval/report.json"
    assert stage(missing, "evaluate")["reasons"] == [f"{name} is missing"]
    changed = "experiments/probes/retention.yaml changed"
    assert stage(edited, "evaluate")["reasons"] == [changed]


def test_a_plan_leaves_no_trace(built):
    def files():
        found = built.folder.rglob("*")
        kept = [f for f in found if f.is_file() and "__pycache__" not in f.parts]
        return {f: f.stat().st_mtime_ns for f in kept if f.name != "latest.pkl"}

    before = files()  # a dry run writes what it knows of files to .snakemake/iocache/latest.pkl
    plan(built, "experiments/study_other/merged")
    assert files() == before


def test_a_plan_is_printed_with_a_line_a_stage(built):
    targets = "target=experiments/study_other/adapter,experiments/study_none/merged"
    output = built.snakemake("plan", "--config", targets).stdout
    assert re.search(r"^ +reuse +base model, data$", output, re.MULTILINE)
    assert re.search(r"^ +train +for the first time +about .* \(study_none: ", output, re.MULTILINE)
    assert re.search(r"^ +export adapter +for the first time +about ", output, re.MULTILINE)
    assert re.search(r"^ +in all about .*; disk about .* are free$", output, re.MULTILINE)
    assert not (built.folder / "experiments/study_other").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan"], "nothing says what to plan"),
        (["plan", "--config", "target=experiments/study_nona/merged"], "'study_none'?"),
        (["plan", "--config", "target=experiments/study_none/mergd"], "'merged'?"),
        (["diff", "--config", "one=study_none"], "one=study_none two=study_other"),
        (["chat"], "snakemake chat --config experiment=study_none"),
        (["diff", "--config", "one=study_none", "two=7"], "no experiment '7'"),
    ],
)
def test_an_unclear_question_is_answered_before_anything_runs(built, arguments, message):
    asked = built.snakemake(*arguments, check=False)
    assert asked.returncode != 0
    assert message in asked.stdout
    assert "Error in rule" not in asked.stdout


def test_a_target_that_the_snakefile_refuses_is_explained(built):
    command = [sys.executable, "scripts/plan.py", "experiments/study_none/published"]
    done = subprocess.run(
        command, cwd=built.folder, env=built.environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and "--config to=hf:" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_experiments_of_one_field_differ_in_one_line(built):
    output = built.snakemake("diff", "--config", "one=study_none", "two=study_other").stdout
    lines = [line.strip() for line in output.splitlines() if "train.seed" in line]
    assert [line.split() for line in lines] == [["train.seed", "42", "1"]]
    assert "study_other is not built" in output
    assert "snakemake experiments/study_other/eval/report.json" in output


def test_planning_another_kind_of_target_is_harmless(built):
    assert planned(built, "list") == ["list"]


def test_a_chat_builds_what_it_talks_to(built):
    other = built.would_run("chat", "--config", "experiment=study_other", "model=iter_4")
    assert other == {"train": 1, "export_adapter": 1, "chat": 1}
