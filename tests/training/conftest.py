import contextlib
from pathlib import Path

import pytest
import torch
from tiny_model import write_base, write_rows

from snaketune.data.prepare import prepare
from snaketune.experiment.resolved import to_yaml
from snaketune.experiment.schema import Configuration
from snaketune.files import read_jsonl
from snaketune.models.checkpoint import load_checkpoint
from snaketune.training import stage

torch.set_num_threads(1)  # a tiny model gains nothing from more, and CI may run other things


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def make_data(base, tmp_path_factory):
    def make(pack: bool = False, rows: int = 12) -> Path:
        folder = tmp_path_factory.mktemp("data")
        source = {
            "label": "rows",
            "path": str(write_rows(folder / "rows.jsonl", rows)),
            "format": "alpaca",
            "vars": {},
            "weight": 1.0,
        }
        spec = {"sources": [source], "template": "auto", "max_length": 160, "pack": pack}
        prepare(spec | {"heldout": 0.0}, base, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def data(make_data):
    return make_data()


@pytest.fixture
def no_mlflow(monkeypatch):
    monkeypatch.setattr(stage, "Mirror", lambda *_: contextlib.nullcontext())


class Run:
    """One experiment on the tiny model, in a folder of its own."""

    def __init__(self, folder: Path, base: Path, data: Path, **config) -> None:
        self.folder, self.base, self.data = folder, base, data
        self.output = folder / "checkpoints"
        self.resolved = folder / "resolved.yaml"
        folder.mkdir(exist_ok=True)
        self.configure(**config)

    def configure(self, train_id="0123456789ab", method=None, sample=None, **train) -> None:
        train = {"epochs": 2, "accumulate": 3, "save_every": 4, "precision": "fp32"} | train
        config = Configuration.model_validate(
            {
                "model": "tiny",
                "data": [{"path": "rows.jsonl"}],
                "method": {"name": "lora", "r": 4, "dropout": 0.1} | (method or {}),
                "train": train,
                "sample": {"every": 8, "prompts": ["Say 3"], "max_new_tokens": 4} | (sample or {}),
            }
        )
        values = {key: "run" for key in ("name", "study", "base_id", "data_id")}
        values |= {"variant": None, "train_id": train_id, "prompts": []}
        self.resolved.write_text(to_yaml(values | {"config": config.model_dump()}))

    def train(self) -> "Run":
        stage.train(self.resolved, self.base, self.data, self.output)
        return self

    def arguments(self) -> list[str]:
        paths = {"config": self.resolved, "base": self.base, "data": self.data}
        paths |= {"output": self.output, "log": self.folder / "train.log"}
        return [part for name, path in paths.items() for part in (f"--{name}", str(path))]

    def losses(self) -> list[float]:
        return [row["loss"] for row in self.metrics()]

    def metrics(self) -> list[dict]:
        return read_jsonl(self.output / "metrics.jsonl")

    def adapter(self) -> dict:
        return load_checkpoint(self.output / "last.pth")["adapter"]


@pytest.fixture
def run(tmp_path, base, data, no_mlflow):
    def make(name: str = "run", data=data, **config) -> Run:
        return Run(tmp_path / name, base, data, **config)

    return make
