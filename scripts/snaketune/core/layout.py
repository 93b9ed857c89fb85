"""Where every file is. Nothing else builds a path of a result: rename a file here, and only here.

    experiments/
        STUDY.yaml, catalog/, defaults/, probes/     what people write
        X/                                           ExperimentPaths("X")
            resolved.yaml
            data/report.{html,json,txt}
            checkpoints/                             RunPaths
            [iter_N/]adapter/, merged/, split/, gguf/
            eval/, agent/                            ReportPaths
        STUDY/compare/                               StudyPaths("STUDY")
    store/
        models/ID/                                   BasePaths
        data/ID/                                     DataPaths
        datasets/ID/                                 hub_files(ID)
    logs/

The names work as patterns too: `ExperimentPaths("{experiment}")` is how the rules name their files.
"""

import re
from dataclasses import dataclass
from pathlib import Path

EXPERIMENTS = Path("experiments")
STORE = Path("store")
LOGS = Path("logs")

BASES = STORE / "models"
PROCESSED_DATA = STORE / "data"
HUB_FILES = STORE / "datasets"

PROBES = EXPERIMENTS / "probes"

MODEL_RECORD = "snaketune.json"
"""In every folder that holds an adapter or a model: which experiment and run it was made of."""

PROVENANCE = "provenance.json"
"""In every fetched folder: where its files are from. It is written last, so the folder is whole."""

MANIFEST = "manifest.json"
"""In every finished model folder: size and SHA-256 of its files."""

ITERATION = re.compile(r"iter_([1-9]\d*)")
"""The name of a kept checkpoint, in targets and as a model's name (`X/iter_300`)."""


def iteration_name(iteration: int) -> str:
    """Return `iter_N`, the name of the checkpoint after N iterations."""
    return f"iter_{iteration}"


def iteration_number(name: str) -> int | None:
    """Return N of `iter_N`, None for any other name."""
    match = ITERATION.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class ReportPaths:
    """A page for people with the same figures for programs beside it."""

    folder: Path

    @property
    def html(self) -> Path:
        """The page; it opens without a network."""
        return self.folder / "report.html"

    @property
    def json(self) -> Path:
        """The record that other stages read."""
        return self.folder / "report.json"

    @property
    def text(self) -> Path:
        """The page as plain text (the data report)."""
        return self.folder / "report.txt"

    @property
    def table(self) -> Path:
        """One row for each variant (the comparison)."""
        return self.folder / "table.csv"

    @property
    def probe_answers(self) -> Path:
        """One line for each answer to a probe (the evaluation)."""
        return self.folder / "probes.jsonl"


@dataclass(frozen=True)
class RunPaths:
    """A checkpoints folder: what survives a crash, and what must never be mixed up."""

    folder: Path

    @property
    def identity(self) -> Path:
        """Which run this is: train_id, and digests of base and data."""
        return self.folder / "run.json"

    @property
    def resolved(self) -> Path:
        """The full configuration the run is trained with."""
        return self.folder / "resolved.yaml"

    @property
    def last(self) -> Path:
        """The checkpoint that is the result of a finished run (a second name, not a copy)."""
        return self.folder / "last.pth"

    @property
    def record(self) -> Path:
        """The figures of a finished run; written last."""
        return self.folder / "train.json"

    @property
    def finished(self) -> Path:
        """train.json under a name that Snakemake does not know: it deletes a job's outputs."""
        return self.folder / "finished.json"

    @property
    def metrics(self) -> Path:
        """One line for each iteration."""
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """One line for each answer to a sample prompt."""
        return self.folder / "samples.jsonl"

    @property
    def validation(self) -> Path:
        """One line for each measurement of the held-out loss."""
        return self.folder / "validation.jsonl"

    @property
    def system(self) -> Path:
        """One line every 10 s on what the machine did."""
        return self.folder / "system.jsonl"

    @property
    def log(self) -> Path:
        """The log over all interruptions."""
        return self.folder / "train.log"

    @property
    def mlflow(self) -> Path:
        """What MLflow was sent so far."""
        return self.folder / "mlflow.json"

    @property
    def superseded(self) -> Path:
        """The folder of earlier runs with other settings, each in one of its own."""
        return self.folder / "superseded"

    def checkpoint(self, iteration: int) -> Path:
        """Return the file of the checkpoint after some iterations."""
        return self.folder / f"{iteration_name(iteration)}.pth"

    def kept(self) -> dict[int, Path]:
        """Return the checkpoints that are there, by iteration, in no order."""
        numbered = ((iteration_number(file.stem), file) for file in self.folder.glob("iter_*.pth"))
        return {number: file for number, file in numbered if number is not None}


@dataclass(frozen=True)
class ExperimentPaths:
    """The results of one experiment.

    Args:
        name: The experiment's, or a pattern such as `{experiment}`.
        root: The folder of all experiments.
    """

    name: str
    root: Path = EXPERIMENTS

    @property
    def folder(self) -> Path:
        """The folder of all its results."""
        return self.root / self.name

    @property
    def resolved(self) -> Path:
        """The full configuration with every default and the ids."""
        return self.folder / "resolved.yaml"

    @property
    def run(self) -> RunPaths:
        """Its training."""
        return RunPaths(self.folder / "checkpoints")

    @property
    def data(self) -> ReportPaths:
        """The report on its data."""
        return ReportPaths(self.folder / "data")

    @property
    def evaluation(self) -> ReportPaths:
        """The report on base and trained model."""
        return ReportPaths(self.folder / "eval")

    @property
    def agent(self) -> ReportPaths:
        """The report on the agent with tools."""
        return ReportPaths(self.folder / "agent")

    def at(self, iteration: int | str | None) -> Path:
        """Return the folder of what is made of a checkpoint; that of the end is the experiment's.

        Args:
            iteration: Its number, its name `iter_N`, or None for the end of training.
        """
        if iteration is None:
            return self.folder
        return self.folder / (
            iteration if isinstance(iteration, str) else iteration_name(iteration)
        )

    def adapter(self, iteration: int | str | None = None) -> Path:
        """Return the folder of the adapter in PEFT format."""
        return self.at(iteration) / "adapter"

    def merged(self, iteration: int | str | None = None) -> Path:
        """Return the folder of the full model in Hugging Face format."""
        return self.at(iteration) / "merged"


@dataclass(frozen=True)
class StudyPaths:
    """The results that belong to all variants of a study."""

    name: str
    root: Path = EXPERIMENTS

    @property
    def comparison(self) -> ReportPaths:
        """The page of all variants, which Snakemake builds."""
        return ReportPaths(self.root / self.name / "compare")

    @property
    def comparison_now(self) -> ReportPaths:
        """The page of whatever is built so far."""
        return ReportPaths(self.comparison.folder / "now")


@dataclass(frozen=True)
class BasePaths:
    """A fetched base model in Hugging Face format.

    Args:
        folder: Any; `base_paths` gives that of an id.
    """

    folder: Path

    @property
    def provenance(self) -> Path:
        """Where its files are from."""
        return self.folder / PROVENANCE

    @property
    def config(self) -> Path:
        """The architecture, as transformers reads it."""
        return self.folder / "config.json"


@dataclass(frozen=True)
class DataPaths:
    """Processed data, shared by all experiments with the same data_id.

    Args:
        folder: Any; `data_paths` gives that of an id.
    """

    folder: Path

    @property
    def record(self) -> Path:
        """What the data is: spec, template, digests of the other files; written last."""
        return self.folder / "data.json"

    @property
    def report(self) -> Path:
        """What became of every row."""
        return self.folder / "report.json"

    @property
    def samples(self) -> Path:
        """The tokenised samples."""
        return self.folder / "samples.arrow"

    @property
    def train(self) -> Path:
        """The packs that are trained on."""
        return self.folder / "train.arrow"

    @property
    def heldout(self) -> Path:
        """The packs that are kept out of training."""
        return self.folder / "heldout.arrow"


def base_paths(base_id: str) -> BasePaths:
    """Return the files of a base model in the store."""
    return BasePaths(BASES / base_id)


def data_paths(data_id: str) -> DataPaths:
    """Return the files of processed data in the store."""
    return DataPaths(PROCESSED_DATA / data_id)


def hub_files(dataset_id: str) -> Path:
    """Return the folder of files fetched from a data set on a hub."""
    return HUB_FILES / dataset_id
