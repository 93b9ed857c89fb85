"""Engines change how an update is computed, never what it is.

ZeRO-2 runs in processes of their own, as a process group cannot be left again.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from snaketune.errors import UserError
from snaketune.files import read_json
from tiny_run import Run

SETTINGS = {"lr": 1e-2, "keep": 9, "method": {"dropout": 0.0}}
TWO_DEVICES = """
import runpy, sys, torch
torch.cuda.device_count = lambda: 2
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""What makes train.py start two processes, on a machine without GPUs."""


@pytest.fixture(scope="module")
def command(repository, tmp_path_factory):
    """Return a function that gives the command of a run, and the environment, without MLflow."""
    stub = tmp_path_factory.mktemp("stub")
    (stub / "mlflow.py").write_text("raise ImportError('importing it takes seconds')")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(stub)}

    def command(run, *before: str) -> dict:
        train = str(repository / "scripts" / "train.py")
        return {"args": [sys.executable, *before, train, *run.arguments()], "env": environment}

    return command


@pytest.fixture(scope="module")
def zero2(base, data, command, tmp_path_factory):
    """A run with ZeRO-2 in one process, from start to end."""
    done = Run(tmp_path_factory.mktemp("zero2"), base, data, deepspeed="zero2", **SETTINGS)
    done.process = subprocess.run(**command(done), capture_output=True, text=True)
    assert done.process.returncode == 0, (done.folder / "train.log").read_text()
    return done


def assert_same_training(found, expected, tolerance: float) -> None:
    pairs = list(zip(found.updates(), expected.updates(), strict=True))
    for one, other in pairs:
        assert one["lr"] == other["lr"]
        assert one["update_loss"] == pytest.approx(other["update_loss"], abs=tolerance)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], abs=tolerance)
    weights, others = found.adapter(), expected.adapter()
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], atol=tolerance, rtol=0)


def test_zero2_is_the_same_training_as_no_engine(run, zero2):
    plain = run("plain", **SETTINGS).train()
    assert_same_training(zero2, plain, 1e-4)
    assert plain.updates()[-1]["update_loss"] < plain.updates()[0]["update_loss"] - 1
    assert any(row["grad_norm"] > 1 for row in plain.updates())  # some were clipped


def test_zero2_exports_the_same_adapter(run, zero2):
    exported = load_file(zero2.export() / "adapter_model.safetensors")
    plain = load_file(run("plain", **SETTINGS).train().export() / "adapter_model.safetensors")
    assert exported.keys() == plain.keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-4, rtol=0)


def test_zero2_goes_on_after_a_crash_as_if_nothing_had_happened(zero2, command, tmp_path):
    crashed = Run(tmp_path / "run", zero2.base, zero2.data, deepspeed="zero2", **SETTINGS)
    shutil.copytree(zero2.output, crashed.output)
    for iteration in (16, 20, 24):  # what a kill -9 at iteration 15 leaves
        (crashed.output / f"iter_{iteration}.pth").unlink()
    for name in ("last.pth", "train.json"):
        (crashed.output / name).unlink()
    lines = (zero2.output / "metrics.jsonl").read_text().splitlines(keepends=True)
    (crashed.output / "metrics.jsonl").write_text("".join(lines[:15]))
    subprocess.run(**command(crashed), check=True)
    assert_same_training(crashed, zero2, 1e-6)
    assert [row["iteration"] for row in crashed.metrics()] == list(range(1, 25))


@pytest.fixture(scope="module")
def two_processes(base, data, command, tmp_path_factory):
    settings = SETTINGS | {"deepspeed": "zero2", "batch_size": 1, "epochs": 4}
    done = Run(tmp_path_factory.mktemp("two"), base, data, **settings)
    done.process = subprocess.run(
        **command(done, "-c", TWO_DEVICES), capture_output=True, text=True
    )
    assert done.process.returncode == 0, (done.folder / "train.log").read_text()
    return done


def test_two_processes_are_one_with_twice_the_batch(run, two_processes):
    settings = SETTINGS | {"batch_size": 2, "epochs": 4}
    one = run("one", **settings).train()
    assert_same_training(two_processes, one, 1e-4)
    assert len(one.metrics()) == 24
    for found, expected in zip(two_processes.metrics(), one.metrics(), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert found["tokens"] == expected["tokens"]
        assert found["supervised_tokens"] == expected["supervised_tokens"]


def test_two_processes_tell_everything_once(two_processes):
    told, log = two_processes.process.stderr, (two_processes.folder / "train.log").read_text()
    for text in (told, log):
        for line in ("starting DeepSpeed", "2 processes", "Iter(train) [20/24]"):
            assert text.count(line) == 1
    assert [row["iteration"] for row in two_processes.metrics()] == list(range(1, 25))
    figures = read_json(two_processes.output / "train.json")
    assert (figures["iterations"], figures["processes"]) == (24, 2)


def test_nothing_but_our_own_lines_reaches_the_terminal(zero2):
    told = zero2.process.stderr
    assert "\x1b" not in told and "\r" not in told
    assert all(re.match(r"\d\d:\d\d:\d\d train ", line) for line in told.splitlines())
    assert zero2.process.stdout == ""


def test_what_no_layer_is_called_is_refused_with_the_names_there_are(run):
    with pytest.raises(UserError, match=r"target_modules(.|\n)*choose among .*q_proj"):
        run(method={"target_modules": ["query"]}).train()
