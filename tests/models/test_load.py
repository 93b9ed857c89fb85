"""The precision chosen for each machine, and a base model held in 4 bits."""

from pathlib import Path

import bitsandbytes
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from snaketune.core import machine as machine_facts
from snaketune.core.files import read_json
from snaketune.experiment.schema import Export
from snaketune.export.merge import BOUNDS, merge
from snaketune.models.load_model import choose_precision, load_model, load_tokenizer

CPUS = {
    "Sapphire Rapids": ("flags : avx512f avx512_bf16 amx_bf16 amx_tile", "bfloat16", "avx512_bf16"),
    "AMX alone": ("flags : avx2 amx_bf16", "bfloat16", "amx_bf16"),
    "Neoverse V1": ("Features : asimd bf16 sve", "bfloat16", "bf16"),
    "Skylake": ("flags : avx2 avx512f", "float32", "no bf16"),
    "SVE's own bf16 only": ("Features : svebf16", "float32", "no bf16"),
    "no /proc/cpuinfo": (None, "float32", "no bf16"),
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that pretends to be a CPU, or a GPU with or without bf16."""

    def pretend(cpuinfo: str | None, gpu_bf16: bool | None = None) -> None:
        if cpuinfo is not None:
            (tmp_path / "cpuinfo").write_text(cpuinfo)
        monkeypatch.setattr(machine_facts, "Path", lambda _: tmp_path / "cpuinfo")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_bf16 is not None)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: gpu_bf16)

    return pretend


@pytest.mark.parametrize("cpu", CPUS)
def test_auto_on_a_cpu(machine, cpu):
    cpuinfo, dtype, reason = CPUS[cpu]
    machine(cpuinfo)
    found, told = choose_precision("auto")
    assert found == getattr(torch, dtype)
    assert reason in told


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_on_a_gpu_asks_the_gpu_and_not_the_cpu(machine, bf16, dtype):
    machine("flags: " + ("" if bf16 else "avx512_bf16"), gpu_bf16=bf16)
    assert choose_precision("auto") == (dtype, f"the GPU has {'' if bf16 else 'no '}bf16")


@pytest.mark.parametrize(("asked", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_what_the_experiment_says_wins_over_the_machine(machine, asked, dtype):
    machine("flags: avx512_bf16" if asked == "fp32" else "")
    assert choose_precision(asked)[0] == dtype


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(base, tmp_path):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (base / file).read_text().replace('"pad_token": "<|im_end|>"', '"x": 1')
        (tmp_path / file).write_text(text)
    tokenizer = load_tokenizer(tmp_path, chat_template="own")
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<|im_end|>", "left")
    assert tokenizer.chat_template == "own"


@pytest.fixture(scope="module")
def quantized(base):
    return load_model(base, torch.float32, torch.device("cpu"), quantization="nf4")


def test_qlora_holds_every_linear_layer_but_the_output_in_nf4(base, quantized):
    plain = load_model(base, torch.float32, torch.device("cpu"))
    linear = {n for n, m in plain.named_modules() if isinstance(m, torch.nn.Linear)}
    in_4bit = {
        name: module.weight
        for name, module in quantized.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    }
    assert in_4bit.keys() == linear - {"lm_head"}
    for name, weight in in_4bit.items():
        original = plain.get_submodule(name).weight
        assert (weight.quant_state.quant_type, weight.quant_state.nested) == ("nf4", True)
        assert weight.nbytes * 8 == original.numel() * 4
        error = bitsandbytes.functional.dequantize_4bit(weight, weight.quant_state) - original
        assert 0 < error.std() < 0.15 * original.std()  # NF4 of a normal distribution: 0.1


def test_qlora_merges_into_the_unquantised_base(run, base, tmp_path, monkeypatch):
    done = run(method={"name": "qlora"}, lr=1e-2, epochs=6).train()
    updates = [row["update_loss"] for row in done.updates()]
    assert updates[-1] < 0.7 * updates[0]
    plain = run("plain", lr=1e-2, epochs=6).train().updates()
    assert updates[0] != plain[0]["update_loss"]  # it is not the unquantised base that learned
    adapter, merged = done.export(), tmp_path / "merged"
    monkeypatch.setitem(BOUNDS, torch.bfloat16, (1, 0))
    merge(base, adapter, merged, export=Export(merge_into="original"))
    ids = torch.arange(3, 100)[None]
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
        torch.testing.assert_close(found, both(ids).logits, atol=1e-3, rtol=0)
    assert read_json(merged / "snaketune.json")["method"]["name"] == "qlora"
    assert "quantization_config" not in read_json(merged / "config.json")


def test_a_model_on_disk_is_read_from_safetensors_alone(base, tmp_path):
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            Path(tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_model(tmp_path, torch.float32, torch.device("cpu"))
