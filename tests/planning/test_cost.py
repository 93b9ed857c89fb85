"""Times, memory and disk against figures worked out by hand, and against the loaded model."""

import pytest

from snaketune.planning import cost
from snaketune.planning.cost import PACE, PendingTraining, of_stage, of_training
from snaketune.planning.job import Job, PreviousResult
from snaketune.planning.runs import Run

SETTINGS = dict.fromkeys(PACE) | {
    "method.name": "lora",
    "max_length": 256,
    "train.keep": 3,
    "train.save_every": 10,
    "train.keep_best": False,
}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "gpus", lambda: 0)
    monkeypatch.chdir(tmp_path)


def ahead(**changes):
    given = {
        "name": "x",
        "base_id": "b",
        "settings": SETTINGS,
        "begins": 0,
        "iterations": 100,
        "tokens": 2000,
        "longest": 256,
        "kept": 0,
    }
    return PendingTraining(**given | changes)


def run(tmp_path, name="y", settings=SETTINGS, **changes):
    given = {
        "name": name,
        "folder": tmp_path / name,
        "base_id": "b",
        "settings": settings,
        "device": "cpu",
        "finished": True,
        "seconds": 50.0,
        "iterations": 40,
        "tokens": 1000,
        "peak": 7 * 2**30,
        "checkpoint": 10,
    }
    return Run(**given | changes)


def test_time_is_by_tokens_with_what_training_takes_besides(tmp_path):
    before = run(tmp_path)
    past = [PreviousResult(str(before.folder / "last.pth"), 62.0, 1.0, frozenset())]
    found = of_training(ahead(), [before], past)
    assert found.seconds == pytest.approx(2000 / 1000 * 50 + 12)
    assert found.basis == "y: 50 s for 40 iterations"
    assert found.memory == 7 * 2**30
    assert found.disk == 3 * 10


def test_what_is_left_of_an_interrupted_run(tmp_path):
    found = of_training(ahead(begins=75, kept=2), [run(tmp_path, finished=False)], [])
    assert found.seconds == pytest.approx(100 / 4)
    assert found.disk == 10


@pytest.mark.parametrize(
    ("begins", "iterations", "checkpoints"),
    [(0, 12, 2), (0, 10, 1), (10, 15, 1), (0, 100, 3), (100, 100, 0), (0, None, 3)],
)
def test_no_more_checkpoints_are_written_than_there_are_iterations(
    tmp_path, begins, iterations, checkpoints
):
    found = of_training(ahead(begins=begins, iterations=iterations), [run(tmp_path)], [])
    assert found.disk == 10 * checkpoints


def test_unprepared_data_leaves_the_time_unknown(tmp_path):
    found = of_training(ahead(iterations=None, tokens=None), [run(tmp_path)], [])
    assert found.seconds is None
    assert "the data will tell how many" in found.basis


def test_the_run_most_alike_is_the_measure(tmp_path):
    longer = run(tmp_path, "x", SETTINGS | {"max_length": 512})
    same = run(tmp_path, "same")
    others = [run(tmp_path, "gpu", device="gpu"), run(tmp_path, "base", base_id="c")]
    assert of_training(ahead(), [longer, same, *others], []).basis.startswith("same:")
    told = of_training(ahead(), [longer, *others], [])
    assert told.basis == "x: 50 s for 40 iterations with max_length 512"
    assert told.memory is None
    assert of_training(ahead(), others, []).basis == "never trained here"


def past(path, seconds=1.0, ended=1.0, inputs=()):
    return PreviousResult(path, seconds, ended, frozenset(inputs))


def test_a_stage_takes_as_long_as_last_time():
    known = [past("experiments/y/merged", 5.0, 9.0), past("experiments/x/merged", 3.0, 1.0)]
    found = of_stage(Job("merge", {}, ["experiments/x/merged"], past=known), None)
    assert (found.seconds, found.basis) == (3.0, "last time")


def test_else_as_what_has_most_in_common_and_is_newest():
    known = [
        past("experiments/p/merged", 5.0, 9.0, ["other"]),
        past("experiments/q/merged", 3.0, 1.0, ["base"]),
        past("experiments/r/merged", 4.0, 2.0, ["base"]),
    ]
    found = of_stage(Job("merge", {}, ["experiments/x/merged"], ["base"], past=known), None)
    assert (found.seconds, found.basis) == (4.0, "r")


def test_another_base_model_does_not_tell_how_long_fetching_takes():
    known = [past("store/models/a/provenance.json")]
    found = of_stage(Job("fetch_base", {}, ["store/models/b/provenance.json"], past=known), None)
    assert (found.seconds, found.basis, found.disk) == (None, "never run here", None)


def test_disk_is_what_the_result_holds_or_the_base_models_weights(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(bytes(70))
    (base / "tokenizer.json").write_bytes(bytes(9))
    assert of_stage(Job("merge", {}, ["experiments/x/merged"]), base).disk == 70
    made = tmp_path / "experiments/x/merged"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(33))
    again = Job("merge", {}, ["experiments/x/merged"], past=[past("experiments/x/merged")])
    assert of_stage(again, base).disk == 33
