"""Every checkpoint in place against its adapter, exported and loaded by PEFT and transformers."""

import logging
import shutil
from itertools import pairwise

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from snaketune.core.errors import UserError
from snaketune.core.layout import RunPaths
from snaketune.evaluation.evaluated_models import columns, measure_each
from snaketune.export.model_folder import record_of_checkpoint
from snaketune.models.checkpoint import load_checkpoint, save_checkpoint

IDS = torch.tensor([[1, 40, 50, 60, 70, 2, 80, 90]])
METHODS = {
    "lora": {},
    "dora": {"dora": True},
    "layers trained whole": {"modules_to_save": ["lm_head"]},
    "qlora": {"name": "qlora"},
    "full": {"name": "full"},
}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def measured(run, base, merged=None, folder=None, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """The logits of every evaluated model."""
    last = run.output / "last.pth"
    record = record_of_checkpoint(last, load_checkpoint(last))

    def measure(_, model):
        assert not model.training
        return logits(model)

    folder = folder or run.output
    return measure_each(base, merged or base, record, folder, dtype, measure)


def plain(base, run, iteration) -> torch.Tensor:
    """The logits of a checkpoint by transformers and PEFT alone."""
    state = torch.load(run.output / f"iter_{iteration}.pth", weights_only=True)
    method = state["about"]["method"]["name"]
    config = None
    if method == "qlora":
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        )
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config)
    if config:
        model = model.dequantize()  # bitsandbytes' own kernel for CPUs rounds what goes in too
    if method == "full":
        state["weights"]["lm_head.weight"] = state["weights"]["model.embed_tokens.weight"]
        model.load_state_dict(state["weights"])
        return logits(model.eval())
    return logits(PeftModel.from_pretrained(model, run.export(iteration)).eval())


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained.output, tmp_path / "checkpoints")


@pytest.mark.parametrize("method", METHODS)
def test_checkpoints_agree_with_peft_and_transformers(method, run, base):
    trained = run(method=METHODS[method], lr=1e-2, keep=9, save_every=9).train()
    found = measured(trained, base)
    assert list(found) == ["base", "iter_9", "iter_18", "iter_24", "merged"]
    assert torch.equal(found["base"], logits(AutoModelForCausalLM.from_pretrained(base)))
    for iteration in (9, 18, 24):
        expected = plain(base, trained, iteration)
        torch.testing.assert_close(found[f"iter_{iteration}"], expected, rtol=1e-4, atol=1e-4)
    apart = [found["base"], *(found[f"iter_{n}"] for n in (9, 18, 24))]
    for one, other in pairwise(apart):
        assert (one - other).abs().max() > 0.01


def test_modules_to_save_with_a_bfloat16_base(run, base):
    method = METHODS["layers trained whole"]
    trained = run(method=method, lr=1e-2, keep=9, save_every=9).train()
    exact, rounded = (measured(trained, base, dtype=d) for d in (torch.float32, torch.bfloat16))
    for name, found in rounded.items():
        torch.testing.assert_close(found, exact[name], rtol=0.1, atol=0.1 * exact[name].std())


def test_damaged_checkpoints_are_skipped(copied, trained, base, caplog):
    half = (copied / "iter_8.pth").read_bytes()
    (copied / "iter_8.pth").write_bytes(half[: len(half) // 2])
    (copied / "iter_12.pth").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "snaketune"):
        found = measured(trained, base, folder=copied)
    assert list(found) == ["base", "iter_4", "iter_16", "iter_20", "iter_24", "merged"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "iter_8.pth cannot be used" in told[0] and "iter_12" in told[1]


def test_checkpoints_of_another_training_are_skipped(copied, trained, base, caplog):
    for number, key in [(4, "train_id"), (8, "data_sha256")]:
        state = load_checkpoint(copied / f"iter_{number}.pth")
        changed = state | {"about": state["about"] | {key: "other"}}
        (copied / f"iter_{number}.pth").unlink()
        save_checkpoint(copied / f"iter_{number}.pth", changed)
    (copied / "superseded" / "x").mkdir(parents=True)
    shutil.copyfile(copied / "iter_16.pth", copied / "superseded" / "x" / "iter_17.pth")
    with caplog.at_level(logging.WARNING, "snaketune"):
        found = measured(trained, base, folder=copied)
    assert list(found) == ["base", "iter_12", "iter_16", "iter_20", "iter_24", "merged"]
    assert "iter_4.pth is a checkpoint of another training" in caplog.text


def test_last_checkpoint_replaces_its_deleted_file(copied, trained, base):
    for file in RunPaths(copied).kept().values():
        file.unlink()
    found = measured(trained, base, folder=copied)
    assert list(found) == ["base", "iter_24", "merged"]
    assert torch.equal(found["iter_24"], measured(trained, base)["iter_24"])


def test_model_merged_of_an_earlier_checkpoint(copied, trained, base):
    last = load_checkpoint(copied / "last.pth")
    record = record_of_checkpoint(copied / "last.pth", last)
    record = record.model_copy(update={"iteration": 8})

    def found():
        return measure_each(
            base, base, record, copied, torch.float32, lambda _, model: logits(model)
        )

    expected, every = measured(trained, base), found()
    assert list(every) == list(expected)
    assert torch.equal(every["iter_8"], expected["iter_8"])
    (copied / "iter_8.pth").unlink()
    assert "iter_8" not in found()


@pytest.mark.parametrize("with_checkpoints", [True, False])
def test_other_base_is_refused(with_checkpoints, copied, trained, bases):
    last = copied / "last.pth"
    record = record_of_checkpoint(last, load_checkpoint(last))
    record = record.model_copy(update={"base_sha256": "0" * 64})
    with pytest.raises(UserError, match="was trained on base model"):
        measure_each(
            trained.base,
            trained.base,
            record,
            copied if with_checkpoints else None,
            torch.float32,
            lambda name, _: name,
        )


def test_columns_have_iterations():
    found = columns(["base", "iter_20", "iter_100", "merged"], 20)
    assert [(column.name, column.iteration) for column in found] == [
        ("base", 0),
        ("iter_20", 20),
        ("iter_100", 100),
        ("merged", 20),
    ]
