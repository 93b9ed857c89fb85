"""Two experiments in the shortest form, against the figures their files were written with."""

import json

import pytest

from snaketune.comparison.pair import compare_pair
from snaketune.comparison.pair_config import read_pair
from snaketune.core.errors import UserError
from snaketune.experiment import load_studies
from study_results import write_results, write_study


def pair(study, one, two):
    """Compare, and read what a program would."""
    found = study.collect()
    return json.loads(json.dumps(compare_pair(found[one], found[two]), allow_nan=False))


def result(found, figure):
    [row] = [row for row in found["results"] if row["figure"] == figure]
    return row


def test_one_field_is_one_line(built):
    found = pair(built, "none", "zero2")
    assert found["settings"] == [{"key": "train.deepspeed", "one": "none", "two": "zero2"}]
    assert found["experiments"] == {"one": "study_none", "two": "study_zero2"}
    assert found["data"] == []
    assert found["heldout_comparable"]


def test_other_data_is_one_setting_with_its_figures(built):
    found = pair(built, "none", "mixed")
    assert [row["key"] for row in found["settings"]] == ["data"]
    rows = {row["figure"]: (row["one"], row["two"]) for row in found["data"]}
    assert rows["sources"] == ("persona", "persona, general")
    assert rows["rows read"] == (12, 24)
    assert rows["samples dropped"] == (3, 6)
    assert rows["samples held out"] == (1, 2)
    assert rows["tokens an epoch"] == (14040, 28080)
    assert "packs" not in rows  # both were written with 55


def test_held_out_losses_of_other_rows_are_not_compared(built):
    row = result(pair(built, "none", "mixed"), "heldout_loss")
    assert (row["one"], row["two"]) == (0.02, 2.5)
    assert row["difference"] is None
    assert row["beyond_chance"] is None
    assert row["incomparable"] == "of different held-out rows"


def test_results_have_their_difference_and_whether_it_is_one(built):
    found = pair(built, "none", "mixed")
    leak = result(found, "probe:leak")
    assert (leak["one"], leak["two"], leak["wanted"]) == (17 / 20, 2 / 20, 0)
    assert leak["difference"] == pytest.approx(-15 / 20)
    assert leak["beyond_chance"]
    assert not result(found, "probe:identity")["beyond_chance"]  # 19 and 20 of 20
    memory = result(pair(built, "none", "zero2"), "peak_rss_bytes")
    assert memory["difference"] == 300 * 2**20
    assert memory["beyond_chance"]


def test_counts_are_told_where_they_differ(built):
    assert result(pair(built, "none", "mixed"), "iterations")["difference"] == 37 - 12
    figures = [row["figure"] for row in pair(built, "none", "zero2")["results"]]
    assert "iterations" not in figures


def test_what_is_not_built_is_told_with_its_command(study):
    study.results("none")
    found = pair(study, "none", "zero2")
    assert found["states"] == {"one": "complete", "two": "not built"}
    assert found["todo"]["two"] == "snakemake experiments/study_zero2/eval/report.json"
    assert found["results"] == []


def test_equal_answers_are_counted(built):
    assert pair(built, "none", "zero2")["answers"] == {"same": 2, "of": 2}
    assert pair(built, "none", "mixed")["answers"] == {"same": 0, "of": 2}


@pytest.fixture
def studies(tmp_path):
    write_study(tmp_path)
    write_study(tmp_path, "model: tiny\ndata: [{dataset: general}]\n", "7")
    return load_studies(tmp_path / "experiments")


@pytest.mark.parametrize("prefix", ["", "experiments/"])
def test_experiments_are_named_with_or_without_their_folder(studies, prefix):
    given = {"one": f"{prefix}study_none", "two": f"{prefix}study_mixed"}
    assert read_pair(given, studies) == ["study_none", "study_mixed"]


def test_a_number_is_a_name_too(studies):
    assert read_pair({"one": 7, "two": "study_none"}, studies) == ["7", "study_none"]


WRONG = {
    "two experiments are needed": {"one": "study_none"},
    "Did you mean 'study_none'?": {"one": "study_nona", "two": "study_mixed"},
    "one and two are both study_none": {"one": "study_none", "two": "study_none"},
}


@pytest.mark.parametrize("message", WRONG)
def test_an_unclear_pair_is_refused(studies, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        read_pair(WRONG[message], studies)


def test_a_broken_study_is_told(tmp_path):
    write_study(tmp_path)
    write_study(tmp_path, "model: tiny\nepoks: 3\n", "broken")
    found = load_studies(tmp_path / "experiments")
    with pytest.raises(UserError, match=r"broken\.yaml:2: epoks: unknown key"):
        read_pair({"one": "study_none", "two": "broken"}, found)


def test_an_earlier_result_of_other_settings_is_no_result(study):
    study.results("none")
    study.write((study.root / "experiments/study.yaml").read_text().replace("3e-4", "4e-4"))
    write_results(study.root, study.experiments()["zero2"])
    found = pair(study, "none", "zero2")
    assert found["results"] == []
    assert found["states"]["one"] != "complete"
