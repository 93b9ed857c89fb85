"""Merging the embedded model against PEFT's own merge, with random LoRA weights."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from snaketune.core.files import sha256
from snaketune.data.template import ChatTemplate
from snaketune.experiment.schema import Export, Method
from snaketune.export.export_adapter import export_adapter
from snaketune.export.merge import Check, merge
from snaketune.models.checkpoint import save_checkpoint
from snaketune.models.trainable import make_trainable, trained_weights

METHODS = {
    "lora": {"r": 64},
    "dora": {"r": 16, "dora": True},
}


def random_adapter(base, folder, method):
    """Write an adapter as if it had been trained, every tensor of it random."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    weights = trained_weights(make_trainable(model, method, seed=0))
    weights = {n: w * 0.9 + 0.02 * torch.randn(w.shape) for n, w in weights.items()}
    about = {"name": "random", "base_id": base.name, "precision": "float32"}
    about |= {"train_id": "0" * 12, "base_sha256": sha256(base / "provenance.json")}
    about |= {"method": method.model_dump()}
    about |= {"template": ChatTemplate(base, "auto").record().model_dump()}
    save_checkpoint(folder / "last.pth", {"iteration": 1, "weights": weights, "about": about})
    export_adapter(folder / "last.pth", base, folder / "adapter")
    return folder / "adapter"


@pytest.mark.pipeline
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_equals_pefts_own_merge_bit_for_bit(embedded, tmp_path, method, monkeypatch):
    unchecked = dict.fromkeys(("difference", "bound", "equal_tokens", "equal_tokens_bound"), 0)
    unchecked["dtype"] = "float32"
    monkeypatch.setattr(Check, "verify", lambda *_: unchecked)
    adapter = random_adapter(embedded, tmp_path, Method(name="lora", **method))
    merge(embedded, adapter, tmp_path / "fp32", export=Export(dtype="fp32", max_shard_size="100MB"))
    plain = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32)
    before = plain.lm_head.weight.clone(), plain.model.layers[29].mlp.down_proj.weight.clone()
    expected = PeftModel.from_pretrained(plain, adapter).merge_and_unload().state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "fp32", dtype="auto").state_dict()
    assert found.keys() == expected.keys()
    assert all(map(torch.equal, found.values(), expected.values()))
    assert torch.equal(found["lm_head.weight"], before[0])
    assert not torch.allclose(found["model.layers.29.mlp.down_proj.weight"], before[1], atol=1e-3)
