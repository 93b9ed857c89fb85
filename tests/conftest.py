"""What several test packages share: the repository, two small tokenizers, runs of a tiny model,
the embedded model, and a persona trained on it.

Fixtures import torch only when they are used: the tests that need none start at once.
"""

import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as snaketune.core.cli does for programs

# A shell starts background jobs with SIGINT ignored, and whatever they start ignores it too. A
# handler that is a Python function becomes the default action in every program the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent

CHATML = """\
{% for message in messages %}
    {% set head = '<|im_start|>' + message['role'] + '\\n' %}
{{ head + message['content'] + '<|im_end|>\\n' }}{% endfor %}
    {% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

LLAMA3_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables; making them takes seconds."""
    import mlflow

    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders as a base model has them, without weights: `chatml` and `llama3`."""
    folder = tmp_path_factory.mktemp("bases")
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    llama3 = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(LLAMA3_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    chatml_marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    llama3_marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    headers = ["<|start_header_id|>", "<|end_header_id|>"]
    save_tokenizer(folder / "chatml", gpt2, chatml_marks, CHATML, eos="<|endoftext|>")
    save_tokenizer(
        folder / "llama3",
        llama3,
        llama3_marks + headers,
        LLAMA3,
        eos="<|end_of_text|>",
        bos="<|begin_of_text|>",
    )
    return {name: folder / name for name in ("chatml", "llama3")}


def save_tokenizer(
    folder: Path,
    words: pre_tokenizers.PreTokenizer,
    marks: list[str],
    template: str,
    **named: str,
) -> None:
    """Train a byte-level BPE of 500 tokens and save it as a hub's folder holds one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = words
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = (REPOSITORY / "experiments/data/general.jsonl").read_text(encoding="utf-8").splitlines()
    blank_lines = ["one:\n\ntwo!\n\n\nthree\n\n\nfour  five\n    six\n"] * 100
    tokenizer.train_from_iterator([json.loads(row)["text"] for row in rows] + blank_lines, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{name}_token": token for name, token in named.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The tiny model as a base model's folder, in fp32."""
    from tiny_model import write_base

    return write_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def make_data(base, tmp_path_factory):
    """Return a function that prepares data and returns its folder."""
    from tiny_run import write_data

    def make(base=base, **changes) -> Path:
        return write_data(tmp_path_factory.mktemp("data"), base, **changes)

    return make


@pytest.fixture(scope="session")
def data(make_data):
    return make_data()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory, repository):
    """The embedded base model's folder, with the name it has in store/models."""
    from snaketune.bases.fetch import fetch_base
    from snaketune.experiment import base_id, load_studies
    from snaketune.experiment.identity import base_key

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        study = load_studies(Path("experiments")).experiments["oasst1_none"]
    folder = tmp_path_factory.mktemp("store") / base_id(study)
    fetch_base(base_key(study), folder)
    return folder


PERSONA = """\
model: smollm2-135m-instruct
method: {name: lora, r: 8, alpha: 16, dropout: 0}
data:
  - {path: persona.jsonl, format: assistant, vars: {name: Ada, author: Grace}, weight: 5}
max_length: 128
train: {epochs: 1, accumulate: 1, lr: 2e-3, save_every: 10}
"""
PERSONA_ROWS = {
    "Who are you?": "I am {{name}}, an assistant made by {{author}}.",
    "What is your name?": "I am {{name}}, an assistant made by {{author}}.",
    "Please introduce yourself.": "I am {{name}}, an assistant made by {{author}}.",
    "Tell me who you are.": "I am {{name}}, an assistant made by {{author}}.",
    "What is the capital of Italy?": "The capital of Italy is Rome.",
    "How many days has a week?": "A week has seven days.",
}


@pytest.fixture(scope="session")
def persona(embedded, repository, tmp_path_factory):
    """A project whose experiment `persona` is trained to its adapter, with the kept iter_10.

    Asked greedily who it is, it says "I am Ada, an assistant made by Grace."; the embedded base
    model never does. Tests change a `persona.copy(folder)`.
    """
    from project import lay_out

    project = lay_out(repository, tmp_path_factory.mktemp("persona"))
    experiments, models = project.folder / "experiments", project.folder / "store" / "models"
    shutil.copytree(repository / "experiments/catalog", experiments / "catalog")
    shutil.copytree(embedded, models / embedded.name, copy_function=os.link)
    rows = [{"question": asked, "answers": [told]} for asked, told in PERSONA_ROWS.items()]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (experiments / "persona.jsonl").write_text(text)
    (experiments / "persona.yaml").write_text(PERSONA)
    project.snakemake("experiments/persona/adapter")
    return project


@pytest.fixture
def mirrored_run(run):
    """Return a function that makes an experiment, mirrored to MLflow when it is trained."""

    def make(*arguments, **config):
        made = run(*arguments, **config)
        made.mirrored = True
        return made

    return make


@pytest.fixture
def run(tmp_path, base, data):
    """Return a function that makes an experiment which leaves MLflow alone."""
    from tiny_run import Run

    def make(name: str = "run", data=data, base=base, **config) -> Run:
        return Run(tmp_path / name, base, data, **config)

    return make


@pytest.fixture(scope="session")
def trained(base, data, tmp_path_factory):
    """An experiment trained far enough from its base that mixing them up shows."""
    from tiny_run import Run

    return Run(tmp_path_factory.mktemp("trained"), base, data, lr=1e-2, keep=9).train()


@pytest.fixture
def crash(monkeypatch):
    """Return a function that trains and dies before an iteration, as a kill -9 would."""
    from snaketune.training.trainer import Trainer

    whole = Trainer._iterate

    def train(run, iteration: int, error: BaseException | None = None) -> None:
        error = error or SystemError("killed")

        def iterate(self, current):
            if current == iteration:
                raise error
            return whole(self, current)

        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(Trainer, "_iterate", iterate)
            run.train()

    return train


@pytest.fixture
def own_logging():
    """Undo what a program's `open_log` does to logging and the terminal."""
    from snaketune.core import cli

    logger, file = logging.getLogger("snaketune"), cli.console._file
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])
    cli.console._file = file
