"""What is missing, failed, old or damaged is told as such, and stops neither page nor others."""

import shutil

import pytest

from snaketune.comparison.compare_study import compare
from snaketune.core.errors import UserError
from snaketune.core.files import locked
from study_results import STUDY, write_training

TODO = "snakemake experiments/study_zero2/eval/report.json"


def remove(*parts):
    def change(study):
        for part in parts:
            shutil.rmtree(study.folder("zero2") / part)

    return change


def log(stage: str, text: str, *removed: str, name: str = "study_zero2"):
    def change(study):
        remove(*removed)(study)
        path = study.root / "logs" / name / f"{stage}.log"
        path.parent.mkdir(parents=True)
        path.write_text(f"loading\nError: of an earlier line\n{text}\n")

    return change


def overwrite(file: str, text: str):
    def change(study):
        (study.folder("zero2") / file).write_text(text)

    return change


def half_trained(study):
    shutil.rmtree(study.folder("zero2"))
    write_training(study.root, study.experiments()["zero2"], 7, 3.0, finished=False)


def diverged(study):
    half_trained(study)
    log("train", "Error: training diverged at iteration 8.\n  Fix: lower train.lr")(study)


def stopped(study):
    half_trained(study)
    log("train", "Stopped: SIGINT at iteration 7 of 12; its checkpoint is saved.")(study)


def never_begun(study):
    remove("checkpoints", "eval")(study)
    log("train", "Error: too little disk space")(study)


def other_settings(study):
    study.write(STUDY.replace("zero2: {train:", "zero2: {max_length: 99, train:", 1))


def data_failed(study):
    other_settings(study)
    ids = study.collect()["zero2"].ids
    log(ids["data"], "Error: rows.jsonl:3: no answer", name="data")(study)


def rows_gone(study):
    (study.root / "experiments/rows.jsonl").unlink()
    remove("eval")(study)


CASES = {
    "nothing": (remove("checkpoints", "eval"), "not built", "nothing is trained yet"),
    "half trained": (half_trained, "interrupted", "stopped at iteration 7"),
    "stopped by hand": (stopped, "interrupted", "SIGINT at iteration 7 of 12"),
    "diverged": (diverged, "failed", "training, at iteration 7: training diverged at iteration 8."),
    "failed at once": (never_begun, "failed", "training: too little disk space"),
    "merge failed": (
        log("merge", "Error: the merged model answers otherwise", "merged", "eval"),
        "failed",
        "trained; merge: the merged model answers otherwise",
    ),
    "evaluation failed": (
        log("evaluate", "Unexpected ValueError: x", "eval"),
        "failed",
        "trained; evaluate: Unexpected ValueError: x",
    ),
    "data failed": (data_failed, "failed", "data: rows.jsonl:3: no answer"),
    "evaluation missing": (remove("eval"), "not evaluated", "trained, but not evaluated"),
    "other settings": (other_settings, "old", "trained with other settings"),
    "a file gone": (rows_gone, "cannot be built", "rows.jsonl does not exist"),
    "no JSON": (overwrite("eval/report.json", "{"), "unreadable", "eval/report.json is damaged"),
    "other JSON": (overwrite("checkpoints/train.json", "[1]"), "unreadable", "train.json"),
    "damaged metrics": (overwrite("checkpoints/metrics.jsonl", "{\n{}\n"), "unreadable", "metrics"),
    "other metrics": (overwrite("checkpoints/metrics.jsonl", "{}\n"), "unreadable", "metrics"),
    "bytes": (overwrite("checkpoints/mlflow.json", "\0"), "unreadable", "mlflow.json is damaged"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_complete_is_told_with_what_to_type(built, case):
    change, state, words = CASES[case]
    change(built)
    report = built.compare()
    found = report["variants"]["zero2"]
    assert (found["state"], found["todo"].removeprefix("get the file, then: ")) == (state, TODO)
    assert words in found["told"]
    page = built.page()
    assert "Not complete" in page and f'<b class="bad">{state}</b>' in page and TODO in page
    assert [name for name, each in report["variants"].items() if each["state"] == "complete"] == [
        "none",
        "mixed",
        "mixed_zero2",
    ]
    assert ("none", "mixed") in [(each["from"], each["to"]) for each in report["findings"]]


def test_a_running_training_is_told(built):
    half_trained(built)
    with locked(built.folder("zero2") / "checkpoints"):
        found = built.compare()["variants"]["zero2"]
    assert (found["state"], found["told"]) == ("training", "at iteration 7")


def test_figures_of_other_settings_are_not_shown(built):
    other_settings(built)
    found = built.compare()["variants"]["zero2"]
    figures = ("training", "heldout", "probes", "answers", "mlflow", "disk")
    assert not any(found[key] for key in figures)
    assert 'data-variant="zero2" data-figure="training_seconds">–<' in built.page()


def test_the_files_of_half_a_training_are_no_saving(built):
    half_trained(built)
    report = built.compare()
    assert report["variants"]["zero2"]["disk"] == {}
    assert "zero2" not in report["best"].get("checkpoints_bytes", [])


def test_an_old_evaluation_of_a_newer_training_is_not_shown(built):
    file = built.folder("zero2") / "eval" / "report.json"
    before = file.read_text()
    file.write_text(before.replace(built.collect()["zero2"].ids["train"], "000000000000"))
    found = built.compare()["variants"]["zero2"]
    assert (found["state"], found["probes"]) == ("old", {})
    assert found["training"]["updates"] == 6


def test_results_are_complete_though_a_file_they_were_made_of_is_gone(built):
    (built.root / "experiments/rows.jsonl").unlink()
    assert all(each["state"] == "complete" for each in built.compare()["variants"].values())


def test_nothing_at_all_is_still_a_page(study):
    report = study.compare()
    assert {each["state"] for each in report["variants"].values()} == {"not built"}
    assert (report["findings"], report["best"], report["samples"]) == ([], {}, [])
    assert "0 complete" in study.page()


def test_a_wrong_variant_is_told_and_the_others_compared(built):
    built.write(STUDY + "  wrong: {epoks: 3}\n")
    report = built.compare()
    assert len(report["variants"]) == 4
    assert "unknown key" in report["mistakes"][0]
    assert "Mistakes in experiments/study.yaml" in built.page()


def test_a_study_without_variants_is_a_page_of_one(study):
    study.write(STUDY.partition("variants:")[0])
    study.results("study")
    report = study.compare()
    assert list(report["variants"]) == ["study"]
    assert report["variants"]["study"]["experiment"] == "study"
    assert report["settings"] == {}
    assert "Settings that differ" not in study.page()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("studi", "no study 'studi'. Did you mean 'study'? Known: study"),
        ("study_none", "a variant.\n  Fix: name its study, study"),
        ("", "name a study: --config study=NAME. Known: study"),
        ("broken", "no variant of broken is right:\n  experiments/broken.yaml:1"),
    ],
)
def test_a_study_that_is_none_is_explained(study, name, words):
    (study.root / "experiments" / "broken.yaml").write_text("epoks: 3\n")
    with pytest.raises(UserError) as error:
        compare(name, study.root / "out")
    assert words in str(error.value)
    assert not (study.root / "out").exists()


def test_a_page_of_all_takes_the_place_of_the_page_of_what_was_there(built):
    now = built.root / "experiments/study/compare/now"
    compare("study", now)
    assert (now / "report.json").exists()
    built.compare()
    assert not now.exists()
