"""A small model to publish, and a hub to publish it to."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from snaketune.core.manifest import write_manifest
from stand_in import TOKEN, Hub

CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of weights, other files and their manifest."""
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "model-00001-of-00002.safetensors").write_bytes(os.urandom(3000))
    (folder / "model-00002-of-00002.safetensors").write_bytes(os.urandom(2000))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "README.md").write_text(CARD)
    write_manifest(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that both clients are pointed to, with a token for it; nobody waits to try again."""
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    monkeypatch.delenv("SNAKETUNE_MIRROR", raising=False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with server.running():
        yield server
