"""What `--config target=...` may be."""

import pytest

from snaketune.core.errors import UserError
from snaketune.experiment import load_studies
from snaketune.planning.plan_targets import read_targets
from study_results import write_study


@pytest.fixture
def studies(tmp_path):
    write_study(tmp_path)
    return load_studies(tmp_path / "experiments")


FIRST, SECOND = "experiments/study_none/merged", "experiments/study_mixed/adapter"


@pytest.mark.parametrize(
    "given",
    [f"{FIRST} {SECOND}", f"{FIRST},{SECOND}", f" {FIRST}, ./{SECOND} {FIRST}", [FIRST, SECOND]],
)
def test_several_targets_are_separated_by_spaces_or_commas(studies, given):
    assert read_targets({"target": given}, studies) == [FIRST, SECOND]


@pytest.mark.parametrize("given", [{}, {"target": None}, {"target": " ,"}])
def test_no_target_is_told_how_to_name_one(studies, given):
    with pytest.raises(UserError, match=r"snakemake plan --config target=experiments/study_none/"):
        read_targets(given, studies)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("experiments/study_non/merged", "Did you mean 'study_none'"),
        ("experiments/study_none/mergd", "Did you mean 'merged'"),
        (f"{FIRST} experiments/nothing/merged", "no experiment 'nothing'"),
    ],
)
def test_a_target_that_cannot_be_built_is_explained(studies, target, message):
    with pytest.raises(UserError, match=message):
        read_targets({"target": target}, studies)


def test_other_targets_are_left_to_snakemake(studies):
    assert read_targets({"target": "list"}, studies) == ["list"]
    assert read_targets({"target": 7}, studies) == ["7"]
