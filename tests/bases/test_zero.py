"""Weights put together from DeepSpeed's folders are those that DeepSpeed's own program gives."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snaketune.bases.xtuner import fitted, read_xtuner
from snaketune.bases.zero import load_zero
from snaketune.core.errors import UserError
from snaketune.experiment.schema import Method

KINDS = ["1-lora", "2-lora", "2-full", "3-lora", "3-full"]
"""ZeRO's stage and what is trained."""
OPTIMIZER = "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"
MODEL = "mp_rank_00_model_states.pt"


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    """Checkpoints that DeepSpeed saved in two processes, in a folder for each kind."""
    folder = tmp_path_factory.mktemp("deepspeed")
    program = Path(__file__).with_name("zero_folders.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(program.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, *launcher, program, base, folder, *KINDS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return {kind: folder / kind / "iter_500.pth" for kind in KINDS}


@pytest.fixture
def copy(saved, tmp_path):
    """Return a function that gives a kind's folder, to be spoilt."""
    return lambda kind: shutil.copytree(saved[kind], tmp_path / "iter_500.pth")


def by_deepspeed(folder):
    """Return the weights that DeepSpeed's program gives; it unpickles what we wrote ourselves."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        found = get_fp32_state_dict_from_zero_checkpoint(
            str(folder.parent), tag=folder.name, exclude_frozen_parameters=True
        )
    return dict(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_deepspeeds_own_program(saved, kind):
    state, expected = load_zero(saved[kind]), by_deepspeed(saved[kind])
    assert state["meta"]["iter"] == 500
    assert state["module"].keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state["module"][name], tensor)
        assert state["module"][name].dtype == torch.float32
    assert any((tensor != tensor.bfloat16()).any() for tensor in state["module"].values())


@pytest.mark.parametrize("kind", KINDS)
def test_they_fit_the_base_they_were_trained_on(saved, base, kind):
    is_lora = kind.endswith("lora")
    method = Method(name="lora", r=4, alpha=8) if is_lora else Method(name="full")
    found = read_xtuner(saved[kind])
    weights, _ = fitted(found, base, method)
    assert (found.iteration, found.alpha) == (500, 8)
    assert len(weights) == (28 if is_lora else 20)


def test_without_the_optimizer_stage_2_has_16_bits(copy, saved):
    folder = copy("2-lora")
    for rank in range(2):
        (folder / OPTIMIZER.format(rank)).unlink()
    found, whole = load_zero(folder)["module"], load_zero(saved["2-lora"])["module"]
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name].bfloat16()) for name in whole)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def take(other, name):
    return lambda folder: shutil.copyfile(other(folder), folder / name)


def cut(name):
    def cut(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def narrowed(folder):
    """Take values away from one process's part."""
    path = folder / OPTIMIZER.format(1)
    part = torch.load(path, weights_only=False)
    vectors = part["optimizer_state_dict"]["single_partition_of_fp32_groups"]
    part["optimizer_state_dict"]["single_partition_of_fp32_groups"] = [v[:-9] for v in vectors]
    torch.save(part, path)


WRONG = {
    "no model": ("2-lora", remove(MODEL), r"holds no \*model_states.pt"),
    "first process": ("2-lora", remove(OPTIMIZER.format(0)), "of 2 processes' numbers 0"),
    "last process": ("2-lora", remove(OPTIMIZER.format(1)), "of 2 processes' numbers 1"),
    "no optimizer": (
        "3-lora",
        remove(OPTIMIZER.format(0), OPTIMIZER.format(1)),
        r"of ZeRO stage 3 and lacks \*_optim_states.pt",
    ),
    "truncated": ("2-lora", cut(OPTIMIZER.format(1)), r"rank_1.*cannot be read: File is not a zip"),
    "too few values": ("2-lora", narrowed, "do not belong together"),
    "another's": (
        "2-lora",
        take(lambda folder: folder / MODEL, OPTIMIZER.format(1)),
        "do not belong together",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_folder_that_is_not_whole_is_refused_with_the_reason(copy, kind):
    which, spoil, message = WRONG[kind]
    folder = copy(which)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_zero(folder)
    assert "Fix:" in str(caught.value)


@pytest.mark.parametrize("module", [[1], {"a": 3}])
def test_a_module_that_is_no_weights_is_refused(tmp_path, module):
    torch.save({"module": module}, tmp_path / MODEL)
    with pytest.raises(UserError, match=r"holds other things than weights by name(.|\n)*Fix:"):
        load_zero(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no \*model_states.pt"):
        read_xtuner(tmp_path)
