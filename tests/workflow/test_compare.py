"""The study's page by the real Snakemake: with a variant that fails, and after its repair."""

import json

import pytest

TARGET = "experiments/study/compare/report.html"


@pytest.fixture(scope="module")
def failed(copy_built):
    """A project whose second variant diverged; what Snakemake said, and the project."""
    project = copy_built()
    project.study.write_text(project.study.read_text().replace("{seed: 1}", "{lr: 1e+30}"))
    done = project.snakemake(TARGET, "--keep-going", check=False)
    return project, done


def report(project, now: str = "") -> dict:
    return json.loads((project.folder / f"experiments/study/compare/{now}report.json").read_text())


def test_a_failed_variant_does_not_stop_the_page(failed):
    project, done = failed
    assert done.returncode != 0
    assert "1 of 2 variants: see experiments/study/compare/now/report.html" in done.stdout
    none, other = report(project, "now/")["variants"].values()
    assert (none["state"], other["state"]) == ("complete", "failed")
    assert "training diverged" in other["told"]
    assert not (project.folder / TARGET).exists()
    told, page = done.stdout.index("training diverged"), done.stdout.index("1 of 2 variants")
    assert told < page
    assert (project.folder / "logs/study/compare_now.log").exists()
    assert not (project.folder / "logs/study/compare.log").exists()


def test_the_page_of_what_is_there_builds_nothing(failed):
    project, _ = failed
    page = project.folder / "experiments/study/compare/now/report.html"
    page.unlink()
    assert project.would_run("compare", "--config", "study=study") == {"compare": 1}
    project.snakemake("compare", "--config", "study=study")
    assert "training diverged" in page.read_text()
    wrong = project.snakemake("compare", "--config", "study=studi", check=False)
    assert "Did you mean 'study'?" in wrong.stdout
    assert wrong.returncode != 0


def test_after_the_repair_the_target_makes_the_page_of_all(failed):
    project, _ = failed
    before = project.study.read_text()
    project.study.write_text(before.replace("lr: 1e+30", "lr: 2e-3"))
    jobs = project.would_run(TARGET)
    assert set(jobs) == {"train", "export_adapter", "merge", "evaluate", "study_report"}
    assert jobs["train"] == 1
    project.snakemake(TARGET)
    found = report(project)
    assert [each["state"] for each in found["variants"].values()] == ["complete"] * 2
    assert list(found["settings"]) == ["train.lr"]
    assert [each["key"] for each in found["findings"]] == ["train.lr"]
    assert not (project.folder / "experiments/study/compare/now").exists()
    assert project.would_run(TARGET) == {}
    of_this_page = before.replace("lr: 1e+30", "lr: 2e-3")
    for text, jobs in (
        (of_this_page.replace("every: 100", "every: 99"), {"study_report": 1}),
        ("description: words\n" + of_this_page, {"study_report": 1}),
        ("# a comment\n" + of_this_page, {}),
        (of_this_page.replace("  other: {train: {lr: 2e-3}}\n", ""), {"study_report": 1}),
    ):
        project.study.write_text(text)
        assert project.would_run(TARGET) == jobs
