"""The adapter on disk is the adapter that was trained, readable by plain PEFT."""

import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, sha256
from snaketune.experiment.resolved import read_resolved
from snaketune.export.export_adapter import export_adapter
from snaketune.models.checkpoint import load_checkpoint
from snaketune.training import train_run

IDS = torch.arange(3, 100)[None]


def plain(base, adapter):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)


def test_plain_peft_gives_the_logits_of_the_trained_model(run, base, monkeypatch):
    build, trainers = train_run.build_trainer, []

    def remember(*arguments):
        trainers.append(build(*arguments))
        return trainers[0]

    monkeypatch.setattr(train_run, "build_trainer", remember)
    adapter = run(lr=1e-2).train().export()
    trained = trainers[0][0].model.eval()
    with torch.no_grad():
        found, expected = plain(base, adapter)(IDS).logits, trained(IDS).logits
        without = AutoModelForCausalLM.from_pretrained(base)(IDS).logits
    assert torch.equal(found, expected)
    assert (without - expected).std() > 0.1 * expected.std()


def test_the_adapter_brings_tokenizer_template_and_origin(trained, base):
    adapter = trained.export()
    about = read_json(adapter / "snaketune.json")
    ids = [
        AutoTokenizer.from_pretrained(folder)("Hi <|im_end|>").input_ids
        for folder in (adapter, base)
    ]
    assert ids[0] == ids[1]
    assert (adapter / "chat_template.jinja").read_text() == about["template"]["text"]
    assert (about["iteration"], about["train_id"]) == (24, "0123456789ab")
    assert about["method"] == read_resolved(trained.resolved).config.method.model_dump()
    assert read_json(adapter / "adapter_config.json")["base_model_name_or_path"] == str(base)


def test_a_hub_base_is_named_by_its_repository_and_revision(trained, base, tmp_path):
    hub = shutil.copytree(base, tmp_path / "hub")
    (hub / "provenance.json").write_text('{"source": "hf:org/tiny", "revision": "abc"}')
    state = torch.load(trained.output / "last.pth", weights_only=True)
    state["about"]["base_sha256"] = sha256(hub / "provenance.json")
    torch.save(state, tmp_path / "hub.pth")
    export_adapter(tmp_path / "hub.pth", hub, tmp_path / "adapter")
    config = read_json(tmp_path / "adapter" / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", "abc")


def test_an_iteration_is_exported_as_it_was_then(trained, base):
    then = load_checkpoint(trained.output / "iter_8.pth")["weights"]
    adapter = trained.export("8")
    found = plain(base, adapter).state_dict()
    for name, tensor in then.items():
        assert torch.equal(found[name.replace(".weight", ".default.weight")], tensor)
    assert any(not torch.equal(tensor, trained.adapter()[name]) for name, tensor in then.items())
    assert read_json(adapter / "snaketune.json")["iteration"] == 8


def test_an_iteration_that_is_not_kept_lists_those_that_are(trained, base, tmp_path):
    with pytest.raises(UserError, match=r"iter_9.pth .*kept are iterations 4, 8, 12, 16, 20, 24\."):
        export_adapter(trained.output / "iter_9.pth", base, tmp_path / "adapter")


def test_nothing_kept_is_said(base, tmp_path):
    with pytest.raises(UserError, match="kept are iterations none"):
        export_adapter(tmp_path / "last.pth", base, tmp_path / "adapter")


def test_another_base_is_refused(trained, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    (other / "provenance.json").write_text('{"source": "./other", "revision": null}')
    with pytest.raises(UserError, match="trained on base model tiny, not on"):
        export_adapter(trained.output / "last.pth", other, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_refused(trained, base, tmp_path, damage):
    content = bytearray((trained.output / "last.pth").read_bytes())
    content[len(content) // 2] ^= 1
    kept = {"truncated": content[:-100], "flipped": content, "empty": b""}
    (tmp_path / "a.pth").write_bytes(kept[damage])
    with pytest.raises(UserError, match=r"the checkpoint .*a.pth cannot be used"):
        export_adapter(tmp_path / "a.pth", base, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


class Bomb:
    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self):
        return Path.touch, (self.fuse,)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(container, base, tmp_path):
    path, fuse = tmp_path / "a.pth", tmp_path / "run"
    if container == "torch":
        torch.save({"iteration": 1, "weights": Bomb(fuse)}, path)
        torch.load(path, weights_only=False)
        assert fuse.exists()  # it would run
        fuse.unlink()
    else:
        path.write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(UserError, match=r"a\.pth"):
        export_adapter(path, base, tmp_path / "adapter")
    assert not fuse.exists()


def test_a_zip_that_is_no_checkpoint_is_refused(base, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UserError, match="not a checkpoint of SnakeTune"):
        export_adapter(tmp_path / "a.pth", base, tmp_path / "adapter")
