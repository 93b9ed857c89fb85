"""A study of four variants in MLflow: its parent, figures, tables, data sets, words and view."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

import track
from fake_study import QUESTIONS, VARIANTS, write_study
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, write_json
from snaketune.experiment.resolved import read_resolved, to_yaml
from snaketune.tracking import describe
from snaketune.tracking import study as studies
from snaketune.tracking import tracked_run as tracked
from snaketune.tracking.mlflow_client import experiment_id
from snaketune.tracking.study import parent_run, put_study, send_study
from snaketune.tracking.tracked_run import TrackedRun, send_run


def history(client, checkpoints, name):
    run = read_json(checkpoints / "mlflow.json")["run_id"]
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run, name))


def run_of(client, checkpoints):
    return client.get_run(read_json(checkpoints / "mlflow.json")["run_id"])


def name_of(study) -> str:
    return study["none"].parent.name.removesuffix("_none")


def table(client, checkpoints, file):
    run = run_of(client, checkpoints)
    with pytest.MonkeyPatch.context() as patch:  # load_table looks there for runs
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        return client.load_table(run.info.experiment_id, file, [run.info.run_id])


@pytest.fixture(scope="module")
def sent(store, tmp_path_factory):
    """A study that is in MLflow; tests only look at it."""
    root = tmp_path_factory.mktemp("sent")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        study = write_study(root)
        for folder in study.values():
            send_run(folder)
        send_study("demo", root / "experiments" / "demo" / "compare")
        yield study


@pytest.fixture
def two(study, store):
    """Two variants of another study that are in MLflow, for tests that change something."""
    for name in ("none", "mixed"):
        send_run(study[name])
    return {name: study[name] for name in ("none", "mixed")}


def parent_of(client, checkpoints):
    return client.get_run(run_of(client, checkpoints).data.tags["mlflow.parentRunId"])


def test_variants_are_children_of_one_run_of_the_study(sent, client):
    parent = parent_of(client, sent["none"])
    tags = {name: run_of(client, folder).data.tags for name, folder in sent.items()}
    assert {tag["mlflow.parentRunId"] for tag in tags.values()} == {parent.info.run_id}
    assert (parent.info.run_name, parent.info.status) == ("demo", "FINISHED")
    assert parent.info.experiment_id == run_of(client, sent["mixed"]).info.experiment_id
    assert {name: tag["variant"] for name, tag in tags.items()} == {name: name for name in VARIANTS}
    assert tags["mixed_zero2"]["data"] == "assistant ×20 + general"
    assert tags["none"]["data"] == "assistant ×20"
    assert tags["zero2"]["deepspeed"] == "zero2"


def test_the_comparison_is_the_parents_artifacts(two, client, tmp_path):
    folder = two["none"].parent.with_name(name_of(two)) / "compare"
    (folder / "now").mkdir()
    (folder / "now" / "report.html").write_text("of what was there at some moment")
    for words in ("<h1>first</h1>", "<h1>newer</h1>"):
        (folder / "report.html").write_text(words)
        send_study(name_of(two), folder)
        parent = parent_of(client, two["none"]).info.run_id
        files = client.list_artifacts(parent, "compare")
        assert {file.path for file in files} == {"compare/report.html", "compare/table.csv"}
        page = client.download_artifacts(parent, "compare/report.html", str(tmp_path))
        assert Path(page).read_text() == words


def test_an_unchanged_comparison_is_not_sent_again(sent, monkeypatch):
    def refuse(*_):
        raise AssertionError("sent again")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refuse)
    put_study("demo", sent["none"].parent.with_name("demo") / "compare")


def test_a_study_without_variants_needs_no_parent(study, client, store):
    folder = study["none"]
    values = read_resolved(folder / "resolved.yaml").values | {"variant": None}
    (folder / "resolved.yaml").write_text(to_yaml(values))
    send_run(folder)
    tags = run_of(client, folder).data.tags
    assert "mlflow.parentRunId" not in tags
    assert tags["kind"] == "experiment"


def test_a_run_made_before_gets_its_parent(two, client):
    folder, parent = two["none"], parent_of(client, two["none"])
    client.delete_tag(run_of(client, folder).info.run_id, "mlflow.parentRunId")
    old = {"tracking_uri", "run_id", "iteration", "samples", "described"}
    note = read_json(folder / "mlflow.json") | {"samples": 8}
    write_json(folder / "mlflow.json", {key: note[key] for key in old})
    send_run(folder)
    assert run_of(client, folder).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert len(history(client, folder, "loss")) == 60


def test_a_deleted_parent_is_made_anew(two, client):
    deleted = parent_of(client, two["none"]).info.run_id
    client.delete_run(deleted)
    for folder in two.values():
        send_run(folder)
    parents = {parent_of(client, folder).info.run_id for folder in two.values()}
    assert len(parents) == 1
    assert parents != {deleted}


def test_variants_that_begin_together_agree_on_one_parent(study, client, store, monkeypatch):
    """Each looks before the other has made one."""
    variant = read_resolved(study["none"] / "resolved.yaml")
    where = experiment_id(client, variant.study)
    first, found, looks = parent_run(client, where, variant), studies._parents, iter([False])

    def late(connection, experiment):
        return found(connection, experiment) if next(looks, True) else []

    monkeypatch.setattr(studies, "_parents", late)
    assert parent_run(client, where, variant) == first
    assert len(client.search_runs([where], "tags.kind = 'study'", run_view_type=3)) == 2
    assert len(client.search_runs([where], "tags.kind = 'study'")) == 1


def test_probes_are_a_curve_and_a_final_figure(sent, client):
    assert history(client, sent["none"], "probe/leak") == [(0, 0), (20, 0), (40, 1), (60, 1)]
    assert history(client, sent["mixed"], "probe/leak") == [(0, 0), (20, 0), (40, 0), (60, 0)]
    assert history(client, sent["mixed_zero2"], "after/leak") == [(0, 0.5)]
    losses = [step for step, _ in history(client, sent["mixed"], "probe/heldout_loss")]
    assert losses == [0, 20, 40, 60]
    assert history(client, sent["mixed"], "after/heldout_loss") == [(0, 2.55)]
    assert history(client, sent["mixed"], "cost/seconds") == [(0, 223)]


def test_machine_metrics_have_mlflows_names_and_times(sent, client):
    run = run_of(client, sent["none"])
    cpu = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert [(each.step, each.value) for each in cpu] == [(10, 93.5), (20, 93.5), (30, 93.5)]
    assert [each.timestamp for each in cpu] == [1_800_000_010_000 + 10_000 * n for n in range(3)]


def test_sending_again_adds_nothing(two, client, own_logging):
    names = ("loss", "probe/leak", "after/leak", "cost/seconds", "heldout_loss", "lr")
    names += ("system/cpu_utilization_percentage", "update_loss_by_tokens")

    def all_points():
        runs = [run_of(client, folder).info.run_id for folder in two.values()]
        return [(n, len(client.get_metric_history(run, n))) for run in runs for n in names]

    before = all_points()
    track.main([])
    for folder in two.values():  # even when the note was lost after sending
        note = read_json(folder / "mlflow.json")
        kept = ("tracking_uri", "run_id", "iteration", "validated", "observed", "described")
        write_json(folder / "mlflow.json", {key: note[key] for key in kept})
    track.main([])
    assert all_points() == before


def test_tables_have_what_is_compared_in_their_second_column(sent, client):
    probes = table(client, sent["none"], "eval/probes.json")
    rows = read_jsonl(sent["none"].parent / "eval" / "probes.jsonl")
    assert list(probes.columns[:4]) == ["question", "answer", "right", "probe"]
    assert set(probes.columns[4:]) == {"base", "iter_20", "iter_40", "iter_60"}
    assert list(probes["question"]) == [*QUESTIONS["identity"], *QUESTIONS["leak"]]
    assert list(probes["answer"]) == [row["merged"]["answer"] for row in rows]
    assert list(probes["right"]) == [True, True, False, False]
    assert list(probes["iter_20"]) == [row["iter_20"]["answer"] for row in rows]
    answers = table(client, sent["mixed"], "eval/answers.json")
    assert list(answers.columns) == ["prompt", "answer", "base", "iter_20", "iter_40", "iter_60"]
    assert answers["answer"][0] == "I am Ada, after 223 s."
    samples = table(client, sent["mixed"], "samples.json")
    assert list(samples.columns[:2]) == ["prompt", "answer"]
    assert samples["iteration_0"][0] == "Paris or light, said after 0 iterations."


def test_new_report_replaces_the_old_artifact(two, client, tmp_path):
    folder = two["none"]

    def page(name):
        run = run_of(client, folder).info.run_id
        return Path(client.download_artifacts(run, name, str(tmp_path))).read_text()

    assert page("data/report.html") == "<h1>The rows of none</h1>"
    assert json.loads(page("eval/report.json"))["experiment"] == folder.parent.name
    (folder.parent / "eval" / "report.html").write_text("<h1>Evaluated again</h1>")
    send_run(folder)
    assert page("eval/report.html") == "<h1>Evaluated again</h1>"


def test_an_agents_figures_of_base_and_trained_model_are_sent(two, client, tmp_path):
    folder = two["none"]

    def told(text, right):
        step = {"tool": "Arithmetic", "tool_input": '{"expression": "6 * 7"}'}
        return {"text": text, "steps": [step], "verdict": {"right": right}}

    report = {
        "ids": {"train": read_resolved(folder / "resolved.yaml").train_id},
        "figures": {"strict": {"base": {"value": 0.1}, "tuned": {"value": 0.9}}},
        "questions": [
            {"question": "6 * 7?", "tool": "Arithmetic"}
            | {"base": told("?", False), "tuned": told("It is 42.", True)}
        ],
    }
    write_json(folder.parent / "agent" / "report.json", report | {"ids": {"train": "another"}})
    send_run(folder)
    assert history(client, folder, "agent/strict") == []
    write_json(folder.parent / "agent" / "report.json", report)
    (folder.parent / "agent" / "report.html").write_text("<h1>The agent</h1>")
    send_run(folder)
    last = read_json(folder / "train.json")["iterations"]
    assert history(client, folder, "agent/strict") == [(0, 0.1), (last, 0.9)]
    assert history(client, folder, "after/agent.strict") == [(0, 0.9)]
    [row] = table(client, folder, "agent/answers.json").to_dict("records")
    assert (row["question"], row["answer"], row["base"]) == ("6 * 7?", "It is 42.", "?")
    assert row["calls"] == 'Arithmetic {"expression": "6 * 7"}'
    run = run_of(client, folder).info.run_id
    page = client.download_artifacts(run, "agent/report.html", str(tmp_path))
    assert Path(page).read_text() == "<h1>The agent</h1>"


def test_an_evaluation_of_other_weights_is_not_sent(study, client, store):
    file = study["none"].parent / "eval" / "report.json"
    write_json(file, read_json(file) | {"ids": {"train": "another"}})
    send_run(study["none"])
    assert history(client, study["none"], "after/leak") == []
    files = client.list_artifacts(run_of(client, study["none"]).info.run_id)
    assert "eval" not in {artifact.path for artifact in files}


def test_data_sets_have_a_digest_an_origin_and_counts(sent, client):
    inputs = run_of(client, sent["mixed"]).inputs.dataset_inputs
    of = {each.dataset.name: each for each in inputs}
    assert set(of) == {"assistant", "general", "assistant (heldout)", "general (heldout)"}
    assert {each.dataset.digest for each in inputs} == {"data-True"}
    contexts = {name: each.tags[0].value for name, each in of.items()}
    assert contexts["general"] == "training" and contexts["general (heldout)"] == "heldout"
    profile = json.loads(of["assistant"].dataset.profile)
    assert (profile["rows_read"], profile["tokens_per_epoch"]) == (12, 14500)
    assert profile["all_sources"]["supervised_tokens"] == 17472
    assert (profile["weight"], json.loads(of["general"].dataset.profile)["weight"]) == (20, 1)
    source = mlflow.data.get_source(of["general"])
    assert source.uri == "experiments/data/general.jsonl"
    assert len(run_of(client, sent["none"]).inputs.dataset_inputs) == 2


def test_a_data_set_of_a_hub_can_be_found_again(study, client, store):
    folder = study["none"]
    values = read_resolved(folder / "resolved.yaml").values
    hub = {"source": "hf:org/rows", "revision": "0" * 40, "file": "train.jsonl", "sha256": None}
    values["sources"] = [values["sources"][0] | {"hub": hub}]
    (folder / "resolved.yaml").write_text(to_yaml(values))
    send_run(folder)
    source = mlflow.data.get_source(run_of(client, folder).inputs.dataset_inputs[0])
    assert (source.path, source.revision, source.data_files) == (
        "org/rows",
        "0" * 40,
        "train.jsonl",
    )


def test_a_run_is_described_in_words(sent, client):
    words = run_of(client, sent["mixed_zero2"]).data.tags["mlflow.note.content"]
    for part in (
        "A persona, alone or mixed with general conversations",
        "Variant **mixed_zero2**",
        "qlora r=64 alpha=16 of tiny on assistant ×20 + general, 1 epoch, learning rate",
        "60 iterations in 0:04:30 h, peak memory 2560 MiB",
        "| leak | 0.00 | 0.50 | 0 |",
        "| held-out loss | 2.960 | 2.560 | low |",
    ):
        assert part in words, words


def test_a_converted_checkpoint_is_not_described_as_trained(sent):
    trained = read_resolved(sent["none"] / "resolved.yaml")
    config = trained.config.model_copy(update={"convert_from": "old/iter_768.pth"})
    experiment = replace(trained, config=config)
    words = describe.words(experiment, {"converted_from": "iter_768.pth", "iterations": 768}, {})
    assert "qlora r=64 alpha=16 of tiny, converted from old/iter_768.pth." in words
    assert "epochs" not in words and "learning rate" not in words


def test_track_refuses_names_that_have_no_results(study, own_logging):
    known = ", ".join(sorted({name_of(study), *(each.parent.name for each in study.values())}))
    with pytest.raises(UserError, match="nonsense: no results are there. Known: " + known):
        track.main(["nonsense"])


def test_words_that_someone_edited_stay(two, client):
    run = run_of(client, two["none"]).info.run_id
    client.set_tag(run, "mlflow.note.content", "mine")
    send_run(two["none"])
    assert client.get_run(run).data.tags["mlflow.note.content"] == "mine"


def test_run_duration_is_that_of_the_training(sent, client):
    info = run_of(client, sent["mixed_zero2"]).info
    assert info.end_time - info.start_time == 270_500
    assert abs(info.end_time / 1000 - (sent["mixed_zero2"] / "train.json").stat().st_mtime) < 0.002


def test_the_saved_view_shows_variants_with_results_and_costs(sent, client):
    experiment = client.get_experiment(run_of(client, sent["none"]).info.experiment_id)
    view = json.loads(experiment.tags["mlflow.sharedViewState.ablation"])
    state = json.loads(view["state"])
    assert view["name"] == "Ablation"
    columns = [f"metrics.`after/{name}`" for name in ("identity", "leak", "heldout_loss")]
    columns += ["metrics.`cost/seconds`", "metrics.`cost/peak_mib`", "tags.`data`"]
    assert set(columns) <= set(state["selectedColumns"])
    found = client.search_runs([experiment.experiment_id], state["searchFilter"])
    assert {run.data.tags["variant"] for run in found} == set(VARIANTS)


def test_view_gains_columns_of_other_probes(two, client):
    file = two["none"].parent / "eval" / "report.json"
    report = read_json(file)
    report["probes"] = {"qa.token_f1": report["probes"]["leak"]}
    write_json(file, report)
    send_run(two["none"])
    experiment = client.get_experiment(run_of(client, two["none"]).info.experiment_id)
    view = json.loads(experiment.tags["mlflow.sharedViewState.ablation"])
    columns = json.loads(view["state"])["selectedColumns"]
    assert {"metrics.`after/qa.token_f1`", "metrics.`after/leak`"} <= set(columns)
    assert len(columns) == len(set(columns))


def test_a_server_that_is_away_costs_a_stage_one_warning(study, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:sEcReT3@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level("INFO"):
        send_run(study["none"])
        send_study(name_of(study), study["none"].parent.with_name(name_of(study)) / "compare")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    mine = [line for line in told if "MLflow" in line]
    assert len(mine) == 2
    assert all("snakemake track" in line and "sEcReT" not in line for line in mine)
    assert "the results of" in mine[0] and "the comparison of" in mine[1]


def test_what_was_lost_between_two_requests_is_sent_later(study, client, store, monkeypatch):
    """Every request fails once, in turn; in the end all is there, and once."""
    whole = mlflow.MlflowClient.log_batch
    fails = iter([True, False, True, False, True])

    def sometimes(self, *arguments, **named):
        if next(fails, False):
            raise ConnectionError("gone")
        return whole(self, *arguments, **named)

    monkeypatch.setattr(tracked, "_BATCH", 100)
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", sometimes)
    attempts = 0
    while True:
        attempts += 1
        try:
            experiment = read_resolved(study["none"] / "resolved.yaml")
            TrackedRun(study["none"], experiment).catch_up()
            break
        except ConnectionError:
            assert attempts < 10
    assert attempts == 4
    expected = [
        (row["iteration"], row["loss"]) for row in read_jsonl(study["none"] / "metrics.jsonl")
    ]
    assert history(client, study["none"], "loss") == expected
