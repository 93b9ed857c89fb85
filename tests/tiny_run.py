"""Experiments on the tiny model: their data, and everything a stage reads and writes."""

from pathlib import Path

import torch

from snaketune.core.files import read_jsonl
from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare
from snaketune.experiment.resolved import read_resolved, to_yaml
from snaketune.experiment.schema import Configuration
from snaketune.export.export_adapter import export_adapter
from snaketune.models.checkpoint import load_checkpoint
from snaketune.training.train_run import train
from tiny_model import write_rows

torch.set_num_threads(1)  # a tiny model gains nothing from more, and CI may run other things


def write_data(folder: Path, base: Path, rows: int = 12, **changes) -> Path:
    """Prepare alpaca rows for a base model, and return the folder."""
    source = {
        "label": "rows",
        "path": str(write_rows(folder / "rows.jsonl", rows)),
        "format": "alpaca",
        "vars": {},
        "weight": 1.0,
    }
    spec = {"template": "auto", "loss_on": "assistant", "truncation": "right", "pack": False}
    spec |= {"max_length": 160, "deduplicate": False, "heldout": 0.0}
    prepare(DataSpec.from_key(spec | changes | {"sources": [source]}), base, folder)
    return folder


class Run:
    """One experiment, in a folder of its own."""

    def __init__(self, folder: Path, base: Path, data: Path, **config) -> None:
        self.folder, self.base, self.data = folder, base, data
        self.output = folder / "checkpoints"
        self.resolved = folder / "resolved.yaml"
        self.mirrored = False
        folder.mkdir(exist_ok=True, parents=True)
        self.configure(**config)

    def configure(
        self,
        train_id="0123456789ab",
        method=None,
        sample=None,
        evaluate=None,
        prompts=(),
        name="run",
        **train,
    ) -> None:
        train = {"epochs": 2, "accumulate": 3, "save_every": 4, "precision": "fp32"} | train
        config = Configuration.model_validate(
            {
                "model": "tiny",
                "data": [{"path": "rows.jsonl"}],
                "method": {"name": "lora", "r": 4, "dropout": 0.1} | (method or {}),
                "train": train,
                "sample": {"every": 8, "prompts": ["Say 3"], "max_new_tokens": 4} | (sample or {}),
                "evaluate": evaluate or {},
            }
        )
        values = {"name": name, "study": "study", "base_id": "base-id", "data_id": "data-id"}
        values |= {"variant": None, "train_id": train_id, "prompts": list(prompts)}
        self.resolved.write_text(to_yaml(values | {"config": config.model_dump()}))

    def train(self) -> "Run":
        experiment, callbacks = read_resolved(self.resolved), []
        if self.mirrored:
            from snaketune.tracking.mirror import Mirror

            callbacks.append(Mirror(self.output, experiment, self.data))
        train(experiment, self.base, self.data, self.output, callbacks=callbacks)
        return self

    def export(self, iteration: str = "last") -> Path:
        name = "last" if iteration == "last" else f"iter_{iteration}"
        adapter = self.folder / f"adapter_{iteration}"
        export_adapter(self.output / f"{name}.pth", self.base, adapter)
        return adapter

    def arguments(self) -> list[str]:
        paths = {"config": self.resolved, "base": self.base, "data": self.data}
        paths |= {"output": self.output, "log": self.folder / "train.log"}
        return [part for name, path in paths.items() for part in (f"--{name}", str(path))]

    def losses(self) -> list[float]:
        return [row["loss"] for row in self.metrics()]

    def updates(self) -> list[dict]:
        return [row for row in self.metrics() if row["update"]]

    def metrics(self) -> list[dict]:
        return read_jsonl(self.output / "metrics.jsonl")

    def adapter(self) -> dict:
        return load_checkpoint(self.output / "last.pth")["weights"]
