"""Weights in .bin files: the same model as safetensors, and no code that comes with them.

PYTHONPATH=scripts pytest tests/bases/test_pickles.py
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from snaketune.bases.fetch import fetch_base
from snaketune.core.errors import UserError
from tiny_model import write_tokenizer


class Harm:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_repository(folder: Path, tied: bool = False, **tensors) -> LlamaForCausalLM:
    """Write a tiny model with its weights as pytorch_model.bin alone."""
    folder.mkdir()
    write_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config).bfloat16()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict() | tensors, folder / "pytorch_model.bin")
    return model


def fetched(repository: Path) -> Path:
    fetch_base({"source": str(repository)}, repository.parent / "base")
    return repository.parent / "base"


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_of_pickled_weights_is_the_same_model(tmp_path: Path, tied: bool) -> None:
    model = write_repository(tmp_path / "hub", tied)
    found = AutoModelForCausalLM.from_pretrained(fetched(tmp_path / "hub")).state_dict()
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(map(torch.equal, found.values(), expected.values()))
    assert found["model.norm.weight"].dtype == torch.bfloat16


def test_a_tied_tensor_is_stored_once(tmp_path: Path) -> None:
    write_repository(tmp_path / "hub", tied=True)
    base = fetched(tmp_path / "hub")
    with safe_open(base / "model.safetensors", framework="pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 (no dict)
        assert "model.embed_tokens.weight" in weights.keys()  # noqa: SIM118


def test_shards_are_read_and_their_index_goes(tmp_path: Path) -> None:
    model = write_repository(tmp_path / "hub")
    whole = tmp_path / "hub/pytorch_model.bin"
    weights = torch.load(whole, weights_only=True)
    whole.unlink()
    files = {}
    for number in (1, 2):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        part = {name: weights[name] for name in sorted(weights)[number - 1 :: 2]}
        torch.save(part, tmp_path / "hub" / file)
        files |= dict.fromkeys(part, file)
    index = tmp_path / "hub/pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    base = fetched(tmp_path / "hub")
    found = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    assert not list(base.glob("pytorch_model*"))


def test_fetching_again_gives_the_same_bytes(tmp_path: Path) -> None:
    write_repository(tmp_path / "hub")
    before = {path.name: path.read_bytes() for path in fetched(tmp_path / "hub").iterdir()}
    assert before == {path.name: path.read_bytes() for path in fetched(tmp_path / "hub").iterdir()}


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    harmed = tmp_path / "harmed"
    write_repository(tmp_path / "hub", harm=Harm(harmed))
    with pytest.raises(UserError, match=r"pytorch_model\.bin holds more than tensors(.|\n)*None"):
        fetched(tmp_path / "hub")
    assert {path.name for path in tmp_path.iterdir()} == {"hub"}
    assert b"mkdir" in (tmp_path / "hub/pytorch_model.bin").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "cannot be read as weights"),
        (lambda file: file.write_bytes(b""), "cannot be read as weights"),
        (lambda file: torch.save({"weights": {"a": torch.ones(1)}}, file), "other things than"),
        (lambda file: torch.save([torch.ones(1)], file), "other things than tensors by name"),
        (
            lambda file: torch.save({}, file, _use_new_zipfile_serialization=False),
            "torch 1.6 or newer",
        ),
    ],
    ids=["cut off", "empty", "nested", "a list", "the format before torch 1.6"],
)
def test_other_files_are_refused(tmp_path: Path, spoil, said: str) -> None:
    write_repository(tmp_path / "hub")
    spoil(tmp_path / "hub/pytorch_model.bin")
    with pytest.raises(UserError, match=said):
        fetched(tmp_path / "hub")
    assert {path.name for path in tmp_path.iterdir()} == {"hub"}
