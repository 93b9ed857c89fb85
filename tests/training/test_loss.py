"""The loss and its gradient against plain transformers + PEFT, one sample at a time."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from snaketune.data.storage import Packs
from snaketune.data.template import IGNORE
from snaketune.experiment.schema import Method
from snaketune.models.load_model import load_model
from snaketune.models.packed import flatten, loss_sum
from snaketune.models.trainable import make_trainable, trainable_parameters
from snaketune.training import trainer

METHOD = Method(name="lora", r=4, alpha=8, dropout=0.0)


@pytest.fixture(scope="module")
def packs(make_data):
    return Packs(make_data(pack=True) / "train.arrow")


def reference(base, packs, attention):
    """Return the token-weighted loss and gradient norm, each sample in a batch of its own."""
    torch.manual_seed(7)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    plain = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation=attention
    )
    model = get_peft_model(plain, config)
    total, tokens = 0.0, 0
    for pack in packs:
        start = 0
        for length in pack.lengths.tolist():
            ids = torch.tensor(pack.input_ids[start : start + length].tolist())[None]
            labels = torch.tensor(pack.labels[start : start + length].tolist())[None]
            count = int((labels[:, 1:] != IGNORE).sum())
            total = total + model(input_ids=ids, labels=labels).loss * count
            tokens += count
            start += length
    loss = total / tokens
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainable_parameters(model), 1e9)
    return loss.item(), norm.item()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_loss_and_gradient_equal_the_unpacked_sum(base, packs, attention):
    expected_loss, expected_norm = reference(base, packs, attention)
    model = make_trainable(load_model(base, torch.float32, torch.device("cpu")), METHOD, seed=7)
    batch = flatten(list(packs))
    loss = loss_sum(model, batch) / len(batch.targets)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainable_parameters(model), 1e9)
    assert len(packs) < len(batch.lengths)
    assert loss.item() == pytest.approx(expected_loss, abs=1e-5)
    assert norm.item() == pytest.approx(expected_norm, rel=1e-5)


def test_first_logged_update_equals_the_reference(base, run, make_data):
    done = run(
        data=make_data(pack=True),
        accumulate=100,
        epochs=1,
        method={"dropout": 0.0, "alpha": 8},
        seed=7,
    )
    done.train()
    expected_loss, expected_norm = reference(base, Packs(done.data / "train.arrow"), "sdpa")
    update = done.metrics()[-1]
    assert update["update_loss"] == pytest.approx(expected_loss, abs=1e-5)
    assert update["grad_norm"] == pytest.approx(expected_norm, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_batch_and_accumulate_are_interchangeable(
    run, make_data, batch_size, accumulate, monkeypatch
):
    # XTuner's schedule counts iterations, of which there are more: compare at one rate
    monkeypatch.setattr(trainer, "learning_rate", lambda *_: 1e-2)
    uneven = make_data(rows=16)
    updates = []
    for name, size, steps in (("whole", 8, 1), ("split", batch_size, accumulate)):
        done = run(
            name, uneven, batch_size=size, accumulate=steps, method={"dropout": 0.0}, epochs=2
        )
        updates.append([row for row in done.train().metrics() if row["update"]])
    assert len(updates[0]) == len(updates[1]) == 4
    for whole, split in zip(*updates, strict=True):
        assert split["update_loss"] == pytest.approx(whole["update_loss"], abs=1e-5)
        assert split["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "full"},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
    ],
)
def test_whole_layers_are_trained_in_fp32_with_bf16_arithmetic(run, make_data, method):
    settings = {"data": make_data(pack=True), "method": method | {"dropout": 0.0}, "lr": 1e-3}
    low, exact = (run(p, precision=p, **settings).train() for p in ("bf16", "fp32"))
    assert low.losses() != exact.losses()
    assert low.losses() == pytest.approx(exact.losses(), rel=0.02)
    weights, others = low.adapter(), exact.adapter()
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, others[name], atol=0.02, rtol=0)
