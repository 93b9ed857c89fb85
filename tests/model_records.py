"""snaketune.json as exporting writes it, for tests that need one without a training."""

from pathlib import Path
from typing import Any

from snaketune.core.layout import MODEL_RECORD
from snaketune.experiment.schema import Method
from snaketune.export.model_record import ModelRecord

TEMPLATE = {"name": "auto", "text": "", "sha256": "0" * 64, "end_token_ids": [2], "system": ""}


def write_record(folder: Path, name: str = "run", **values: Any) -> ModelRecord:
    """Write the record of a model, with other values than these where given."""
    known: dict[str, Any] = {
        "train_id": "0123456789ab",
        "base_sha256": "0" * 64,
        "data_sha256": "1" * 64,
        "base_id": "base-1",
        "precision": "float32",
        "method": Method(),
        "template": TEMPLATE,
        "iteration": 8,
    }
    record = ModelRecord(name=name, **(known | values))
    folder.mkdir(parents=True, exist_ok=True)
    record.write(folder / MODEL_RECORD)
    return record
