"""The held-out loss while training, and what is decided by it."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl
from snaketune.data.storage import Packs
from snaketune.data.template import IGNORE
from snaketune.experiment.schema import Train
from snaketune.models.checkpoint import load_checkpoint
from snaketune.training import trainer


@pytest.fixture(scope="module")
def heldout(make_data):
    return make_data(heldout=0.25)


def measured(run) -> dict[int, float]:
    rows = read_jsonl(run.output / "validation.jsonl")
    return {row["iteration"]: row["heldout_loss"] for row in rows}


def slow_loss(model, packs) -> float:
    """Return the mean loss over all supervised tokens, one sample at a time, by transformers."""
    total, tokens = 0.0, 0
    for pack in packs:
        ids, labels = (torch.tensor(each.tolist())[None] for each in (pack.input_ids, pack.labels))
        count = int((labels[:, 1:] != IGNORE).sum())
        with torch.no_grad():
            total += model(ids, labels=labels).loss.item() * count
        tokens += count
    return total / tokens


def test_heldout_loss_equals_transformers_own(run, base, heldout):
    done = run(data=heldout, method={"name": "full"}, lr=1e-3, validate_every=4).train()
    total = len(done.metrics())
    assert list(measured(done)) == [*range(4, total, 4), total]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain.load_state_dict(load_checkpoint(done.output / "last.pth")["weights"], strict=False)
    expected = slow_loss(plain.eval(), Packs(heldout / "heldout.arrow"))
    assert measured(done)[total] == pytest.approx(expected, abs=1e-5)
    figures = read_json(done.output / "train.json")
    assert figures["heldout_losses"] == {str(n): loss for n, loss in measured(done).items()}


def test_measuring_changes_no_bit(run, heldout):
    one, other = (run(str(n), heldout, validate_every=n).train() for n in (2, 1000))
    assert one.losses() == other.losses()


@pytest.fixture
def losses(monkeypatch):
    """Return a function that gives a run the held-out losses to find."""

    def losses(*found: float) -> None:
        left = iter(found)
        monkeypatch.setattr("snaketune.training.build.mean_loss", lambda *_: next(left))

    return losses


def test_early_stop_after_patience(run, heldout, losses):
    losses(3.0, 2.0, 2.5, 2.0, 9.0)
    done = run(data=heldout, epochs=9, accumulate=1, validate_every=2, early_stop=2).train()
    assert len(done.metrics()) == 8
    assert read_json(done.output / "train.json")["result_iteration"] == 8


def test_the_best_is_kept_and_is_the_result(run, heldout, losses):
    losses(3.0, 1.0, 2.0, 2.0, 2.0, 2.0)
    settings = {"keep": 1, "save_every": 1, "keep_best": True, "validate_every": 3}
    done = run(data=heldout, epochs=2, accumulate=1, **settings).train()
    kept = {path.name for path in done.output.glob("*.pth")}
    assert kept == {"iter_6.pth", "iter_18.pth", "last.pth"}
    assert load_checkpoint(done.output / "last.pth")["iteration"] == 6


@pytest.mark.parametrize("died_at", [5, 6, 7, 8])
def test_a_resumed_run_knows_what_was_measured(run, heldout, losses, crash, died_at):
    losses(3.0, 2.0, *[2.5] * 9)
    stopped = run(data=heldout, accumulate=1, save_every=1, validate_every=2, early_stop=2)
    crash(stopped, died_at)
    stopped.train()
    assert measured(stopped) == {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.5}
    assert len(stopped.metrics()) == 8


def test_a_run_killed_after_it_stopped_early_does_not_go_on(run, heldout, losses, monkeypatch):
    losses(1.0, 2.0, 2.0)
    done = run(data=heldout, accumulate=1, save_every=1, validate_every=2, early_stop=1).train()
    for name in ("last.pth", "train.json", "finished.json"):
        (done.output / name).unlink()
    monkeypatch.setattr(trainer.Trainer, "_iterate", None)
    done.train()
    assert load_checkpoint(done.output / "last.pth")["iteration"] == 4


def test_nothing_held_out_is_said(run):
    with pytest.raises(UserError, match=r"train.validate_every(.|\n)*evaluate.heldout"):
        run(validate_every=3).train()


def test_deciding_without_measuring_is_refused():
    with pytest.raises(ValueError, match="validate_every"):
        Train(early_stop=3)


def test_result_of_a_finished_run_is_chosen_again(run, heldout, losses, monkeypatch):
    losses(3.0, 1.0, 2.0)
    settings = {"data": heldout, "epochs": 1, "accumulate": 1, "validate_every": 3}
    done = run(save_every=3, keep=9, **settings).train()
    assert load_checkpoint(done.output / "last.pth")["iteration"] == 9
    monkeypatch.setattr("snaketune.training.train_run.build_trainer", None)
    for keep_best, expected in ((True, 6), (False, 9)):
        for name in ("last.pth", "train.json"):  # as Snakemake does before a rerun
            (done.output / name).unlink()
        again = {key: value for key, value in settings.items() if key != "data"}
        done.configure(save_every=3, keep=9, keep_best=keep_best, **again)
        done.train()
        assert load_checkpoint(done.output / "last.pth")["iteration"] == expected
        assert read_json(done.output / "train.json")["result_iteration"] == expected


def test_best_of_an_unmeasured_run_is_refused(run, heldout):
    done = run(data=heldout, epochs=1).train()
    done.configure(epochs=1, keep_best=True, validate_every=3)
    with pytest.raises(UserError, match=r"no kept checkpoint was measured(.|\n)*Fix"):
        done.train()
