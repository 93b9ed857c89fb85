"""The same model in files of another size."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.manifest import require_intact
from snaketune.export.merge import merge
from snaketune.export.split import split


@pytest.fixture(scope="module")
def merged(trained, base, tmp_path_factory):
    merge(base, trained.export(), folder := tmp_path_factory.mktemp("models") / "merged")
    return folder


def test_every_tensor_has_a_file_of_its_own(merged, tmp_path):
    split(merged, tmp_path / "split")
    whole, files = (
        load_file(merged / "model.safetensors"),
        read_json(tmp_path / "split/model.safetensors.index.json")["weight_map"],
    )
    assert files.keys() == whole.keys() and len(set(files.values())) == len(whole)
    for name, file in files.items():
        with safe_open(tmp_path / "split" / file, framework="pt") as weights:
            assert list(weights.keys()) == [name]
            assert torch.equal(weights.get_tensor(name), whole[name])
    assert sorted(files.values())[0] == f"model-00001-of-{len(whole):05d}.safetensors"


def test_transformers_loads_it_with_all_that_the_model_brought(merged, tmp_path):
    split(merged, tmp_path / "split", "60KB")
    found, expected = (
        AutoModelForCausalLM.from_pretrained(each) for each in (tmp_path / "split", merged)
    )
    assert all(map(torch.equal, found.state_dict().values(), expected.state_dict().values()))
    assert found.generation_config.eos_token_id == expected.generation_config.eos_token_id
    tokenizers = [AutoTokenizer.from_pretrained(each) for each in (tmp_path / "split", merged)]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    require_intact(tmp_path / "split")


def test_split_again_into_one_file_gives_the_first_bytes(merged, tmp_path):
    split(merged, tmp_path / "split")
    split(tmp_path / "split", tmp_path / "joined", "5GB")
    joined, first = (folder / "model.safetensors" for folder in (tmp_path / "joined", merged))
    assert joined.read_bytes() == first.read_bytes()


def test_a_damaged_model_is_not_split(merged, tmp_path):
    split(merged, tmp_path / "copy", "5GB")
    weights = tmp_path / "copy/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors has changed(.|\n)*Fix: delete it"):
        split(tmp_path / "copy", tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_a_size_that_is_none_is_told(merged, tmp_path):
    with pytest.raises(UserError, match=r"'large' is no size\.\n  Fix: write e\.g\. 500MB"):
        split(merged, tmp_path / "split", "large")


def test_the_program_gives_each_tensor_a_file(merged, tmp_path):
    program = Path(__file__).parents[2] / "scripts/split.py"
    arguments = ["--model", merged, "--output", tmp_path / "split"]
    subprocess.run([sys.executable, program, *arguments], check=True)
    files = list((tmp_path / "split").glob("*.safetensors"))
    assert len(files) == len(load_file(merged / "model.safetensors"))
