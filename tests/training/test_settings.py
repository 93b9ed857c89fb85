"""Settings that may cost time or memory, and change no number; and those of the optimizer."""

import shutil
from typing import get_args

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaMLP

from snaketune.core.errors import UserError
from snaketune.core.files import read_json
from snaketune.core.run_identity import RunIdentity
from snaketune.experiment.resolved import read_resolved
from snaketune.experiment.schema import Train
from snaketune.models.checkpoint import load_checkpoint, save_checkpoint
from snaketune.models.memory import MemoryEstimate
from snaketune.models.optimizers import OPTIMIZERS
from snaketune.training.engine import make_optimizer
from snaketune.training.train_run import train

SAME = {
    "gradient checkpointing": {"gradient_checkpointing": True},
    "eager attention": {"attention": "eager"},
    "sdpa attention": {"attention": "sdpa"},
    "deterministic": {"deterministic": True},
}


@pytest.fixture
def repeatable():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_changes_no_number(run, make_data, changes, repeatable):
    settings = {"data": make_data(pack=True), "method": {"dropout": 0.0}, "lr": 1e-2}
    settings |= {"epochs": 8, "accumulate": 2}
    plain, changed = (run(n, **settings | more).train() for n, more in (("a", {}), ("b", changes)))
    assert changed.losses() == pytest.approx(plain.losses(), abs=1e-4)
    assert changed.losses()[-1] < changed.losses()[0] - 1


def test_max_steps_counts_updates_and_goes_over_epochs(run):
    done = run(max_steps=5, accumulate=3).train()
    assert len(done.metrics()) == 15
    assert len(done.updates()) == 5
    assert done.metrics()[-1]["epoch"] == 15 / 12


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_an_optimizer_of_fewer_bits_learns_and_resumes(run, crash, optimizer):
    settings = {"optimizer": optimizer, "lr": 1e-2, "accumulate": 1}
    whole, stopped = run("whole", **settings).train(), run("stopped", **settings)
    crash(stopped, 15)
    stopped.train()
    assert stopped.losses() == pytest.approx(whole.losses(), abs=1e-5)
    assert whole.losses()[-1] < whole.losses()[0] - 1


def test_betas_and_weight_decay_reach_the_optimizer():
    layer = torch.nn.Linear(2, 2)
    for name in ("adamw", "paged_adamw"):
        settings = Train(betas=(0.8, 0.9), weight_decay=0.3, optimizer=name)
        [group] = make_optimizer(layer, settings).param_groups
        assert (tuple(group["betas"]), group["weight_decay"]) == ((0.8, 0.9), 0.3)


@pytest.mark.parametrize(("room", "on"), [(10**9, False), (10, True)])
def test_checkpointing_where_memory_is_insufficient(run, monkeypatch, room, on):
    monkeypatch.setattr("snaketune.training.build.available_memory", lambda *_: room)
    needs = MemoryEstimate(resident=100, activations=900, activations_checkpointed=50)
    monkeypatch.setattr("snaketune.training.build.estimate", lambda *_: needs)
    figures = read_json(run(max_steps=1).train().output / "train.json")
    assert figures["gradient_checkpointing"] is on
    assert figures["estimated_peak_bytes"] == (150 if on else 1000)


def test_the_figures_name_every_kind(run):
    done = run().train()
    figures, rows = read_json(done.output / "train.json"), done.metrics()
    assert figures["peak_rss_bytes"] == max(row["peak_rss_bytes"] for row in rows) > 2**26
    assert 0 < figures["model_flops_utilisation"] < 1
    assert figures["seeds"] == dict.fromkeys(("python", "numpy", "torch", "data_order"), 42)
    for row in rows:
        rate = row["supervised_tokens"] / row["time_seconds"]
        assert row["supervised_tokens_per_second"] == pytest.approx(rate)


def test_a_run_may_begin_with_the_weights_of_another(run, trained):
    settings = {"lr": 1e-2, "method": {"dropout": 0.0}}
    fresh, going_on = run("fresh", **settings).train(), run("on", **settings)
    train(
        read_resolved(going_on.resolved),
        going_on.base,
        going_on.data,
        going_on.output,
        trained.output / "last.pth",
    )
    assert going_on.losses()[0] < fresh.losses()[0] - 1


@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora"}])
def test_checkpointing_computes_every_layer_twice(run, monkeypatch, method):
    whole, calls = LlamaMLP.forward, []
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: calls.append(1) or whole(self, x))
    for checkpointed in (False, True):
        calls.clear()
        settings = {"gradient_checkpointing": checkpointed, "max_steps": 1, "accumulate": 1}
        run(str(checkpointed), method=method, sample={"prompts": []}, **settings).train()
        assert len(calls) == (4 if checkpointed else 2)  # two layers


def test_another_number_of_processes_is_not_resumed(run, crash):
    stopped = run()
    crash(stopped, 9)
    path = stopped.output / "iter_8.pth"
    state = load_checkpoint(path)
    save_checkpoint(path, state | {"random": state["random"] * 2})
    with pytest.raises(UserError, match=r"written by 2 processes, now there are 1(.|\n)*Fix"):
        stopped.train()


def test_a_start_that_is_named_must_be_given(run):
    with pytest.raises(UserError, match="starts from other, but no checkpoint of it was passed"):
        run(method={"start_from": "other"}).train()


def test_another_start_is_another_run(run, trained, tmp_path):
    going_on = run("on", max_steps=2)
    starts = [shutil.copytree(trained.output, tmp_path / name) for name in "ab"]
    RunIdentity(train_id="other").write(starts[1] / "run.json")
    for start in starts:
        resolved = read_resolved(going_on.resolved)
        data, output = going_on.data, going_on.output
        train(resolved, going_on.base, data, output, start / "last.pth")
    assert len(list((going_on.output / "superseded").iterdir())) == 1


def test_every_name_of_the_schema_has_an_optimizer():
    names = get_args(Train.model_fields["optimizer"].annotation)
    assert tuple(OPTIMIZERS) == names
