"""Publishing through Snakemake: what runs, what it needs, and where the token does not go."""

import json
import re

import pytest

from stand_in import TOKEN, Hub

TARGET = "experiments/study_none/published"
TO = ("--config", "to=hf:me/tiny", "what=adapter")


@pytest.fixture
def hub():
    with Hub().running() as server:
        yield server


@pytest.fixture
def publishing(built, hub, monkeypatch):
    """The built project, pointed to the hub."""
    changes = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    monkeypatch.setattr(built, "environment", built.environment | changes)
    yield built
    for name in ("published", "to_publish.txt"):
        (built.folder / "experiments/study_none" / name).unlink(missing_ok=True)


def test_an_adapter_is_published_once(publishing, hub):
    output = publishing.snakemake(TARGET, *TO).stdout
    record = json.loads((publishing.folder / TARGET).read_text())
    assert record["revision"] == hub.repositories["me/tiny"].head
    assert {f["name"] for f in record["files"]} == set(hub.repositories["me/tiny"].files)
    assert hub.repositories["me/tiny"].private
    size = f"{record['files'][0]['bytes']:,}"
    assert re.search(rf"1 of \d+: {re.escape(record['files'][0]['name'])}, {size} bytes", output)
    assert publishing.would_run(TARGET, *TO) == {}
    assert publishing.would_run(TARGET, "--config", "to=hf:me/b", "what=adapter") == {"publish": 1}
    assert publishing.would_run("experiments/study_none/eval/report.html", *TO) == {}
    for path in publishing.folder.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    assert TOKEN not in output


def test_a_lost_connection_is_told_and_the_repeat_goes_on(publishing, hub):
    hub.fails = {"/commit/": 500}
    failed = publishing.snakemake(TARGET, *TO, check=False)
    assert failed.returncode != 0
    assert "the hub failed" in failed.stdout
    assert not (publishing.folder / TARGET).exists()
    assert len(hub.sent()) == 1
    hub.fails = {}
    publishing.snakemake(TARGET, *TO)
    assert hub.sent() == []


def test_private_false_makes_a_public_repository(publishing, hub):
    publishing.snakemake(TARGET, *TO, "private=false")
    assert not hub.repositories["me/tiny"].private


def test_the_list_needs_no_token_and_sends_nothing(publishing, hub):
    publishing.environment.pop("HF_TOKEN")
    output = publishing.snakemake("experiments/study_none/to_publish.txt", *TO).stdout
    text = (publishing.folder / "experiments/study_none/to_publish.txt").read_text()
    assert "adapter_model.safetensors" in text
    assert "nothing was sent" in output
    assert hub.requests == []


def test_a_missing_token_stops_before_the_first_job(publishing, hub):
    publishing.environment.pop("HF_TOKEN")
    target = "experiments/study_other/published"
    stopped = publishing.snakemake(target, *TO, check=False)
    assert stopped.returncode != 0
    assert "HF_TOKEN is not set" in stopped.stdout
    assert not (publishing.folder / "experiments/study_other/checkpoints").exists()
    assert publishing.would_run(target, *TO)["publish"] == 1


def test_a_missing_destination_stops_its_own_target_alone(publishing):
    stopped = publishing.snakemake("-n", TARGET, check=False)
    assert stopped.returncode != 0
    assert "no destination specified" in stopped.stdout
    assert publishing.would_run("experiments/study_none/merged") == {}
