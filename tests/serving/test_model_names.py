"""What `--config experiment=X` may be, for every program that talks to a model."""

import pytest

from snaketune.core.errors import UserError
from snaketune.experiment import load_studies
from snaketune.serving.model_names import read_model, read_models, weights_of
from study_results import write_study


@pytest.fixture
def studies(tmp_path):
    write_study(tmp_path)
    (tmp_path / "experiments/whole.yaml").write_text(
        "model: tiny\nmethod: {name: full}\ndata: [{dataset: general}]\n"
    )
    return load_studies(tmp_path / "experiments")


@pytest.mark.parametrize(
    ("config", "models"),
    [
        ({"experiment": "study_none"}, ["study_none"]),
        ({"experiment": "experiments/study_none/"}, ["study_none"]),
        ({"experiment": "study_none,study_mixed"}, ["study_none", "study_mixed"]),
        ({"experiment": ["study_none", "study_none"]}, ["study_none"]),
        ({"experiment": "study_none", "model": "iter_15"}, ["study_none/iter_15"]),
        ({"experiment": "study_none", "model": "study_none/iter_15"}, ["study_none/iter_15"]),
        ({"model": "study_none/iter_15 study_mixed"}, ["study_none/iter_15", "study_mixed"]),
    ],
)
def test_models_are_named_as_the_endpoint_has_them(studies, config, models):
    assert read_models(config, studies, "demo") == models


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"snakemake demo --config experiment=study_none"),
        ({"experiment": None}, "no model specified"),
        ({"experiment": 7}, "no experiment '7'"),
        ({"experiment": "study_non"}, "Did you mean 'study_none'"),
        ({"experiment": "study"}, r"study is a study of .*(?s:.)*experiment=study_none"),
        ({"experiment": "study_none", "model": "iter_x"}, "'iter_x'"),
        ({"experiment": "study_none", "model": "study_none/15"}, "study_none/iter_N"),
        ({"experiment": "study_none,study_mixed", "model": "iter_15"}, "no experiment 'iter_15'"),
        ({"experiments": "study_none"}, r"no setting 'experiments'. Did you mean 'experiment'"),
    ],
)
def test_unknown_model_names_are_explained(studies, config, message):
    with pytest.raises(UserError, match=message):
        read_models(config, studies, "demo")


def test_several_models_are_refused_for_one(studies):
    assert read_model({"experiment": "study_none"}, studies, "chat") == "study_none"
    with pytest.raises(UserError, match="talks to one model"):
        read_model({"experiment": "study_none,study_mixed"}, studies, "chat")


def test_the_weights_are_an_adapter_or_all_of_a_full_fine_tune(studies):
    assert weights_of("study_none", studies) == "experiments/study_none/adapter"
    assert weights_of("study_none/iter_15", studies) == "experiments/study_none/iter_15/adapter"
    assert weights_of("whole", studies) == "experiments/whole/merged"
