"""Models that share weights do not answer for each other, in whatever order they are loaded."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from snaketune.serving.artifacts import find_models
from snaketune.serving.served_models import ServedModels


@pytest.fixture(scope="module")
def folder(trained, base, tmp_path_factory):
    """A repository with a base, and the experiment `run` that was trained on it."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(base, folder / "store/models/tiny")
    shutil.copytree(trained.export(), folder / "experiments/run/adapter")
    return folder


def answer(loaded) -> list[int]:
    model, tokenizer = loaded
    inputs = tokenizer("Say 3", return_tensors="pt")
    config = GenerationConfig(do_sample=False, max_new_tokens=16, eos_token_id=2, pad_token_id=2)
    return model.generate(**inputs, generation_config=config)[0].tolist()


@pytest.fixture(scope="module")
def of_base(folder):
    """What the base says by itself, by transformers alone."""
    base = folder / "store/models/tiny"
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    inputs = AutoTokenizer.from_pretrained(base)("Say 3", return_tensors="pt")
    config = {"do_sample": False, "max_new_tokens": 16, "eos_token_id": 2, "pad_token_id": 2}
    return model.generate(**inputs, **config)[0].tolist()


@pytest.mark.parametrize("first", ["tiny", "run"])
def test_base_ignores_adapters_in_any_loading_order(folder, of_base, first, monkeypatch):
    monkeypatch.chdir(folder)
    models = ServedModels(find_models(["run"]), "fp32", None)
    loaded = {first: models.load(first)}
    loaded |= {name: models.load(name) for name in models.served}
    assert answer(loaded["tiny"]) == of_base
    assert answer(loaded["run"]) != of_base
    assert answer(loaded["tiny"]) == of_base


def test_broken_adapter_does_not_affect_the_next(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    for name in ("broken", "next"):
        shutil.copytree("experiments/run", f"experiments/{name}")
    file = Path("experiments/broken/adapter/adapter_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 1}))
    models = ServedModels(find_models(["run", "broken", "next"]), "fp32", None)
    expected = answer(models.load("run"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        models.load("broken")
    assert answer(models.load("next")) == expected


def test_loading_an_adapter_waits_for_generation(folder, of_base, monkeypatch):
    monkeypatch.chdir(folder)
    models = ServedModels(find_models(["run"]), "fp32", None)
    base = models.load("tiny")
    whole = base[0].weights.generate
    with ThreadPoolExecutor(1) as pool:

        def generate(**inputs):
            later = pool.submit(models.load, "run")
            with pytest.raises(TimeoutError):
                later.result(timeout=0.5)
            return whole(**inputs)

        monkeypatch.setattr(base[0].weights, "generate", generate)
        assert answer(base) == of_base
    assert "run" in models.ready
