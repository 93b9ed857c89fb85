"""A merged model in the registry: loaded back, it is the model that transformers loads."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.manifest import write_manifest
from snaketune.tracking import registry
from snaketune.tracking.mlflow_client import connect
from snaketune.tracking.registry import register
from snaketune.tracking.tracked_run import TrackedRun
from tiny_run import Run

PROMPT = [{"role": "user", "content": "Say 3"}]


@pytest.fixture(scope="module")
def done(store, base, data, merge_run, tmp_path_factory):
    """An experiment that was trained and merged."""
    run = Run(tmp_path_factory.mktemp("done"), base, data, lr=1e-2)
    run.mirrored = True
    run.train()
    merge_run(run)
    return run


@pytest.fixture(scope="module")
def registered(done):
    record = done.folder / "registered"
    register(done.folder / "merged", done.output, record)
    return read_json(record)


@pytest.fixture(scope="module")
def loading(store):
    """MLflow's own functions look where this says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
        yield


@pytest.fixture
def downloaded(registered, loading):
    return Path(mlflow.artifacts.download_artifacts(registered["model_uri"]))


def test_a_version_carries_ids_card_and_its_run(client, done, registered):
    found = client.get_model_version("run", "1")
    assert registered["model_uri"] == "models:/run/1"
    assert found.status == "READY"
    assert found.run_id == read_json(done.output / "mlflow.json")["run_id"] == registered["run_id"]
    assert found.tags["train_id"] == "0123456789ab"
    assert found.tags["iteration"] == "24"
    assert found.description.startswith("# run\n")
    assert "license" not in found.description.splitlines()[0]
    outputs = client.get_run(found.run_id).outputs.model_outputs
    assert [client.get_logged_model(each.model_id).status for each in outputs] == ["READY"]


def test_loaded_back_it_has_the_same_logits_and_answers(done, registered, loading):
    loaded = mlflow.transformers.load_model(registered["model_uri"])
    model = AutoModelForCausalLM.from_pretrained(done.folder / "merged")
    tokenizer = AutoTokenizer.from_pretrained(done.folder / "merged")
    batch = tokenizer.apply_chat_template(
        PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    again = loaded.tokenizer.apply_chat_template(
        PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert torch.equal(batch["input_ids"], again["input_ids"])
    with torch.inference_mode():
        assert torch.equal(model(**batch).logits, loaded.model(**again).logits)
    assert loaded.model.dtype == model.dtype
    told = model.generate(**batch, max_new_tokens=8, do_sample=False)
    assert torch.equal(told, loaded.model.generate(**again, max_new_tokens=8, do_sample=False))


def test_served_model_answers_as_transformers_does(done, registered, loading):
    served = mlflow.pyfunc.load_model(registered["model_uri"])
    columns = [column.name for column in served.metadata.signature.inputs]
    assert columns[0] == "messages" and "max_tokens" in columns
    [answer] = served.predict({"messages": PROMPT, "max_tokens": 8})
    model = AutoModelForCausalLM.from_pretrained(done.folder / "merged")
    tokenizer = AutoTokenizer.from_pretrained(done.folder / "merged")
    text = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, tokenize=False)
    batch = tokenizer(text, return_tensors="pt")
    told = model.generate(**batch, max_new_tokens=8, do_sample=False)[0]
    new = told[batch["input_ids"].shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True).lstrip()
    assert answer["choices"][0]["message"]["content"] == expected
    assert len(expected) > 0


def test_requirements_are_pinned_and_no_code_is_in_it(downloaded):
    lines = (downloaded / "requirements.txt").read_text().splitlines()
    assert f"transformers=={version('transformers')}" in lines
    assert all("==" in line for line in lines)
    assert not list(downloaded.rglob("*.py"))
    about = yaml.safe_load((downloaded / "MLmodel").read_text())
    assert about["flavors"]["transformers"]["code"] is None
    assert about["flavors"]["transformers"]["source_model_name"] == "run"
    assert "auto_map" not in read_json(downloaded / "model" / "config.json")
    assert (downloaded / "model_card.md").read_text().startswith("\n# run")
    size = sum(file.stat().st_size for file in downloaded.rglob("*") if file.is_file())
    assert abs(about["model_size_bytes"] - size) < 5000


def test_weights_are_not_stored_twice(done, store, registered):
    weights = done.folder / "merged" / "model.safetensors"
    [stored] = store.rglob("model.safetensors")
    assert os.path.samefile(weights, stored)  # noqa: PTH121


def test_registered_model_has_no_paths_and_secrets(downloaded, done):
    for file in downloaded.rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            assert str(done.folder) not in file.read_text(), file
            assert "sEcReT" not in file.read_text(), file


def test_the_same_model_is_not_registered_twice(client, done, registered):
    record = done.folder / "again"
    register(done.folder / "merged", done.output, record)
    assert read_json(record) == registered
    assert len(client.search_model_versions("name = 'run'")) == 1


def test_damaged_model_is_refused(client, done, registered, tmp_path):
    config = done.folder / "merged" / "config.json"
    before = config.read_text()
    config.write_text(before + " ")
    with pytest.raises(UserError, match="does not match its manifest"):
        register(done.folder / "merged", done.output, tmp_path / "record")
    config.write_text(before)
    assert not (tmp_path / "record").exists()


@pytest.mark.parametrize("kind", ["auto_map", "file"])
def test_a_model_that_needs_code_is_refused(done, registered, tmp_path, kind):
    merged = tmp_path / "merged"
    merged.mkdir()
    mapping = {"auto_map": {"AutoModel": "m.M"}} if kind == "auto_map" else {}
    (merged / "config.json").write_text(json.dumps(mapping))
    if kind == "file":
        (merged / "m.py").write_text("")
    write_manifest(merged)
    with pytest.raises(UserError, match=r"code of its own"):
        register(merged, done.output, tmp_path / "record")


def test_failed_upload_registers_no_version(client, done, store, tmp_path, monkeypatch):
    def lost(*_):
        raise ConnectionError("gone")

    folder = done.folder / "merged"
    monkeypatch.setattr(registry, "_registered", lambda *_: None)
    monkeypatch.setattr(registry, "_store", lost)
    before = len(client.search_model_versions("name = 'run'"))
    with pytest.raises(UserError, match=r"gone(.|\n)*MLFLOW_TRACKING_TOKEN(.|\n)*same command"):
        register(folder, done.output, tmp_path / "record")
    assert not (tmp_path / "record").exists()
    assert len(client.search_model_versions("name = 'run'")) == before


def test_a_server_has_time_to_store_large_weights(done, monkeypatch):
    """It answers when it has them all; metrics must not wait as long for a dead one."""
    waited = []

    def look(self):
        self.client = connect()
        waited.append(MLFLOW_HTTP_REQUEST_TIMEOUT.get())
        raise ConnectionError("enough")

    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "1")  # so that it is as before at the end
        monkeypatch.delenv(name)
    monkeypatch.setattr(TrackedRun, "catch_up", look)
    with pytest.raises(UserError, match="enough"):
        register(done.folder / "merged", done.output, done.folder / "other")
    assert waited == [600]
