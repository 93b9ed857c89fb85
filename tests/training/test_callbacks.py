"""The events of a training, in their order, as a callback of anyone sees them."""

from snaketune.core.errors import Interrupted
from snaketune.experiment.resolved import read_resolved
from snaketune.training.callbacks import Callback
from snaketune.training.train_run import train


class Recorder(Callback):
    def __init__(self) -> None:
        self.events = []

    def on_start(self) -> None:
        self.events.append("start")

    def on_ready(self, control) -> None:
        self.events.append(f"ready {control.iteration}/{control.total}")

    def on_iteration(self, row, control) -> None:
        self.events.append(f"iteration {row.iteration}")

    def on_update(self, row) -> None:
        self.events.append(f"update {row.update}")

    def on_validation(self, row) -> None:
        self.events.append(f"validation {row.iteration}")

    def on_checkpoint(self, iteration, path) -> None:
        assert path.exists()
        self.events.append(f"checkpoint {iteration}")

    def on_iteration_end(self, row) -> None:
        self.events.append(f"iteration end {row.iteration}")

    def on_end(self, error) -> None:
        self.events.append(f"end {error}")


def test_order_of_events(run, make_data):
    made = run(data=make_data(heldout=0.25), max_steps=1, accumulate=2, validate_every=2)
    recorder = Recorder()
    experiment = read_resolved(made.resolved)
    train(experiment, made.base, made.data, made.output, callbacks=[recorder])
    assert recorder.events == [
        *("start", "ready 0/2", "iteration 1", "iteration end 1"),
        *("iteration 2", "update 1", "validation 2", "checkpoint 2", "end None"),
    ]


def test_callback_sees_how_a_run_ended(run, crash, monkeypatch):
    recorder, stopped = Recorder(), run()
    monkeypatch.setattr(
        type(stopped),
        "train",
        lambda self: train(
            read_resolved(self.resolved), self.base, self.data, self.output, callbacks=[recorder]
        ),
    )
    crash(stopped, 3, Interrupted(15, "SIGTERM"))
    assert recorder.events[-1] == "end SIGTERM"
