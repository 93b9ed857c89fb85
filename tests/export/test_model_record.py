"""snaketune.json: files from before records had a version are read like those of today."""

import json

import pytest

from model_records import write_record
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, write_json
from snaketune.export.model_record import Deviation, ModelRecord

OLD = {
    "train_id": "5f0c0a4e6b1d",
    "base_sha256": "a" * 64,
    "data_sha256": "b" * 64,
    "name": "study_qlora",
    "base_id": "smollm2-1234",
    "precision": "bfloat16",
    "method": {"name": "qlora", "r": 8, "alpha": 16.0, "quantization": "nf4"},
    "template": {"name": "chatml", "text": "...", "sha256": "c" * 64, "end_token_ids": [2]},
    "iteration": 300,
    "figures": {"train_id": "5f0c0a4e6b1d", "iterations": 300, "first_loss": 2.5},
    "merge": {
        "merged_into": "original",
        "quantization": "nf4",
        "bases": {
            "as_trained": {"heldout_loss": 1.25, "difference": 0.0},
            "original": {"heldout_loss": 1.26, "difference": 0.02},
            "dequantized": {"heldout_loss": None, "difference": 0.01},
        },
        "dtype": "bfloat16",
        "difference": 0.02,
        "bound": 0.1,
        "equal_tokens": 0.99,
        "equal_tokens_bound": 0.85,
    },
}


def test_a_record_of_before_0_2_is_read(tmp_path):
    write_json(tmp_path / "snaketune.json", OLD)
    record = ModelRecord.of(tmp_path)
    assert (record.name, record.iteration, record.method.r) == ("study_qlora", 300, 8)
    assert record.merge.bases["original"] == Deviation(heldout_loss=1.26, difference=0.02)


def test_keys_are_those_of_before_and_the_version(tmp_path):
    write_json(tmp_path / "snaketune.json", OLD)
    ModelRecord.of(tmp_path).write(tmp_path / "new.json")
    written = read_json(tmp_path / "new.json")
    assert written.keys() == OLD.keys() | {"record_version"}
    assert list(written["merge"]) == list(OLD["merge"])


def test_an_adapters_record_has_no_merge_check(tmp_path):
    write_record(tmp_path)
    assert "merge" not in json.loads((tmp_path / "snaketune.json").read_text())
    assert ModelRecord.of(tmp_path).merge is None


def test_an_incomplete_record_names_the_key_and_the_fix(tmp_path):
    write_json(tmp_path / "snaketune.json", {"base_id": "base-1", "template": {}})
    with pytest.raises(UserError, match=r"damaged: train_id: Field required.(.|\n)*snakemake"):
        ModelRecord.of(tmp_path)
