"""Earlier runs: their settings against the ids that decide what reruns, and their figures."""

import json

import pytest

from snaketune.experiment import load_studies, train_id
from snaketune.experiment.resolved import resolved_values, to_yaml
from snaketune.experiment.settings import settings
from snaketune.planning.runs import changes, last_run, of_data, past_runs, settings_of
from study_results import STUDY, write_results, write_study

CHANGED = {
    "lr": ("lr: 3e-4", "lr: 4e-4", "train.lr"),
    "epochs": ("epochs: 1", "epochs: 2", "train.epochs"),
    "validation": ("epochs: 1", "epochs: 1, validate_every: 5", None),
    "rank": ("r: 16", "r: 8", "method.r"),
    "length": ("max_length: 256", "max_length: 128", "max_length"),
    "held out": ("evaluate: {", "evaluate: {heldout: 0.2, ", "evaluate.heldout"),
    "weight": ("weight: 20", "weight: 10", "data"),
    "keep": ("epochs: 1", "epochs: 1, keep: 9", None),
    "checkpointing": ("epochs: 1", "epochs: 1, gradient_checkpointing: true", None),
    "save": ("save_every: 20", "save_every: 10", None),
    "samples": ("every: 4", "every: 9", None),
    "probes": ("[identity, leak, retention]", "[identity]", None),
    "export": ("max_length", "export: {dtype: fp16}\nmax_length", None),
    "description": ("A persona", "Another persona", None),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def experiment(folder, text=STUDY, name="study_none"):
    write_study(folder, text)
    return load_studies(folder / "experiments").experiments[name]


def now(experiment):
    return settings_of(resolved_values(experiment))


@pytest.mark.parametrize("change", CHANGED)
def test_the_settings_that_change_weights_are_those_that_change_the_id(folder, change):
    old, new, key = CHANGED[change]
    before, after = experiment(folder), experiment(folder, STUDY.replace(old, new, 1))
    found = changes(now(before), now(after))
    assert list(found) == ([key] if key else [])
    assert bool(found) == (train_id(before) != train_id(after))


def test_a_choice_of_checkpoint_is_a_change_without_another_id(folder):
    before = experiment(folder, STUDY.replace("epochs: 1", "epochs: 1, validate_every: 5", 1))
    after = experiment(
        folder, STUDY.replace("epochs: 1", "epochs: 1, validate_every: 5, keep_best: true", 1)
    )
    assert changes(now(before), now(after)) == {"train.keep_best": (False, True)}
    assert train_id(before) == train_id(after)


def test_they_have_the_keys_by_which_variants_are_compared(folder):
    found = experiment(folder)
    own, compared = now(found), settings(found)
    assert own.keys() == compared.keys() | {"deepspeed_json"}
    same = compared.keys() - {"model"}  # its origin here, as a catalog may be edited
    assert {key: own[key] for key in same} == {key: compared[key] for key in same}


def test_what_makes_other_data(folder):
    told = {key for key in now(experiment(folder)) if of_data(key)}
    assert {"data", "template", "max_length", "pack", "model", "evaluate.heldout"} <= told
    assert not {"train.lr", "method.r", "evaluate.probes"} & told


def write_run(folder, found, **figures):
    write_results(folder, found, **figures)
    checkpoints = folder / "experiments" / found.name / "checkpoints"
    (checkpoints / "resolved.yaml").write_text(to_yaml(resolved_values(found)))
    return checkpoints


def test_a_finished_run_tells_its_figures(folder):
    found = experiment(folder)
    checkpoints = write_run(folder, found, iterations=12, seconds=60.0, memory=10**9)
    [run] = past_runs(folder / "experiments")
    told = json.loads((checkpoints / "train.json").read_text())
    assert (run.name, run.finished, run.device) == ("study_none", True, "cpu")
    assert (run.iterations, run.tokens) == (told["iterations"], told["tokens"])
    assert run.seconds == told["training_seconds"]
    assert (run.peak, run.checkpoint) == (10**9, 50_000)


def test_an_unfinished_run_tells_them_by_its_last_iterations(folder):
    checkpoints = write_run(folder, experiment(folder), iterations=2000)
    (checkpoints / "train.json").unlink()
    rows = [json.loads(row) for row in (checkpoints / "metrics.jsonl").read_text().splitlines()]
    [run] = past_runs(folder / "experiments")
    assert not run.finished
    assert 100 < run.iterations < 2000
    assert run.tokens == sum(row["tokens"] for row in rows[-run.iterations :])
    assert run.seconds == pytest.approx(sum(row["time_seconds"] for row in rows[-run.iterations :]))


def test_a_run_set_aside_counts_too_and_one_that_tells_nothing_does_not(folder):
    found = experiment(folder)
    aside = write_run(folder, found).rename(folder / "aside")
    other = folder / "experiments" / found.name / "checkpoints"
    (other / "superseded").mkdir(parents=True)
    aside.rename(other / "superseded" / "abc")
    (other / "metrics.jsonl").write_text('{"iteration": 1}\n')
    (other / "resolved.yaml").write_text("train_id: [")
    assert last_run(other) is None
    assert [run.folder.name for run in past_runs(folder / "experiments")] == ["abc"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"training_seconds": 1, "iterations": 2}'])
def test_a_damaged_run_tells_nothing_and_stops_no_plan(folder, text):
    checkpoints = write_run(folder, experiment(folder))
    (checkpoints / "train.json").write_text(text)
    assert list(past_runs(folder / "experiments")) == []


def test_an_earlier_versions_file_has_the_defaults_of_keys_it_lacks(folder):
    found = experiment(folder)
    values = resolved_values(found)
    del values["config"]["train"]["validate_every"]
    del values["deepspeed_json"]
    (folder / "resolved.yaml").write_text(to_yaml(values))
    resolved, told = last_run(folder)
    assert resolved.train_id == train_id(found)
    assert changes(told, now(found)) == {}
