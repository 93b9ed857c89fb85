"""Our LoRA forward pass against PEFT's."""

import pytest
import torch
from peft import get_peft_model

from snaketune.experiment.schema import Method
from snaketune.models.generation import answer
from snaketune.models.load_model import load_model, load_tokenizer
from snaketune.models.trainable import lora_config, make_trainable, trainable_parameters

CPU = torch.device("cpu")
IDS = torch.arange(40).view(2, 20)


def losses_and_gradients(model):
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    torch.manual_seed(6)
    loss = model.train()(IDS, labels=IDS).loss
    loss.backward()
    return loss.item(), [p.grad for p in trainable_parameters(model)]


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.5}, {"rslora": True}, {"dora": True}])
@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
def test_equals_pefts_in_fp32(base, changes, quantization):
    method = Method.model_validate({"name": "lora", "r": 4, "dropout": 0.0} | changes)
    ours = make_trainable(load_model(base, torch.float32, CPU, quantization), method, seed=1)
    torch.manual_seed(1)
    pefts = get_peft_model(load_model(base, torch.float32, CPU, quantization), lora_config(method))
    (loss, gradients), (same, others) = map(losses_and_gradients, (ours, pefts))
    assert loss == pytest.approx(same, abs=1e-5)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_in_bf16_weights_and_gradients_stay_in_fp32_and_near(base):
    method = Method(name="lora", r=4, dropout=0.0)
    low = make_trainable(load_model(base, torch.bfloat16, CPU), method, seed=1)
    exact = make_trainable(load_model(base, torch.float32, CPU), method, seed=1)
    (loss, gradients), (same, others) = map(losses_and_gradients, (low, exact))
    assert loss == pytest.approx(same, rel=0.01)
    assert {p.dtype for p in trainable_parameters(low)} == {torch.float32}
    norm, other = (torch.stack([g.norm() for g in all_]).norm() for all_ in (gradients, others))
    assert norm.item() == pytest.approx(other.item(), rel=0.05)


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
def test_a_quantised_model_learns_on_after_it_has_answered(base, quantization):
    method = Method(name="qlora", r=4, dropout=0.0)
    fresh, asked = (
        make_trainable(load_model(base, torch.float32, CPU, quantization), method, seed=1)
        for _ in "ab"
    )
    answer(asked, load_tokenizer(base), ["Say 3"], 4, {"end_token_ids": [1]})
    (loss, gradients), (same, others) = map(losses_and_gradients, (asked, fresh))
    assert loss == same
    assert all(map(torch.equal, gradients, others))
