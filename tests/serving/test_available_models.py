"""Which models are offered: those whose files are there and fit together."""

import json
import shutil

import pytest

from snaketune.serving.available_models import available_models


def write(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


@pytest.fixture
def root(tmp_path):
    """Experiments `a` (an adapter, three checkpoints), `b` (merged), and `c` (being trained)."""
    root = tmp_path / "experiments"
    write(tmp_path / "models/base-1/provenance.json", {})
    write(tmp_path / "models/base-1/config.json", {"max_position_embeddings": 300})
    write(tmp_path / "models/base-2/provenance.json", {})
    write(tmp_path / "models/base-2/config.json", {"vocab_size": 300})
    about = {"base_id": "base-1", "train_id": "t1", "template": {}}
    write(root / "a/adapter/snaketune.json", about)
    write(root / "a/checkpoints/run.json", {"train_id": "t1"})
    for name in ("iter_20", "iter_100", "last"):
        (root / "a/checkpoints" / f"{name}.pth").touch()
    write(root / "a/iter_7/adapter/snaketune.json", about)
    write(root / "b/merged/snaketune.json", about)
    write(root / "b/checkpoints/run.json", {"train_id": "t1"})
    (root / "b/checkpoints/iter_5.pth").touch()
    write(root / "c/checkpoints/run.json", {"train_id": "t3"})
    (root / "c/checkpoints/iter_5.pth").touch()
    write(root / "catalog/models.yaml", {})
    return root


def offered(root):
    return available_models(root, root.parent / "models")


def test_order_is_final_model_checkpoints_bases(root):
    assert offered(root) == ["a", "a/iter_100", "a/iter_20", "a/iter_7", "b", "base-1"]


def test_checkpoints_of_another_run_are_not_listed(root):
    write(root / "a/checkpoints/run.json", {"train_id": "t2"})
    assert offered(root) == ["a", "a/iter_7", "b", "base-1"]


def test_model_without_its_base_is_not_listed(root):
    write(root / "b/merged/snaketune.json", {"base_id": "gone", "template": {}})
    assert offered(root) == ["a", "a/iter_100", "a/iter_20", "a/iter_7", "base-1"]


def test_a_damaged_folder_does_not_hide_the_others(root):
    shutil.copytree(root / "b/merged", root / "a/merged")
    (root / "a/adapter/snaketune.json").write_text('{"base_id": "base')
    write(root / "foreign/adapter/snaketune.json", {"base_id": ["base-1"]})
    write(root / "old/adapter/snaketune.json", {"base_id": "base-1"})
    assert offered(root) == ["a/iter_7", "b", "base-1"]


def test_nothing_built_lists_nothing(tmp_path):
    assert available_models(tmp_path / "experiments", tmp_path / "models") == []
