import pytest

from snaketune.core.errors import UserError
from snaketune.experiment import train_id
from snaketune.experiment.resolved import load_resolved, read_resolved, resolved_values, to_yaml

STUDY = """\
description: "名字: with a colon"
model: tiny
data: [{dataset: rows}]
train: {lr: 1e-4}
sample: {prompts: ["no", "1e3", "你好"]}
"""


@pytest.fixture
def experiment(load):
    return load(STUDY).experiments["a"]


def test_what_is_written_is_read_back_the_same(experiment, tmp_path):
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(resolved_values(experiment)), encoding="utf-8")
    found = read_resolved(path)
    assert found.config == experiment.config
    assert (found.name, found.train_id) == ("a", train_id(experiment))
    assert found.prompts == ["no", "1e3", "你好"]
    assert found.persona is None
    assert found.values == resolved_values(experiment)


def test_every_default_is_written_out(experiment):
    values = resolved_values(experiment)
    assert values["config"]["train"]["max_grad_norm"] == 1.0
    assert values["config"]["template"] == "auto"
    assert values["versions"]["torch"]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "name: x", "config: {model: 3}"])
def test_a_file_edited_into_something_else_is_refused(tmp_path, text):
    path = tmp_path / "resolved.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"not a resolved experiment(.|\n)*Fix: delete it"):
        read_resolved(path)


def test_a_missing_file_is_told_with_its_target(tmp_path):
    with pytest.raises(UserError, match=r"is missing(.|\n)*snakemake"):
        read_resolved(tmp_path / "resolved.yaml")


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "study.yaml").write_text(
        "model: {source: ./tiny}\ndata: [{path: x, format: alpaca}]"
    )
    assert load_resolved("study").name == "study"
    with pytest.raises(UserError, match=r"no experiment 'studi'.*Did you mean 'study'"):
        load_resolved("studi")
