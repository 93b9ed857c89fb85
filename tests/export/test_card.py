"""The model card: what a hub reads of it, and what a person can copy from it."""

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from snaketune.core.files import read_json, write_json
from snaketune.experiment.resolved import read_resolved
from snaketune.export.card import write_card
from snaketune.export.export_adapter import export_adapter
from snaketune.export.merge import merge
from snaketune.export.model_record import ModelRecord


@pytest.fixture(scope="module")
def experiment(trained):
    resolved = read_resolved(trained.resolved)
    source = {"label": "rows.jsonl", "weight": 0.5}
    base = {"source": "hf:org/tiny", "license": "Apache-2.0"}
    resolved.values.update(sources=[source], base=base)
    return resolved


@pytest.fixture(scope="module")
def adapter(trained, base, experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "adapter"
    export_adapter(trained.output / "last.pth", base, folder, experiment)
    return folder


@pytest.fixture(scope="module")
def merged(base, adapter, experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "merged"
    merge(base, adapter, folder, experiment)
    return folder


def test_a_hub_reads_base_licence_and_kind(adapter, merged):
    data = ModelCard.load(adapter / "README.md").data
    assert (data.base_model, data.base_model_relation) == ("org/tiny", "adapter")
    assert (data.license, data.library_name) == ("apache-2.0", "peft")
    assert data.pipeline_tag == "text-generation" and "lora" in data.tags
    data = ModelCard.load(merged / "README.md").data
    assert (data.base_model_relation, data.library_name) == ("finetune", "transformers")


@pytest.mark.parametrize(
    ("text", "licence", "name"),
    [
        ("", None, None),
        ("MIT", "mit", None),
        ("Llama3", "llama3", None),
        ("InternLM (free for research)", "other", "internlm-free-for-research"),
        ("Meta Llama 3 Community License", "other", "meta-llama-3-community-license"),
    ],
)
def test_a_licence_the_hub_does_not_know_is_named_beside(
    trained, base, experiment, tmp_path, text, licence, name
):
    record = ModelRecord.of(trained.export())
    values = experiment.values | {"base": experiment.values["base"] | {"license": text}}
    write_card(tmp_path, "adapter", record, replace(experiment, values=values), base)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.license_name) == (licence, name)
    assert (f"| licence of the base | {text} |" in card.text) == bool(text)


def test_it_tells_data_method_and_figures(adapter, trained):
    text = (adapter / "README.md").read_text()
    figures = read_json(trained.output / "train.json")
    assert "| data | rows.jsonl, weight 0.5 |" in text
    assert "| method | lora, r 4, alpha 16, dropout 0.1, on all-linear |" in text
    assert f"{figures['first_loss']:.3f} → {figures['last_loss']:.3f}" in text
    assert "24 iterations, 8 updates" in text


def test_a_merged_card_tells_the_check(merged):
    difference = read_json(merged / "snaketune.json")["merge"]["difference"]
    assert (
        f"logits differ by {difference:.2g} of their deviation"
        in (merged / "README.md").read_text()
    )


def test_an_earlier_iteration_has_no_figures_of_the_end(trained, base, experiment, tmp_path):
    export_adapter(trained.output / "iter_8.pth", base, tmp_path / "adapter", experiment)
    text = (tmp_path / "adapter/README.md").read_text()
    assert "| trained | up to iteration 8 |" in text
    assert "training loss" not in text


def test_the_code_in_it_runs(merged, monkeypatch, capsys):
    [code] = re.findall(r"```python\n(.*?)```", (merged / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(merged)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_adapters_code_runs_with_the_base_named(adapter, base, monkeypatch, capsys):
    [code] = re.findall(r"```python\n(.*?)```", (adapter / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(adapter)
    source = read_json(base / "provenance.json")["source"].rpartition("/")[2]
    assert f'"{source}"  # or a folder' in code
    exec(compile(code.replace(f'"{source}"', repr(str(base))), "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_an_adapters_code_names_the_bases_revision(trained, base, experiment, tmp_path):
    provenance = read_json(base / "provenance.json")
    write_json(
        tmp_path / "provenance.json", provenance | {"source": "hf:org/tiny", "revision": "abc"}
    )
    record = ModelRecord.of(trained.export())
    write_card(tmp_path, "adapter", record, experiment, tmp_path)
    assert (
        'from_pretrained(base, revision="abc", dtype="auto")'
        in (tmp_path / "README.md").read_text()
    )


def test_no_path_of_this_machine_is_in_it(trained, base, experiment, tmp_path):
    provenance = read_json(base / "provenance.json")
    other = tmp_path / "other"
    other.mkdir()
    for file in base.iterdir():
        (other / file.name).symlink_to(file)
    (other / "provenance.json").unlink()
    write_json(other / "provenance.json", provenance | {"source": "/home/ada/models/tiny"})
    record = ModelRecord.of(trained.export())
    write_card(tmp_path, "merged", record, experiment, other)
    text = (tmp_path / "README.md").read_text()
    assert "`tiny`" in text and "/home" not in text


def test_loading_it_in_transformers_needs_nothing_else(merged):
    assert AutoModelForCausalLM.from_pretrained(merged).generation_config.eos_token_id
