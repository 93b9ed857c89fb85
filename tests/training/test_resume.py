"""Interruption at every point must cost nothing but time: the numbers are those of one run."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from snaketune.core.errors import Interrupted, UserError
from snaketune.core.files import locked, read_json
from snaketune.models import checkpoint
from snaketune.training import processes, signals, train_run, trainer

TOTAL = 24  # 12 rows, 2 epochs
TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


def same_weights(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def straight(run):
    return run("straight").train()


@pytest.mark.parametrize("iteration", range(1, TOTAL + 1))
def test_a_crash_at_any_iteration_changes_no_bit(run, straight, crash, iteration):
    crashed = run("crashed")
    crash(crashed, iteration)
    crashed.train()
    assert crashed.losses() == straight.losses()
    assert same_weights(crashed.adapter(), straight.adapter())


@pytest.mark.parametrize("iteration", range(1, 7))
def test_a_crash_with_packs_changes_no_bit(run, make_data, crash, iteration):
    packed = make_data(pack=True)
    whole, crashed = (run(name, packed, save_every=2, epochs=2) for name in ("whole", "crashed"))
    assert len(whole.train().losses()) == 6
    crash(crashed, iteration)
    crashed.train()
    assert crashed.losses() == whole.losses()
    assert same_weights(crashed.adapter(), whole.adapter())


def test_two_fresh_runs_are_equal_bit_for_bit(run, straight):
    assert run("again").train().losses() == straight.losses()


def test_resuming_goes_back_to_the_last_save_and_no_further(run, crash, caplog):
    crashed = run()
    crash(crashed, 19)
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        whole = trainer.Trainer._iterate
        patch.setattr(
            trainer.Trainer, "_iterate", lambda self, i: trained.append(i) or whole(self, i)
        )
        crashed.train()
    assert trained == list(range(16, TOTAL + 1))  # saved at 16; its last update was at 15


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_run_is_bit_equal(run, straight, monkeypatch, number):
    stopped = run("stopped")
    whole = trainer.Trainer._iterate

    def iterate(self, current):
        if current == 10:
            os.kill(os.getpid(), number)
        return whole(self, current)

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
        patch.setattr(trainer.Trainer, "_iterate", iterate)
        stopped.train()
    assert caught.value.signum == number
    assert (stopped.output / "iter_10.pth").exists()
    assert not (stopped.output / "last.pth").exists()
    assert stopped.train().losses() == straight.losses()
    assert same_weights(stopped.adapter(), straight.adapter())


@pytest.mark.parametrize(("pause", "outcome"), [(0.0, Interrupted), (0.2, KeyboardInterrupt)])
def test_repeated_signals_count_as_one_at_first(run, monkeypatch, pause, outcome):
    stopped, whole = run("stopped"), trainer.Trainer._iterate

    def iterate(self, current):
        if current == 10:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, current)

    monkeypatch.setattr(signals, "REPEATED_SECONDS", 0.1)
    monkeypatch.setattr(trainer.Trainer, "_iterate", iterate)
    with pytest.raises(outcome):
        stopped.train()
    assert (stopped.output / "iter_10.pth").exists() == (outcome is Interrupted)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_newest_checkpoint_is_skipped(run, straight, crash, damage, caplog):
    crashed = run("crashed")
    crash(crashed, 15)
    newest = crashed.output / "iter_12.pth"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    crashed.train()
    assert crashed.losses() == straight.losses()
    assert same_weights(crashed.adapter(), straight.adapter())


def test_a_kill_while_a_checkpoint_is_written_loses_one_save(run, straight, monkeypatch):
    killed, whole = run("killed"), torch.save

    def save_half(state, path):
        whole(state, path)
        if state["iteration"] == 12:
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            raise SystemError("killed")

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(checkpoint.torch, "save", save_half)
        killed.train()
    assert sorted(file.name for file in killed.output.glob("*iter_*")) == [
        "iter_4.pth",
        "iter_8.pth",
    ]
    assert killed.train().losses() == straight.losses()


def test_another_learning_rate_never_resumes_old_weights(run, crash):
    first = run("run")
    crash(first, 15)
    first.configure(train_id="another-id00", lr=1e-2)
    fresh = run("fresh", train_id="another-id00", lr=1e-2).train()
    assert first.train().losses() == fresh.losses()


def test_superseded_checkpoints_come_back_with_their_settings(run, straight, crash):
    changed = run("changed")
    crash(changed, 15)
    changed.configure(train_id="another-id00", lr=1e-2)
    crash(changed, 5)
    changed.configure()
    changed.train()
    assert changed.losses() == straight.losses()
    assert len(list((changed.output / "superseded").iterdir())) == 1


def test_changed_data_is_not_resumed(run, crash, make_data):
    changed = run("changed")
    crash(changed, 15)
    changed.data = make_data(rows=10)
    changed.train()
    assert len(changed.losses()) == 20


@pytest.mark.parametrize("moved", range(7))
def test_kill_while_superseding_loses_nothing(run, straight, crash, monkeypatch, moved):
    other = run("other", train_id="another-id00", lr=1e-3).train()
    killed = run("killed", keep=9)
    crash(killed, 15)
    rename, count = Path.rename, iter(range(moved))

    def dies(self, target):
        if next(count, None) is None:
            raise SystemError("killed")
        return rename(self, target)

    killed.configure(train_id="another-id00", lr=1e-3, keep=9)
    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(Path, "rename", dies)
        killed.train()
    assert killed.train().losses() == other.losses()
    killed.configure(keep=9)
    assert killed.train().losses() == straight.losses()


def test_a_diverged_run_stops_before_its_weights_are_saved(run):
    diverging = run(lr=1e30, max_grad_norm=1e30, accumulate=1, save_every=1, warmup_ratio=0.1)
    with pytest.raises(UserError) as told:
        diverging.train()
    [_] = re.findall(r"Its rows: \S+/rows.jsonl:\d+\.\n", str(told.value))
    assert re.search(r"diverged at iteration \d+: (.|\n)*lower train.lr", str(told.value))
    saved = list(diverging.output.glob("iter_*.pth"))
    assert saved
    for path in saved:
        weights = checkpoint.load_checkpoint(path)["weights"].values()
        assert all(tensor.isfinite().all() for tensor in weights)


def test_a_run_goes_on_in_the_precision_it_began_with(run, crash):
    moved = run(precision="bf16")
    crash(moved, 15)
    moved.configure(precision="fp32")  # what `auto` comes to on a machine without bf16
    moved.train()
    assert read_json(moved.output / "train.json")["precision"] == "bfloat16"


def test_a_finished_run_is_not_trained_again(run, straight, monkeypatch):
    (straight.output / "last.pth").unlink()  # as Snakemake does before a rerun
    losses, weights = straight.losses(), (straight.output / "iter_24.pth").read_bytes()
    monkeypatch.setattr(trainer.Trainer, "_iterate", None)
    assert straight.train().losses() == losses
    assert (straight.output / "last.pth").read_bytes() == weights


def test_keeps_the_newest_checkpoints(run):
    done = run(keep=2).train()
    assert sorted(file.name for file in done.output.glob("iter_*")) == [
        "iter_20.pth",
        "iter_24.pth",
    ]


def test_too_little_disk_is_said_before_training(run, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("snaketune.core.files.shutil.disk_usage", lambda _: usage)
    started = run()
    with pytest.raises(UserError, match=r"too little disk .* training with 4 more checkpoints"):
        started.train()
    assert not list(started.output.glob("iter_*"))


def test_second_training_in_a_folder_is_refused(run, monkeypatch):
    monkeypatch.setattr(train_run, "LOCK_SECONDS", 0.3)
    second = run()
    with locked(second.output), pytest.raises(UserError, match=f"another process .{os.getpid()}"):
        second.train()
    assert not second.output.exists()


def test_no_compiler_for_deepspeed_is_said(monkeypatch):
    monkeypatch.setattr("snaketune.training.processes.shutil.which", lambda _: None)
    with pytest.raises(UserError, match=r"no C\+\+ compiler(.|\n)*train.deepspeed: none"):
        processes.start(deepspeed=True)


def test_kill_9_of_the_process_and_resume_is_bit_equal(run, straight):
    killed = run("killed", log_every=1)
    process = subprocess.Popen([sys.executable, TRAIN, *killed.arguments()], env=ALONE)
    deadline = time.monotonic() + 120
    while len(killed.metrics()) < 10 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, TRAIN, *killed.arguments()], env=ALONE, check=True)
    assert killed.losses() == straight.losses()
    assert same_weights(killed.adapter(), straight.adapter())


ALONE = os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
"""MLflow cannot be reached at this address, which must not matter."""
