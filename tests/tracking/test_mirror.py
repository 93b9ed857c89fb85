"""What MLflow is told, against the files that were written and a store read back."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest

import track
import ui
from snaketune.core.errors import Interrupted, UserError
from snaketune.core.files import read_json, read_jsonl
from snaketune.experiment.resolved import read_resolved
from snaketune.tracking import describe, mirror
from snaketune.tracking import tracked_run as tracked
from snaketune.tracking.mirror import Mirror
from snaketune.tracking.mlflow_client import git_commit, without_password
from snaketune.tracking.results import METRICS
from snaketune.tracking.tracked_run import TrackedRun
from tiny_run import Run

SECRETS = {"HF_TOKEN": "hf_sEcReT1", "MLFLOW_TRACKING_PASSWORD": "sEcReT2"}
"""As conftest.py sets them."""

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
DEAD = "http://me:sEcReT3@127.0.0.1:9"


@pytest.fixture(scope="module")
def finished(store, base, data, tmp_path_factory):
    sample = {"prompts": ["Say 3", "你好, " + 9000 * "x"]}
    run = Run(tmp_path_factory.mktemp("finished"), base, data, sample=sample)
    run.mirrored = True
    return run.train()


@pytest.fixture
def every_iteration(monkeypatch, store):
    monkeypatch.setattr(mirror, "SECONDS_BETWEEN", 0)


def run_id(run) -> str:
    return read_json(run.output / "mlflow.json")["run_id"]


def status(client, run) -> str:
    return client.get_run(run_id(run)).info.status


def history(client, run, name) -> list[tuple[int, float]]:
    found = client.get_metric_history(run_id(run), name)
    return sorted((metric.step, metric.value) for metric in found)


def written(run, name) -> list[tuple[int, float]]:
    rows = [row for row in run.metrics() if row.get(name) is not None]
    return [(row["iteration"], row[name]) for row in rows]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_equals_the_file_at_every_iteration(client, finished, name):
    assert history(client, finished, METRICS[name]) == written(finished, name)
    on_gpus = name in ("peak_allocated_bytes", "peak_reserved_bytes")
    expected = 8 if name in ("update_loss", "grad_norm") else 0 if on_gpus else 24
    assert len(written(finished, name)) == expected


def test_losses_are_also_sent_by_tokens_seen(client, finished):
    seen, expected = 0, []
    for row in finished.metrics():
        seen += row["tokens"]
        if row["update"]:
            expected.append((seen, row["update_loss"]))
    assert history(client, finished, "update_loss_by_tokens") == expected
    assert len(expected) == 8


def test_held_out_losses_are_sent_once(client, mirrored_run, make_data):
    done = mirrored_run(data=make_data(heldout=0.25), validate_every=6).train()
    TrackedRun(done.output, read_resolved(done.resolved)).catch_up()
    rows = read_jsonl(done.output / "validation.jsonl")
    expected = [(row["iteration"], row["heldout_loss"]) for row in rows]
    assert history(client, done, "heldout_loss") == expected
    tokens = {row["iteration"]: row["tokens"] for row in done.metrics()}
    seen = [sum(tokens[n] for n in range(1, step + 1)) for step, _ in expected]
    assert [step for step, _ in history(client, done, "heldout_loss_by_tokens")] == seen
    assert len(expected) == 3


def test_parameters_are_the_whole_configuration_by_dotted_key(client, finished):
    params = client.get_run(run_id(finished)).data.params
    config = read_resolved(finished.resolved).config.model_dump()
    sections = {key for key, value in config.items() if isinstance(value, dict)}
    expected = {f"{section}.{key}" for section in sections for key in config[section]}
    assert params.keys() == expected | config.keys() - sections
    assert params["train.lr"] == "0.0002"
    assert params["method.target_modules"] == "all-linear"
    assert params["evaluate.prompts"] == "null"
    prompts = params["sample.prompts"]
    assert prompts.startswith('["Say 3", "你好, xxx')
    assert len(prompts) == 6000


def test_many_parameters_are_sent_in_several_requests(client, finished, monkeypatch):
    many = {f"key{number}": number for number in range(250)}
    pairs = [(key, str(value)) for key, value in many.items()]
    monkeypatch.setattr(describe, "params", lambda _: pairs)
    note = finished.output / "mlflow.json"
    before = note.read_text()
    note.unlink()
    TrackedRun(finished.output, read_resolved(finished.resolved)).catch_up()
    params = client.get_run(run_id(finished)).data.params
    note.write_text(before)
    assert params == dict(pairs)


def test_the_run_is_named_tagged_and_finished(client, finished):
    found = client.get_run(run_id(finished))
    tags = found.data.tags
    assert client.get_experiment(found.info.experiment_id).name == "study"
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    ids = {"base_id": "base-id", "data_id": "data-id", "train_id": "0123456789ab"}
    assert {key: tags[key] for key in ids} == ids
    assert (tags["study"], tags["variant"]) == ("study", "")
    assert (tags["version.torch"], tags["version.peft"]) == (version("torch"), version("peft"))
    assert tags["git_commit"] == git_commit()


def test_samples_and_files_can_be_downloaded(client, finished, tmp_path):
    def download(name):
        return client.download_artifacts(run_id(finished), name, str(tmp_path))

    table = read_json(tmp_path / download("samples.json"))
    samples = read_jsonl(finished.output / "samples.jsonl")
    steps = [f"iteration_{step}" for step in (0, 8, 16, 24)]
    assert table["columns"] == ["prompt", "answer", *steps]
    for prompt, answer, *in_turn in table["data"]:
        assert in_turn == [row["answer"] for row in samples if row["prompt"] == prompt]
        assert answer == in_turn[-1]
    assert [row[0] for row in table["data"]] == ["Say 3", "你好, " + 9000 * "x"]
    for name in ("resolved.yaml", "train.json"):
        assert Path(download(name)).read_text() == (finished.output / name).read_text()


def test_the_runs_figures_are_metrics_to_sort_by(client, finished):
    metrics = client.get_run(run_id(finished)).data.metrics
    figures = read_json(finished.output / "train.json")
    assert metrics["cost/seconds"] == figures["training_seconds"]
    assert metrics["cost/peak_mib"] == figures["peak_rss_bytes"] / 2**20
    assert metrics["cost/tokens"] == sum(row["tokens"] for row in finished.metrics())


def test_catching_up_twice_adds_nothing(client, finished):
    before = {name: history(client, finished, name) for name in (*METRICS.values(), "cost/tokens")}
    for _ in range(2):
        TrackedRun(finished.output, read_resolved(finished.resolved)).catch_up()
    assert {name: history(client, finished, name) for name in before} == before
    assert len(before["cost/tokens"]) == 1


def test_a_crashed_run_failed_and_goes_on_as_the_same_run(
    client, mirrored_run, crash, every_iteration, monkeypatch
):
    run, seen = mirrored_run(), []
    crash(run, 15)
    failed = run_id(run)
    assert status(client, run) == "FAILED"
    assert history(client, run, "loss") == written(run, "loss")
    on_iteration_end = Mirror.on_iteration_end

    def watched(self, row):
        on_iteration_end(self, row)
        seen.append(status(client, run))

    monkeypatch.setattr(Mirror, "on_iteration_end", watched)
    run.train()
    assert run_id(run) == failed
    assert set(seen) == {"RUNNING"}
    assert status(client, run) == "FINISHED"
    assert history(client, run, "loss") == written(run, "loss")
    assert [step for step, _ in history(client, run, "lr")] == list(range(1, 25))


def test_a_stopped_run_is_killed(client, mirrored_run, crash, store):
    run = mirrored_run()
    crash(run, 5, Interrupted(15, "SIGTERM"))
    assert status(client, run) == "KILLED"


def test_other_settings_are_another_run(client, mirrored_run, crash, store):
    run = mirrored_run()
    crash(run, 5)
    first = run_id(run)
    run.configure(train_id="another-id00", lr=1e-3)
    run.train()
    assert run_id(run) != first
    assert status(client, run) == "FINISHED"


@pytest.mark.parametrize("lost_at", [1, 2, 4])
def test_lost_server_leaves_no_gap_and_no_duplicate(
    client, mirrored_run, store, monkeypatch, lost_at
):
    run, sizes = mirrored_run(), []
    log_batch = mlflow.MlflowClient.log_batch

    def lost(self, run_id, metrics=(), **others):
        sizes.append(len(metrics))
        if len(sizes) == lost_at:
            raise ConnectionError("gone")
        log_batch(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(tracked, "_BATCH", 40)
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lost)
    before = len(client.search_runs(["1"]))
    run.train()
    TrackedRun(run.output, read_resolved(run.resolved)).catch_up()
    assert len(client.search_runs(["1"])) == before + 1
    assert status(client, run) == "FINISHED"
    assert history(client, run, "loss") == written(run, "loss")
    assert client.get_run(run_id(run)).data.params["train.lr"] == "0.0002"
    assert max(sizes) <= 40


def test_a_server_that_comes_back_is_used_again(client, mirrored_run, every_iteration, monkeypatch):
    run, answers = mirrored_run(), iter([False] * 5)
    send = Mirror._send

    def sometimes(self, status):
        if next(answers, True) is False:
            raise ConnectionError("gone")
        send(self, status)

    monkeypatch.setattr(mirror, "SECONDS_AFTER_FAILURE", 0)
    monkeypatch.setattr(Mirror, "_send", sometimes)
    run.train()
    assert status(client, run) == "FINISHED"
    assert history(client, run, "loss") == written(run, "loss")


def test_a_server_that_failed_is_asked_again_only_at_the_end(mirrored_run, store, monkeypatch):
    run, asked = mirrored_run(), []

    def dead(self, status):
        asked.append(status)
        raise ConnectionError("gone")

    monkeypatch.setattr(Mirror, "_send", dead)
    run.train()
    assert asked == ["RUNNING", "FINISHED"]


def test_setting_without_effect_may_change_before_resume(client, mirrored_run, crash, store):
    run = mirrored_run(keep=3)
    crash(run, 15)
    run.configure(keep=5)
    run.train()
    assert status(client, run) == "FINISHED"
    assert client.get_run(run_id(run)).data.params["train.keep"] == "3"
    assert history(client, run, "loss") == written(run, "loss")


def test_a_run_deleted_in_mlflow_is_sent_anew(client, mirrored_run, crash, store):
    run = mirrored_run()
    crash(run, 15)
    deleted = run_id(run)
    client.delete_run(deleted)
    run.train()
    assert run_id(run) != deleted
    assert history(client, run, "loss") == written(run, "loss")


@pytest.mark.parametrize(
    ("error", "left", "tracked"),
    [
        (Interrupted(15, "SIGTERM"), "KILLED", "KILLED"),
        (SystemError("crashed"), "FAILED", "FAILED"),
        (None, "RUNNING", "FAILED"),
    ],
)
def test_track_leaves_the_state_of_a_run_unless_nobody_runs_it(
    client, mirrored_run, crash, store, monkeypatch, error, left, tracked
):
    run = mirrored_run()
    if error is None:  # a kill -9: nothing is said at the end
        monkeypatch.setattr(Mirror, "on_end", lambda *_: None)
    crash(run, 15, error)
    assert status(client, run) == left
    TrackedRun(run.output, read_resolved(run.resolved)).catch_up()
    assert status(client, run) == tracked


def test_track_leaves_a_run_alone_that_is_being_trained(
    mirrored_run, crash, store, monkeypatch, own_logging, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    run = mirrored_run("experiments/run")
    crash(run, 5)
    before = (run.output / "mlflow.json").read_text()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.output.with_name(".checkpoints.lock"))],
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    track.main([])
    holder.kill()
    assert "run is being trained" in capsys.readouterr().err
    assert (run.output / "mlflow.json").read_text() == before


@pytest.fixture
def unreached(mirrored_run, store, monkeypatch, caplog, tmp_path):
    """A run trained while MLflow was down, with what was logged."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        run = mirrored_run("experiments/run").train()
    run.told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return run


def test_unreachable_server_costs_one_warning(unreached, client, monkeypatch, own_logging, capsys):
    warnings = [line for line in unreached.told if "MLflow" in line]
    assert len(warnings) == 1
    assert "snakemake track" in warnings[0]
    assert len(unreached.metrics()) == 24
    assert not (unreached.output / "mlflow.json").exists()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match=r"other: no results are there\. Known: run"):
        track.main(["other"])
    assert not (unreached.output / "mlflow.json").exists()
    track.main([])
    assert "run is in MLflow at sqlite:" in capsys.readouterr().err
    assert history(client, unreached, "loss") == written(unreached, "loss")
    assert status(client, unreached) == "FINISHED"


def test_track_says_how_to_reach_a_server_that_is_down(unreached, own_logging):
    with pytest.raises(UserError, match=r"did not take(.|\n)*MLFLOW_TRACKING_URI") as error:
        track.main([])
    assert "sEcReT" not in str(error.value) + "".join(unreached.told)
    assert "http://***@127.0.0.1:9" in str(error.value)


def test_a_password_in_the_servers_address_is_not_stored(client, mirrored_run, crash, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda _: client)
    run = mirrored_run()
    crash(run, 15)
    first = run_id(run)
    run.train()
    assert run_id(run) == first  # it still knows the server again
    for file in run.folder.rglob("*"):
        assert not file.is_file() or b"sEcReT" not in file.read_bytes(), file


def test_secrets_of_the_environment_are_nowhere(finished, store):
    assert all(os.environ[name] == value for name, value in SECRETS.items())
    files = [file for top in (finished.folder, store) for file in top.rglob("*") if file.is_file()]
    assert any(file.name == "mlflow.db" for file in files)
    assert [file for file in files if b"sEcReT" in file.read_bytes()] == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:pw@host:5000/x", "http://***@host:5000/x"),
        ("failed: https://me:p@w@host/api@2 (x)", "failed: https://***@host/api@2 (x)"),
        ("postgresql://me:pw@db/mlflow", "postgresql://***@db/mlflow"),
        ("sqlite:///store/mlflow.db", "sqlite:///store/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_passwords_are_starred_out(address, shown):
    assert without_password(address) == shown


def test_the_ui_gets_the_store_and_shows_no_password(store, monkeypatch, own_logging, capsys):
    started = []
    monkeypatch.setattr(ui.lifetime, "run_server", lambda *arguments: started.append(arguments))
    ui.main(["--port", "5001"])
    ui_of_default_store = started[0][1]["MLFLOW_BACKEND_STORE_URI"]
    assert ui_of_default_store == f"sqlite:///{store}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:sEcReT3@db/mlflow")
    ui.main([])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    ui.main([])
    assert len(started) == 2  # a server has its own pages
    assert "sEcReT" not in str([command for command, _ in started])
    told = capsys.readouterr().err
    assert "http://127.0.0.1:5001" in told and "http://***@127.0.0.1:9" in told
    assert "sEcReT" not in told


def test_the_commit_says_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == ""
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    git("tag", "v1")
    assert git_commit() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert git_commit() == git("rev-parse", "HEAD") + "-dirty"
