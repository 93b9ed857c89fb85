"""Publishing with the hubs' real clients: what arrives, what is refused, what a repeat sends."""

import hashlib
import json
import logging
from pathlib import Path

import pytest

from snaketune import hub as fetching
from snaketune.core.errors import UserError
from snaketune.core.manifest import write_manifest
from snaketune.publish.publish_config import PublishConfig
from snaketune.publish.publish_model import list_to_publish, publish
from stand_in import TOKEN, Hub, Repository

NAME = "me/tiny"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture(params=["hf", "modelscope"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def record(folder: Path) -> Path:
    return folder.parent / "published"


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def held(hub: Hub, name: str = NAME) -> dict[str, bytes]:
    """What the repository's readers see, without what a hub puts there itself."""
    files = hub.repositories[name].files
    return {name: data for name, data in files.items() if name != ".gitattributes"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_files_arrive_and_are_recorded(hub, folder, record, scheme) -> None:
    publish(folder, PublishConfig(scheme, NAME), record)
    assert held(hub) == contents(folder)
    written = json.loads(record.read_text())
    assert written["to"] == f"{scheme}:{NAME}"
    assert written["page"].startswith(hub.url)
    assert written["private"] is True
    files = {file["name"]: file["sha256"] for file in written["files"]}
    assert files == {path.name: sha256(path) for path in folder.iterdir()}


def test_a_published_model_can_be_fetched(hub, folder, record, tmp_path) -> None:
    publish(folder, PublishConfig("hf", NAME), record)
    names = [path.name for path in folder.iterdir()]
    (tmp_path / "back").mkdir()
    revision = json.loads(record.read_text())["revision"]
    fetching.fetch(f"hf:{NAME}", revision, tmp_path / "back", files=names)
    back = {name: (tmp_path / "back" / name).read_bytes() for name in names}
    assert back == contents(folder)


@pytest.mark.parametrize("private", [True, False])
def test_a_new_repository_has_the_requested_visibility(hub, folder, record, scheme, private):
    publish(folder, PublishConfig(scheme, NAME, private=private), record)
    assert hub.repositories[NAME].private is private
    assert json.loads(record.read_text())["private"] is private


def test_modelscope_gets_the_licence_of_the_card(hub, folder, record) -> None:
    publish(folder, PublishConfig("modelscope", NAME), record)
    assert hub.repositories[NAME].licence == "apache-2.0"


def test_after_a_cut_connection_only_the_rest_is_sent(hub, folder, record, scheme) -> None:
    hub.dropped = {sha256(folder / SHARDS[1])}
    with pytest.raises(UserError, match=r"connection was lost(.|\n)*not sent again"):
        publish(folder, PublishConfig(scheme, NAME), record)
    assert not record.exists()
    assert hub.sent() == [sha256(folder / SHARDS[0])]
    hub.dropped = set()
    publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.sent() == [sha256(folder / SHARDS[1])]
    assert held(hub) == contents(folder)


def test_the_hugging_face_hub_never_shows_half_a_model(hub, folder, record) -> None:
    hub.dropped = {sha256(folder / SHARDS[1])}
    with pytest.raises(UserError):
        publish(folder, PublishConfig("hf", NAME), record)
    assert held(hub) == {}
    hub.dropped = set()
    publish(folder, PublishConfig("hf", NAME), record)
    assert hub.repositories[NAME].commits == 1


def test_modelscopes_manifest_comes_last(hub, folder, record) -> None:
    publish(folder, PublishConfig("modelscope", NAME), record)
    assert next(iter(held(hub))) == SHARDS[0]
    assert list(held(hub))[-1] == "manifest.json"


def test_publishing_again_sends_nothing(hub, folder, record, scheme) -> None:
    publish(folder, PublishConfig(scheme, NAME), record)
    first, commits = record.read_text(), hub.repositories[NAME].commits
    record.unlink()
    hub.sent()
    publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.sent() == []
    assert hub.repositories[NAME].commits == commits
    assert record.read_text() == first


def test_a_changed_model_sends_what_changed(hub, folder, record, scheme, logs) -> None:
    publish(folder, PublishConfig(scheme, NAME), record)
    hub.sent()
    logs.clear()
    (folder / SHARDS[0]).write_bytes(b"other weights")
    write_manifest(folder)
    publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.sent() == [sha256(folder / SHARDS[0])]
    assert held(hub) == contents(folder)
    assert "4 of 6 files are already there; 2 to send" in logs.text
    assert f"1 of 2: {SHARDS[0]}, 13 bytes" in logs.text


def test_every_file_is_logged_with_its_size(hub, folder, record, scheme, logs) -> None:
    publish(folder, PublishConfig(scheme, NAME), record)
    for path in folder.iterdir():
        assert f"of 6: {path.name}, {path.stat().st_size:,} bytes" in logs.text


def test_the_token_appears_nowhere(hub, folder, record, scheme, logs, capfd, tmp_path) -> None:
    publish(folder, PublishConfig(scheme, NAME), record)
    hub.fails = {"/": 500}
    with pytest.raises(UserError) as failure:
        publish(folder, PublishConfig(scheme, NAME), record)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    texts = [logs.text, str(failure.value), *capfd.readouterr()]
    assert not any(TOKEN in text for text in texts)
    assert not any(TOKEN.encode() in data for data in written)


# --- refused before anything is sent -------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "variable"), [("hf", "HF_TOKEN"), ("modelscope", "MODELSCOPE_API_TOKEN")]
)
def test_a_missing_token_is_refused_first(
    hub, record, tmp_path, monkeypatch, scheme, variable
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(UserError, match=f"{variable} is not set(.|\n)*export {variable}="):
        publish(tmp_path / "no such folder", PublishConfig(scheme, NAME), record)
    assert hub.requests == []


def test_a_token_that_a_library_has_stored_is_not_used(
    hub, folder, record, tmp_path, monkeypatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        publish(folder, PublishConfig("hf", NAME), record)


def spoil_more(folder: Path) -> None:
    (folder / "notes.txt").write_text("not for everyone")


def spoil_flip(folder: Path) -> None:
    data = bytearray((folder / SHARDS[0]).read_bytes())
    data[100] ^= 1
    (folder / SHARDS[0]).write_bytes(data)


def spoil_less(folder: Path) -> None:
    (folder / "config.json").unlink()


def spoil_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_more, "notes.txt is not in the manifest"),
        (spoil_flip, "00001-of-00002.safetensors has changed"),
        (spoil_less, "config.json is missing"),
        (spoil_manifest, "manifest.json is missing"),
    ],
)
def test_a_damaged_folder_is_refused(hub, folder, record, scheme, spoil, message) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=message):
        publish(folder, PublishConfig(scheme, NAME), record)
    with pytest.raises(UserError, match=message):
        list_to_publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.requests == []
    assert not record.exists()


def test_a_card_the_hub_rejects_is_explained(hub, folder, record) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("apache-2.0", "free for research"))
    write_manifest(folder)
    with pytest.raises(UserError, match=r'"license" must be one of(.|\n)*Fix: correct'):
        publish(folder, PublishConfig("hf", NAME), record)
    assert held(hub) == {}


def test_a_public_repository_needs_private_false(hub, folder, record, scheme) -> None:
    hub.repositories[NAME] = Repository(private=False)
    with pytest.raises(UserError, match=r"is public(.|\n)*private=false"):
        publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.sent() == []
    publish(folder, PublishConfig(scheme, NAME, private=False), record)
    assert held(hub) == contents(folder)


def test_a_private_repository_stays_private(hub, folder, record, scheme, logs) -> None:
    hub.repositories[NAME] = Repository(private=True)
    publish(folder, PublishConfig(scheme, NAME, private=False), record)
    assert json.loads(record.read_text())["private"] is True
    assert "is private and remains so" in logs.text


@pytest.mark.parametrize("other", ["model.safetensors", "pytorch_model.bin", "adapter_config.json"])
def test_a_model_is_not_added_to_another_ones_weights(hub, folder, record, scheme, other) -> None:
    hub.repositories[NAME] = Repository(private=True, files={other: b"x", "LICENSE": b"x"})
    with pytest.raises(UserError, match=f"holds other weights: {other}"):
        publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.sent() == []


# --- what a hub answers --------------------------------------------------------------------------


def test_a_wrong_token(hub, folder, record, scheme, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "wrong")
    with pytest.raises(UserError, match=r"does not know the token in (HF|MODELSCOPE_API)_TOKEN"):
        publish(folder, PublishConfig(scheme, NAME), record)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (402, "storage is full"),
        (403, "has no write access there"),
        (404, "it does not exist"),
        (409, "being changed by someone else"),
        (422, "the hub refused(.|\n)*made to fail"),
        (429, "too many requests"),
        (500, "the hub failed(.|\n)*again later"),
    ],
)
def test_a_refused_commit_is_explained(hub, folder, record, scheme, status, message) -> None:
    hub.fails = {"/commit/": status}
    with pytest.raises(UserError, match=message):
        publish(folder, PublishConfig(scheme, NAME), record)
    assert not record.exists()
    assert held(hub) == {}


@pytest.mark.parametrize("route", ["/api/repos/create", "/api/v1/models"])
def test_a_name_of_someone_else(hub, folder, record, route) -> None:
    scheme = "hf" if "repos" in route else "modelscope"
    hub.fails = {route: 403}
    with pytest.raises(UserError, match="under your own name"):
        publish(folder, PublishConfig(scheme, "them/tiny"), record)


def test_no_hub_at_all(hub, folder, record, scheme) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UserError, match=r"connection was lost(.|\n)*check the network"):
        publish(folder, PublishConfig(scheme, NAME), record)


def test_a_file_the_hub_dropped_is_detected(hub, folder, record, scheme) -> None:
    class Forgetful(Repository):
        def commit(self, files: dict[str, bytes]) -> None:
            super().commit({name: files[name] for name in files if name != "config.json"})

    hub.repositories[NAME] = Forgetful(private=True)
    with pytest.raises(UserError, match=r"does not hold what was sent: config.json"):
        publish(folder, PublishConfig(scheme, NAME), record)
    assert not record.exists()


def test_a_name_the_hub_rejects(hub, folder, record) -> None:
    with pytest.raises(UserError, match="does not accept the name"):
        publish(folder, PublishConfig("hf", "me/tiny.git"), record)


def test_a_card_with_invalid_metadata(hub, folder, record) -> None:
    (folder / "README.md").write_text("---\n- a\n b: [\n---\n")
    write_manifest(folder)
    with pytest.raises(UserError, match=r"README.md does not begin with valid model card"):
        publish(folder, PublishConfig("hf", NAME), record)
    assert hub.requests == []


# --- the dry run ---------------------------------------------------------------------------------


def test_the_dry_run_lists_every_file_offline(hub, folder, tmp_path, scheme, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    list_to_publish(folder, PublishConfig(scheme, NAME), tmp_path / "list.txt")
    text = (tmp_path / "list.txt").read_text()
    assert f"{scheme}:{NAME}, private if new" in text
    for path in folder.iterdir():
        assert any(
            line.split()[0] == f"{path.stat().st_size:,}"
            and sha256(path).startswith(line.split()[2])
            for line in text.splitlines()
            if line.endswith(f"  {path.name}")
        )
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert f"{total:,} bytes in 6 files; nothing was sent" in text
    assert hub.requests == []


def test_an_adapter_on_a_local_base_is_warned_about(tmp_path, logs) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/me/base"}')
    write_manifest(adapter)
    list_to_publish(adapter, PublishConfig("hf", NAME, "adapter"), tmp_path / "list.txt")
    assert "path on this machine (/home/me/base)" in logs.text
