"""The arithmetic without a model, against the model when it is loaded."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from snaketune.experiment.schema import Method, Train
from snaketune.models.checkpoint import save_checkpoint
from snaketune.models.trainable import count_trained as count_in_model
from snaketune.models.trainable import make_trainable, trained_weights
from snaketune.planning import sizes
from snaketune.planning.sizes import checkpoint_bytes, count_trained, size_of, training_memory
from snaketune.training import estimate_memory as stage
from snaketune.training.train_record import PeakMemory
from tiny_model import write_base

METHODS = {
    "all linear": {"r": 4},
    "two layers": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "with the output layer": {"r": 4, "modules_to_save": ["lm_head"]},
    "full": {"name": "full"},
}


def settings(**method):
    of_method = {f"method.{k}": v for k, v in Method(**method).model_dump().items()}
    return of_method | {f"train.{key}": value for key, value in Train().model_dump().items()}


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("models") / "untied", tied=False)


@pytest.mark.parametrize("method", METHODS)
def test_the_trained_weights_are_those_of_the_model(untied, method):
    given = METHODS[method]
    model = make_trainable(AutoModelForCausalLM.from_pretrained(untied), Method(**given), 0)
    assert count_trained(untied, settings(**given)) == count_in_model(model)


def test_memory_is_the_training_stages_estimate(untied, monkeypatch):
    model = make_trainable(AutoModelForCausalLM.from_pretrained(untied), Method(r=4), 0)
    train = Train(precision="fp32")
    monkeypatch.setattr(sizes, "gpus", lambda: 0)
    monkeypatch.setattr(sizes, "_PROCESS", 0)
    weights = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(untied).parameters())
    monkeypatch.setattr(stage, "peak_memory", lambda: PeakMemory(peak_rss_bytes=4 * weights))
    expected = stage.estimate(model, train, tokens=160).total(checkpointed=False)
    given = settings(name="lora", r=4) | {"train.precision": "fp32", "train.batch_size": 1}
    found = training_memory(untied, given, 160)
    lora = 4 * count_in_model(model)  # the model with its adapter has these weights too
    assert found == expected - lora


def test_a_checkpoint_holds_weights_and_moments(untied, tmp_path):
    model = make_trainable(AutoModelForCausalLM.from_pretrained(untied), Method(r=64), 0)
    weights = trained_weights(model)
    state = {"weights": weights, "m": dict(weights), "v": dict(weights)}
    state["m"] = {key: tensor.clone() for key, tensor in weights.items()}
    state["v"] = {key: tensor.clone() for key, tensor in weights.items()}
    save_checkpoint(tmp_path / "iter_1.pth", state)
    written = (tmp_path / "iter_1.pth").stat().st_size
    assert checkpoint_bytes(untied, settings(r=64)) == pytest.approx(written, rel=0.05)


def test_what_is_not_there_is_unknown(tmp_path):
    assert training_memory(tmp_path, settings(), 9) is None
    assert checkpoint_bytes(tmp_path, settings()) is None
    assert size_of(tmp_path / "none") is None


def test_a_file_may_stand_for_its_folder(tmp_path):
    (tmp_path / "data.json").write_bytes(bytes(2))
    (tmp_path / "train.arrow").write_bytes(bytes(40))
    assert size_of(tmp_path / "data.json") == 42
    assert size_of(tmp_path / "train.arrow") == 40


def test_a_quantized_base_takes_less(untied, monkeypatch):
    monkeypatch.setattr(sizes, "gpus", lambda: 1)
    found = [training_memory(untied, settings(name=name), 160) for name in ("lora", "qlora")]
    count = sum(torch.Size(shape).numel() for shape in sizes.weight_shapes(untied).values())
    assert found[0] - found[1] == 2 * count - int(0.55 * count)
