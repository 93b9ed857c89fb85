"""Engines change how an update is computed, never what it is.

They run in processes of their own, as a process group cannot be left again.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.cpp_extension import get_default_build_root

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.experiment.schema import DEEPSPEED, Train
from snaketune.training import processes
from snaketune.training.engine import ENGINES as ENTRIES
from snaketune.training.engine import engine_entry
from tiny_run import Run

SETTINGS = {"lr": 1e-2, "keep": 9}
METHODS = {
    "lora": {"dropout": 0.0},
    "qlora": {"name": "qlora", "dropout": 0.0},
    "full": {"name": "full"},
}
ENGINES = {1: ["zero1", "zero2", "zero3"], 2: ["none", "zero1", "zero2", "zero3"]}
"""What `train.deepspeed` says, by the number of processes."""

RUNS = [
    *((m, engine, count) for count, names in ENGINES.items() for engine in names for m in METHODS),
    ("lora", "zero2_offload", 1),
    ("lora", "zero3_offload", 1),
]
RESUMED = [run for run in RUNS if run[0] == "lora" or run[1:] == ("zero3", 2)]


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
    """Return a function that trains with ZeRO-2 through the program, once."""
    done: dict[int, Run] = {}

    def zero2(count: int) -> Run:
        if count not in done:
            run = make(tmp_path_factory.mktemp("zero2"), base, data, "lora", "zero2", count)
            run.process = subprocess.run(**command(run), capture_output=True, text=True)
            assert run.process.returncode == 0, (run.folder / "train.log").read_text()
            done[count] = run
        return done[count]

    return zero2


@pytest.fixture(scope="module")
def all_runs(base, data, command, tmp_path_factory):
    """Return the runs of `trained_by` and of `resumed_by`."""
    trained, resumed = (
        {each: make(folder / "-".join(map(str, each)), base, data, *each) for each in combinations}
        for folder, combinations in (
            (tmp_path_factory.mktemp("engines"), RUNS),
            (tmp_path_factory.mktemp("resumed"), RESUMED),
        )
    )
    for count in ENGINES:
        folders = [str(run.folder) for each, run in trained.items() if each[2] == count]
        folders += [
            f"{trained[each].folder}:{run.folder}"
            for each, run in resumed.items()
            if each[2] == count
        ]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        program = [sys.executable, *(launcher if count > 1 else [])]
        program += [Path(__file__).with_name("many_runs.py"), base, data, *folders]
        environment = command(next(iter(trained.values())))["env"]
        done = subprocess.run(program, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-5000:]
    return trained, resumed


@pytest.fixture(scope="module")
def trained_by(all_runs):
    """Return every method trained with every engine, from start to end."""
    return all_runs[0]


@pytest.fixture(scope="module")
def resumed_by(all_runs):
    """Return the same runs, gone on from what a kill -9 before their end had left."""
    return all_runs[1]


def make(folder, base, data, method, deepspeed, count) -> Run:
    settings = {"deepspeed": deepspeed, "processes": count, "batch_size": 2 // count}
    return Run(folder, base, data, method=METHODS[method], **settings, **SETTINGS)


@pytest.fixture(scope="module")
def plain(base, data, tmp_path_factory):
    """Return a function that trains in this process, without an engine, once."""
    done: dict[str, Run] = {}

    def plain(method: str) -> Run:
        if method not in done:
            folder = tmp_path_factory.mktemp(method)
            run = Run(folder, base, data, method=METHODS[method], batch_size=2, **SETTINGS)
            done[method] = run.train()
        return done[method]

    return plain


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


@pytest.mark.parametrize(("method", "deepspeed", "count"), RUNS)
def test_every_engine_is_the_same_training_as_none(plain, trained_by, method, deepspeed, count):
    found, expected = trained_by[method, deepspeed, count], plain(method)
    assert_same_training(found, expected, 1e-4)
    assert len(expected.updates()) == 4
    assert any(row["grad_norm"] > 1 for row in expected.updates())  # some were clipped
    for row, same in zip(found.metrics(), expected.metrics(), strict=True):
        assert row["loss"] == pytest.approx(same["loss"], abs=1e-4)
        assert (row["tokens"], row["supervised_tokens"]) == (
            same["tokens"],
            same["supervised_tokens"],
        )


@pytest.mark.parametrize(("deepspeed", "count"), sorted({run[1:] for run in RUNS}))
def test_every_engine_exports_the_same_adapter(plain, trained_by, deepspeed, count):
    expected = load_file(plain("lora").export() / "adapter_model.safetensors")
    exported = load_file(
        trained_by["lora", deepspeed, count].export() / "adapter_model.safetensors"
    )
    assert exported.keys() == expected.keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("method", "deepspeed", "count"), RESUMED)
def test_a_crash_is_as_if_nothing_had_happened(trained_by, resumed_by, method, deepspeed, count):
    whole, resumed = (runs[method, deepspeed, count] for runs in (trained_by, resumed_by))
    assert_same_training(resumed, whole, 1e-6)
    assert [row["iteration"] for row in resumed.metrics()] == list(range(1, 13))


def test_a_killed_rank_stops_the_other_and_the_next_run_goes_on(
    plain, base, data, command, tmp_path
):
    settings = {"processes": 2, "batch_size": 1, "save_every": 1, "method": METHODS["lora"]}
    killed = Run(tmp_path / "run", base, data, **SETTINGS | settings)
    process = subprocess.Popen(**command(killed), stderr=subprocess.PIPE, text=True)
    while len(killed.metrics()) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode != 0
    assert "SIGKILL" in told
    subprocess.run(**command(killed), check=True)
    assert_same_training(killed, plain("lora"), 1e-4)


def ranks_of(process: subprocess.Popen) -> list[int]:
    """Return the processes that a launcher started, the first one first."""
    return sorted(child.pid for child in psutil.Process(process.pid).children())


def test_two_processes_tell_everything_once(zero2):
    done = zero2(2)
    told, log = done.process.stderr, (done.folder / "train.log").read_text()
    for text in (told, log):
        for line in ("starting DeepSpeed", "2 processes", "Iter(train) [10/12]"):
            assert text.count(line) == 1
    assert [row["iteration"] for row in done.metrics()] == list(range(1, 13))
    figures = read_json(done.output / "train.json")
    assert (figures["iterations"], figures["processes"]) == (12, 2)


def test_nothing_but_our_own_lines_reaches_the_terminal(zero2):
    process = zero2(1).process
    assert "\x1b" not in process.stderr and "\r" not in process.stderr
    assert all(re.match(r"\d\d:\d\d:\d\d train ", line) for line in process.stderr.splitlines())
    assert process.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel is for CPUs")
def test_the_lock_of_a_killed_compilation_is_not_waited_for(zero2, repository, tmp_path):
    zero2(1)  # so that the kernel is compiled
    (built,) = Path(get_default_build_root()).glob("*/deepspeed_shm_comm")
    lock = Path(shutil.copytree(built, tmp_path / built.name)) / "lock"
    lock.touch()
    code = "from snaketune.training import processes; processes.start(deepspeed=True)"
    places = {"TORCH_EXTENSIONS_DIR": str(tmp_path), "PYTHONPATH": str(repository / "scripts")}
    # torch waits for ever: the limit only ends a test that has failed
    subprocess.run([sys.executable, "-c", code], env=os.environ | places, timeout=300, check=True)
    assert not lock.exists()


def test_unknown_target_modules_list_the_known_ones(run):
    with pytest.raises(UserError, match=r"target_modules(.|\n)*choose among .*q_proj"):
        run(method={"target_modules": ["query"]}).train()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.process_count(None) == processes.process_count(2) == 2
    with pytest.raises(UserError, match=r"train.processes: 3, and this machine shows 2 GPUs"):
        processes.process_count(3)


def test_own_deepspeed_file_keeps_its_keys():
    own = {"zero_optimization": {"stage": 1}, "train_batch_size": 999, "wall_clock_breakdown": True}
    train = Train(deepspeed="own.json", batch_size=3)
    config = engine_entry(train).config(train, own)
    assert config["zero_optimization"] == {"stage": 1}
    assert config["wall_clock_breakdown"] is True
    assert (config["train_batch_size"], config["train_micro_batch_size_per_gpu"]) == (3, 3)


def test_file_without_zero_optimization_is_refused():
    train = Train(deepspeed="own.json")
    with pytest.raises(UserError, match=r"no `zero_optimization`(.|\n)*Fix"):
        engine_entry(train).config(train, {"fp16": {}})


def test_every_name_of_the_schema_has_an_engine():
    assert tuple(ENTRIES) == DEEPSPEED
