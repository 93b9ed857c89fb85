"""A whole tiny run against a real MLflow server: one that dies meanwhile, one that asks who."""

import shutil

import mlflow
import pytest

from mlflow_server import Server
from snaketune.core.files import read_json
from snaketune.experiment.resolved import read_resolved
from snaketune.tracking import mirror
from snaketune.tracking.mirror import Mirror
from snaketune.tracking.registry import register
from snaketune.tracking.results import METRICS
from snaketune.tracking.tracked_run import TrackedRun, send_run
from tiny_run import Run

PASSWORD = "a-sEcReT-0123"  # MLflow wants twelve characters


@pytest.fixture
def reach(monkeypatch):
    """Return a function that points to a server, as a user does."""

    def use(url, **login):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        for name in ("USERNAME", "PASSWORD", "TOKEN"):
            monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
        for name, value in login.items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name.upper()}", value)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    return use


def point_by_point(client, run):
    found = read_json(run.output / "mlflow.json")["run_id"]
    return {
        key: sorted((m.step, m.value) for m in client.get_metric_history(found, name))
        for key, name in METRICS.items()
    }


def expected(run):
    rows = run.metrics()
    return {
        key: [(row["iteration"], row[key]) for row in rows if row.get(key) is not None]
        for key in METRICS
    }


def test_a_server_killed_in_the_middle_leaves_no_gap(
    empty_store, base, data, reach, tmp_path, monkeypatch, caplog
):
    server = Server(tmp_path / "server")
    shutil.copyfile(empty_store, server.folder / "mlflow.db")
    server.start()
    reach(server.url)
    on_iteration_end = Mirror.on_iteration_end
    monkeypatch.setattr(mirror, "SECONDS_BETWEEN", 0)

    def killing(self, row):
        on_iteration_end(self, row)
        if row.iteration == 12:
            server.kill()

    monkeypatch.setattr(Mirror, "on_iteration_end", killing)
    try:
        run = Run(tmp_path / "run", base, data)
        run.mirrored = True
        run.train()
        told = [each.getMessage() for each in caplog.records if "MLflow" in each.getMessage()]
        assert len(told) == 1 and "snakemake track" in told[0]
        noted = read_json(run.output / "mlflow.json")
        assert noted["iteration"] == 12
        server.start()
        client = mlflow.MlflowClient(server.url)
        assert client.get_run(noted["run_id"]).info.status == "RUNNING"
        TrackedRun(run.output, read_resolved(run.resolved)).catch_up()
        assert point_by_point(client, run) == expected(run)
        assert len(run.metrics()) == 24
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        assert [each.info.run_id for each in runs] == [noted["run_id"]]
        assert runs[0].info.status == "FINISHED"
        artifacts = {file.path for file in client.list_artifacts(noted["run_id"])}
        assert artifacts == {"resolved.yaml", "samples.json", "train.json"}
    finally:
        server.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that asks who one is, with MLflow's own basic-auth app."""
    pytest.importorskip("flask_wtf", reason="pip install 'mlflow[auth]' for this test")
    folder = tmp_path_factory.mktemp("guarded")
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/users.db\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = Server(
        folder,
        app="basic-auth",
        MLFLOW_AUTH_CONFIG_PATH=str(settings),
        MLFLOW_FLASK_SERVER_SECRET_KEY="only for this test",
    )
    yield server.start()
    server.kill()


def test_login_is_used_and_stored_nowhere(
    guarded, base, data, merge_run, reach, tmp_path, caplog, capfd
):
    reach(guarded.url, username="admin", password=PASSWORD)
    with caplog.at_level("DEBUG", logger="snaketune"):
        run = Run(tmp_path / "run", base, data)
        run.mirrored = True
        run.train()
        merge_run(run)
        register(run.folder / "merged", run.output, run.folder / "registered")
    client = mlflow.MlflowClient(guarded.url)
    assert point_by_point(client, run) == expected(run)
    assert client.get_model_version("run", "1").status == "READY"
    loaded = mlflow.transformers.load_model("models:/run/1")
    assert loaded.model.num_parameters() > 0
    assert not list(run.folder.glob(".mlflow.*"))
    shown = caplog.text + "".join(capfd.readouterr())
    assert PASSWORD not in shown
    for file in run.folder.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


def test_a_wrong_password_costs_a_warning_or_says_what_to_set(
    guarded, run, reach, tmp_path, caplog
):
    reach(guarded.url, username="admin", password="not-" + PASSWORD)
    done = run().train()
    send_run(done.output)
    told = [each.getMessage() for each in caplog.records if "MLflow" in each.getMessage()]
    assert len(told) == 1 and PASSWORD not in told[0]
    assert not (done.output / "mlflow.json").exists()


def test_a_token_is_sent_as_such(run, reach, monkeypatch):
    """A server with tokens is no part of MLflow: what the client sends is looked at."""
    import http.server
    import threading

    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.send_error(403)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    listener = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    reach(f"http://127.0.0.1:{listener.server_port}", token="tok-sEcReT")
    done = run().train()
    with pytest.raises(Exception, match="403"):
        TrackedRun(done.output, read_resolved(done.resolved)).catch_up()
    listener.shutdown()
    assert seen and set(seen) == {"Bearer tok-sEcReT"}
