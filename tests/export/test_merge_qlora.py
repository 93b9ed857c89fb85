"""QLoRA's two bases: which one loses less, and what must stop a merge that loses the fine-tune."""

import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.manifest import write_manifest
from snaketune.data.storage import Packs
from snaketune.experiment.schema import Export
from snaketune.export.agreement import heldout_loss
from snaketune.export.merge import QUANTIZED_BOUND, merge
from snaketune.export.model_assembly import without_weights
from snaketune.export.quantized import quantized_layers, rounding
from snaketune.models.load_model import load_model
from tiny_run import write_data

CPU = torch.device("cpu")
CHOICES = ("original", "dequantized")
FOUR_BITS = {"name": "qlora", "r": 64, "alpha": 64, "dropout": 0.0}


@pytest.fixture(scope="module")
def held_out(base, tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), base, rows=40, heldout=0.2)


@pytest.fixture
def adapter(run, held_out):
    return run("fine", data=held_out, method=FOUR_BITS, lr=5e-3).train().export()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "merged"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
def test_weights_are_rounded_as_bitsandbytes_holds_them(base, quantization, dtype):
    from bitsandbytes.functional import dequantize_4bit

    held = load_model(base, dtype, CPU, quantization)
    layers = quantized_layers(without_weights(base), quantization)
    assert len(layers) == 14  # 7 in each of 2 layers, and not the output layer
    weights = AutoModelForCausalLM.from_pretrained(base).state_dict()
    for name in layers:
        parameter = held.get_parameter(name)
        expected = dequantize_4bit(parameter.data, parameter.quant_state)
        assert torch.equal(rounding(quantization, dtype)(weights[name]), expected)


def test_int8_weights_are_rounded_to_a_255th_of_their_rows_largest(base):
    weight = AutoModelForCausalLM.from_pretrained(base).model.layers[0].mlp.up_proj.weight.detach()
    step = weight.abs().amax(1, keepdim=True) / 127
    found = rounding("int8", torch.float32)(weight)
    assert ((found - weight).abs() <= 0.6 * step).all()  # 0.1 for the cast to fp16 before
    assert len(found[0].unique()) <= 255
    assert not torch.equal(found, weight)


def test_all_three_figures_are_those_of_real_models(base, adapter, held_out, output):
    heldout = held_out / "heldout.arrow"
    merge(base, adapter, output, heldout=heldout)
    told = read_json(output / "snaketune.json")["merge"]
    bases = {name: row["heldout_loss"] for name, row in told["bases"].items()}
    as_trained = PeftModel.from_pretrained(load_model(base, torch.float32, CPU, "nf4"), adapter)
    plain = PeftModel.from_pretrained(load_model(base, torch.float32, CPU), adapter)
    loss = {
        name: heldout_loss(model, Packs(heldout), CPU)["loss"]
        for name, model in (("as_trained", as_trained), ("original", plain))
    }
    assert bases["as_trained"] == pytest.approx(loss["as_trained"], abs=1e-5)
    assert bases["original"] == pytest.approx(loss["original"], abs=1e-5)
    assert bases["dequantized"] == pytest.approx(loss["as_trained"], abs=1e-5)
    assert (
        told["bases"]["original"]["difference"] > 100 * told["bases"]["dequantized"]["difference"]
    )


@pytest.mark.parametrize("wanted", CHOICES)
def test_the_wanted_base_is_merged_into(base, adapter, output, held_out, wanted, monkeypatch):
    monkeypatch.setattr("snaketune.export.merge.QUANTIZED_BOUND", 1)
    merge(base, adapter, output, None, held_out / "heldout.arrow", Export(merge_into=wanted))
    found = load_file(output / "model.safetensors")
    name, lora = "model.layers.1.mlp.down_proj", load_file(adapter / "adapter_model.safetensors")
    a, b = (lora[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    weight = load_file(base / "model.safetensors")[f"{name}.weight"]
    before = weight if wanted == "original" else rounding("nf4", torch.float32)(weight)
    assert torch.equal(found[f"{name}.weight"], before + b @ a)
    assert read_json(output / "snaketune.json")["merge"]["merged_into"] == wanted


def test_weights_rounded_in_fewer_bits_are_merged_in_the_bases_dtype(run, base, held_out, output):
    short = run("short", data=held_out, method=FOUR_BITS, precision="bf16").train().export()
    merge(base, short, output, None, held_out / "heldout.arrow", Export(merge_into="dequantized"))
    dtypes = {tensor.dtype for tensor in load_file(output / "model.safetensors").values()}
    assert dtypes == {torch.float32}


def test_auto_takes_the_base_that_loses_less(base, adapter, output, held_out):
    merge(base, adapter, output, heldout=held_out / "heldout.arrow")
    told = read_json(output / "snaketune.json")["merge"]
    bases = {name: told["bases"][name]["heldout_loss"] for name in CHOICES}
    assert told["merged_into"] == min(bases, key=bases.get)


@pytest.fixture
def compensating(base, adapter, held_out, output, tmp_path):
    """A base that 4 bits ruin, and an adapter that makes up for it: their sum is well trained."""
    merge(base, adapter, output, None, held_out / "train.arrow", Export(merge_into="dequantized"))
    wanted = load_file(output / "model.safetensors")
    shutil.rmtree(output)
    coarse = shutil.copytree(base, tmp_path / "coarse")
    weights, lora = load_file(coarse / "model.safetensors"), {}
    for name in quantized_layers(without_weights(base), "nf4"):
        weights[name][:, ::32] = 20  # for the others of its block 4 bits leave 0 or 1.6
        left, scale, right = torch.linalg.svd(
            wanted[name] - rounding("nf4", torch.float32)(weights[name]), full_matrices=False
        )
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        lora[f"{layer}.lora_A.weight"], lora[f"{layer}.lora_B.weight"] = right, left * scale
    save_file(weights, coarse / "model.safetensors", {"format": "pt"})
    for key, tensor in lora.items():
        width = tensor.shape[0] if "lora_A" in key else tensor.shape[1]
        padding = (0, 0, 0, 64 - width) if "lora_A" in key else (0, 64 - width)
        lora[key] = torch.nn.functional.pad(tensor, padding).contiguous()
    made = shutil.copytree(adapter, tmp_path / "compensating")
    save_file(lora, made / "adapter_model.safetensors", {"format": "pt"})
    write_manifest(made)
    return coarse, made


def test_the_wrong_base_loses_the_fine_tune_and_fails(compensating, held_out, output):
    base, adapter = compensating
    trained_on = held_out / "train.arrow"
    with pytest.raises(UserError, match=r"merged into the original base, the fine-tune is lost"):
        merge(base, adapter, output, None, trained_on, Export(merge_into="original"))
    assert not output.exists()
    merge(base, adapter, output, None, trained_on)
    told = read_json(output / "snaketune.json")["merge"]
    loss = {name: row["heldout_loss"] for name, row in told["bases"].items()}
    assert told["merged_into"] == "dequantized"
    assert loss["original"] > loss["as_trained"] + 10 * QUANTIZED_BOUND
    assert loss["dequantized"] == pytest.approx(loss["as_trained"], abs=1e-3)


def test_without_held_out_rows_the_logits_decide(compensating, output):
    base, adapter = compensating
    merge(base, adapter, output)
    told = read_json(output / "snaketune.json")["merge"]
    assert told["merged_into"] == "dequantized"
    assert told["bases"]["as_trained"]["heldout_loss"] is None
    with pytest.raises(UserError, match=r"fine-tune is lost: the logits differ by \d"):
        merge(base, adapter, output, export=Export(merge_into="original"))
