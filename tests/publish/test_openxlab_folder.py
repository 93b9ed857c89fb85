"""The folder for OpenXLab: the keys of the metafile that `openxlab model create` validates."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from snaketune.core.errors import UserError
from snaketune.core.manifest import write_manifest
from snaketune.publish.publish_config import PublishConfig
from snaketune.publish.publish_model import publish


def published(folder: Path, target: Path) -> Path:
    publish(folder, PublishConfig("openxlab", str(target)), folder.parent / "published")
    return target


def test_every_file_is_copied_and_named_in_the_metafile(folder, tmp_path) -> None:
    made = published(folder, tmp_path / "tiny")
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in made.iterdir()} == names | {"metafile.yml"}
    assert all((made / name).read_bytes() == (folder / name).read_bytes() for name in names)
    meta = YAML(typ="safe").load(made / "metafile.yml")
    (collection,) = meta["Collections"]
    assert collection["Name"] == "tiny"
    assert collection["License"] == "apache-2.0"
    assert collection["Code"]["URL"].startswith("https://")
    assert {model["Weights"] for model in meta["Models"]} == names
    for model in meta["Models"]:
        assert model["Name"]
        assert all(result["Task"] and result["Dataset"] for result in model["Results"])
    record = json.loads((tmp_path / "published").read_text())
    assert record["folder"] == str(made)
    assert {file["name"] for file in record["files"]} == names


def test_publishing_again_replaces_the_folder(folder, tmp_path) -> None:
    made = published(folder, tmp_path / "tiny")
    (folder / "README.md").unlink()
    write_manifest(folder)
    published(folder, made)
    assert not (made / "README.md").exists()
    assert YAML(typ="safe").load(made / "metafile.yml")["Collections"][0]["License"] == "other"


def test_another_folder_is_left_alone(folder, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    for name in ("mine", "file", "merged"):
        with pytest.raises(UserError, match="not replaced"):
            published(folder, tmp_path / name)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "kept"
    assert not (tmp_path / "published").exists()


def test_a_changed_file_makes_no_folder(folder, tmp_path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config.json has"):
        published(folder, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()
