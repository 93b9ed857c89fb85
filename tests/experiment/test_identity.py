"""What reruns when: for each key of an experiment, the ids that a change to it changes."""

import copy
import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaketune.experiment import base_id, data_id, load_studies, train_id
from snaketune.experiment.affects import is_section, marks
from snaketune.experiment.explain import model_in
from snaketune.experiment.identity import (
    agent_key,
    evaluate_key,
    export_key,
    report_key,
    result_key,
    train_key,
)
from snaketune.experiment.schema import ColumnMap, Configuration, Filter

SHA = "0" * 64
PIN = "a" * 40

STUDY = {
    "description": "before",
    "model": {"source": "hf:org/tiny", "revision": PIN},
    "data": [
        {"dataset": "rows"},
        {"source": "hf:org/n", "revision": PIN, "file": "x.jsonl", "format": "openai"},
        {"path": "y.jsonl", "format": "alpaca", "vars": {"name": "Ada", "author": "Grace"}},
        {
            "path": "t.csv",
            "map": {"user": "q", "assistant": "a", "system": "s"},
            "filter": {"categories": ["x"], "start_date": "2020-01-01"},
        },
    ],
    "train": {"validate_every": 3},
    "sample": {"prompts": ["Hi?"]},
}

FULL = Configuration.model_validate(STUDY).model_dump(mode="json", exclude_none=True)
"""The same study with every default written out."""

WEIGHTS = {"train"}
DATA = {"data", "train"}
BASE = {"base", "data", "train"}

CHANGES = {
    "description": ("after", set()),
    "model.source": ("hf:org/small", BASE),
    "model.revision": ("b" * 40, BASE),
    "model.sha256": (SHA, BASE),
    "model.description": ("another", set()),
    "convert_from": ("work/iter_500.pth", WEIGHTS),
    "model.license": ("MIT", set()),
    "method.name": ("lora", WEIGHTS),
    "method.r": (8, WEIGHTS),
    "method.alpha": (32, WEIGHTS),
    "method.dropout": (0.0, WEIGHTS),
    "method.target_modules": (["q_proj"], WEIGHTS),
    "method.modules_to_save": (["lm_head"], WEIGHTS),
    "method.rslora": (True, WEIGHTS),
    "method.dora": (True, WEIGHTS),
    "method.quantization": ("fp4", WEIGHTS),
    "data.0.dataset": ("others", DATA),
    "data.1.source": ("hf:org/m", DATA),
    "data.1.revision": ("b" * 40, DATA),
    "data.1.file": ("z.jsonl", DATA),
    "data.1.sha256": (SHA, DATA),
    "data.1.format": ("xtuner", DATA),
    "data.2.path": ("z.jsonl", DATA),
    "data.2.vars": ({"name": "Bob", "author": "Grace"}, DATA),
    "data.2.weight": (0.5, DATA),
    "data.2.max_rows": (10, DATA),
    "data.3.map.user": ("question", DATA),
    "data.3.map.assistant": ("answer", DATA),
    "data.3.map.system": ("system", DATA),
    "data.3.filter.categories": (["y"], DATA),
    "data.3.filter.start_date": ("2021-01-01", DATA),
    "data.3.group": ("author", DATA),
    "data.3.system": ("Be brief.", DATA),
    "template": ("chatml", DATA),
    "loss_on": ("last_turn", DATA),
    "max_length": (512, DATA),
    "truncation": ("drop", DATA),
    "deduplicate": (True, DATA),
    "pack": (False, DATA),
    "train.epochs": (1, WEIGHTS | {"report"}),
    "train.max_steps": (9, WEIGHTS | {"report"}),
    "train.schedule": ("linear", WEIGHTS),
    "train.warmup_steps": (2, WEIGHTS),
    "train.optimizer": ("adamw_8bit", WEIGHTS),
    "train.betas": ([0.9, 0.95], WEIGHTS),
    "train.processes": (2, WEIGHTS),
    "train.attention": ("sdpa", WEIGHTS),
    "train.gradient_checkpointing": (True, set()),
    "train.compile": (True, WEIGHTS),
    "train.validate_every": (5, set()),
    "train.early_stop": (2, WEIGHTS),
    "train.keep_best": (True, {"result"}),
    "train.deterministic": (True, WEIGHTS),
    "train.batch_size": (2, WEIGHTS | {"report"}),
    "train.accumulate": (4, WEIGHTS | {"report"}),
    "train.lr": (1e-3, WEIGHTS),
    "train.warmup_ratio": (0.1, WEIGHTS),
    "train.weight_decay": (0.1, WEIGHTS),
    "train.max_grad_norm": (0.5, WEIGHTS),
    "train.deepspeed": ("zero2", WEIGHTS),
    "train.precision": ("fp32", WEIGHTS | {"agent"}),
    "train.seed": (1, WEIGHTS),
    "train.save_every": (7, {"report"}),
    "train.keep": (7, set()),
    "train.log_every": (7, set()),
    "sample.every": (7, set()),
    "sample.prompts": (["Bye?"], {"evaluate"}),
    "sample.max_new_tokens": (7, set()),
    "evaluate.heldout": (0.2, DATA | {"evaluate"}),
    "evaluate.prompts": (["Bye?"], {"evaluate"}),
    "evaluate.max_new_tokens": (7, {"evaluate"}),
    "evaluate.checkpoints": (False, {"evaluate"}),
    "evaluate.probes": (["leak"], {"evaluate"}),
    "evaluate.heldout_answers": (7, {"evaluate"}),
    "evaluate.lm_eval": (["arc_easy"], {"evaluate"}),
    "agent.questions": ("q.yaml", {"agent"}),
    "agent.tools": (["arithmetic", "python"], {"agent"}),
    "agent.canned": ("tools.yaml", {"agent"}),
    "agent.max_turn": (9, {"agent"}),
    "agent.max_new_tokens": (9, {"agent"}),
    "export.dtype": ("fp16", {"export"}),
    "export.max_shard_size": ("5GB", {"export"}),
    "export.merge_into": ("original", {"export"}),
    "export.gguf": ("bf16", {"gguf"}),
}


def ids_of(text, folder, catalog="format: alpaca"):
    """Load one study of this text and return its ids."""
    for name in ("catalog", "probes"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "probes/leak.yaml").touch()
    entries = f"rows: {{path: a.jsonl, {catalog}}}\nothers: {{path: b.jsonl, format: alpaca}}"
    (folder / "catalog/datasets.yaml").write_text(entries)
    (folder / "study.yaml").write_text(text)
    studies = load_studies(folder)
    assert studies.problems == []
    experiment = studies.experiments["study"]
    return {
        "base": base_id(experiment),
        "data": data_id(experiment),
        "train": train_id(experiment),
        "result": json.dumps(result_key(experiment).get("result")),
        "report": json.dumps(report_key(experiment)),
        "export": json.dumps(export_key(experiment)),
        "gguf": experiment.config.export.gguf,
        "evaluate": json.dumps(evaluate_key(experiment)),
        "agent": json.dumps(agent_key(experiment)),
    }


def changed(study, path, value):
    """Return a copy of `study` with the key at a dotted path set."""
    study = level = copy.deepcopy(study)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for parent in parents:
        level = level[parent] if isinstance(parent, int) else level.setdefault(parent, {})
    level[last] = value
    return study


def leaves(model, prefix=""):
    """Yield the dotted path of each key of a model, list items left out."""
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        yield from leaves(inner, f"{prefix}{name}.") if inner else [prefix + name]


@pytest.mark.parametrize(("path", "change"), CHANGES.items(), ids=CHANGES)
def test_a_change_changes_exactly_these_ids(tmp_path, path, change):
    value, expected = change
    before = ids_of(json.dumps(STUDY), tmp_path)
    after = ids_of(json.dumps(changed(STUDY, path, value)), tmp_path)
    assert {name for name in before if before[name] != after[name]} == expected


def test_every_setting_says_what_it_affects():
    """A new field needs a mark: see experiment/affects.py, and add it to CHANGES above."""
    inner = (model_in(field.annotation) for field in Configuration.model_fields.values())
    sections = {Configuration, ColumnMap, Filter, *inner}
    unmarked = {
        f"{section.__name__}.{name}"
        for section in sections - {None}
        for name, field in section.model_fields.items()
        if not marks(field) and not is_section(field.annotation)
    }
    assert unmarked == set()


def test_validate_every_counts_where_it_decides_when_to_stop(tmp_path):
    study = changed(STUDY, "train.early_stop", 2)
    other = changed(study, "train.validate_every", 5)
    before, after = (ids_of(json.dumps(text), tmp_path) for text in (study, other))
    assert {name for name in before if before[name] != after[name]} == {"train"}


def test_a_run_without_a_choice_of_checkpoint_keeps_its_job(load):
    text = "model: tiny\ndata: [{dataset: rows}]\n"
    experiment = load(text + "train: {validate_every: 3}").experiments["a"]
    assert result_key(experiment) == train_key(experiment)


def test_the_table_above_has_every_key():
    spoken_of = {".".join(p for p in path.split(".") if not p.isdigit()) for path in CHANGES}
    spoken_of.add("method.start_from")  # it names another experiment: see test_load
    assert set(leaves(Configuration)) == spoken_of


CONVERTED = {
    "convert_from": ("other.pth", True),
    "model.revision": ("b" * 40, True),
    "template": ("chatml", True),
    "method.r": (8, True),
    "method.alpha": (32, True),
    "data.0.dataset": ("others", False),
    "max_length": (512, False),
    "evaluate.heldout": (0.2, False),
    "train.lr": (1e-3, False),
    "train.seed": (1, False),
}


@pytest.mark.parametrize(("path", "change"), CONVERTED.items(), ids=CONVERTED)
def test_a_conversion_follows_neither_data_nor_training(tmp_path, path, change):
    study = STUDY | {"convert_from": "iter_500.pth"}
    value, expected = change
    before = ids_of(json.dumps(study), tmp_path)["train"]
    assert (
        before != ids_of(json.dumps(changed(study, path, value)), tmp_path)["train"]
    ) == expected


def test_sample_prompts_change_nothing_where_the_evaluation_has_its_own(tmp_path):
    study = changed(STUDY, "evaluate.prompts", ["own"])
    other = changed(study, "sample.prompts", ["Bye?"])
    assert ids_of(json.dumps(study), tmp_path) == ids_of(json.dumps(other), tmp_path)


def test_a_report_without_probes_is_what_it_was_before_there_were_any(tmp_path):
    key = ids_of(json.dumps(STUDY), tmp_path)["evaluate"]
    assert not any(each in key for each in ("probes", "heldout_answers", "lm_eval"))


def test_a_default_written_out_changes_nothing(tmp_path):
    assert len(FULL["train"]) > 10
    assert ids_of(json.dumps(STUDY), tmp_path) == ids_of(json.dumps(FULL), tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train: {lr: 2e-4}", "train: {lr: 0.0002}"),
        ("method: {alpha: 16}", "method: {alpha: 16.0}"),
        ("train: {seed: 42}", "train: {seed: 42}   # the answer"),
        ("train: {seed: 42, lr: 1}", "train:\n  lr: 1\n\n  seed: 42"),
        ("description: one", "description: two"),
        ("template: auto", "template: 'auto'"),
    ],
)
def test_another_way_to_write_the_same_changes_nothing(tmp_path, one, other):
    minimal = f"model: {{source: 'hf:o/n', revision: {PIN}}}\ndata: [{{dataset: rows}}]\n"
    assert ids_of(minimal + one, tmp_path) == ids_of(minimal + other, tmp_path)


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        ("format: alpaca, description: d, license: MIT", False),
        ("format: openai", True),
        ("format: alpaca, vars: {name: Ada}", True),
    ],
)
def test_of_a_catalog_entry_only_what_is_read_counts(tmp_path, entry, changes):
    before = ids_of(json.dumps(STUDY), tmp_path)
    after = ids_of(json.dumps(STUDY), tmp_path, catalog=entry)
    assert (before["data"] != after["data"]) is changes


def test_the_order_of_sources_counts(tmp_path):
    turned = STUDY | {"data": STUDY["data"][::-1]}
    before, after = (ids_of(json.dumps(study), tmp_path) for study in (STUDY, turned))
    assert before["data"] != after["data"]


def test_variants_that_differ_in_training_alone_share_base_and_data(tmp_path):
    study = STUDY | {"variants": {"x": {"train": {"lr": 1.0}}, "y": {}}}
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog/datasets.yaml").write_text("rows: {path: a.jsonl, format: alpaca}")
    (tmp_path / "s.yaml").write_text(json.dumps(study))
    x, y = load_studies(tmp_path).experiments.values()
    assert (base_id(x), data_id(x)) == (base_id(y), data_id(y))
    assert train_id(x) != train_id(y)


def test_a_base_id_is_a_readable_folder_name(tmp_path):
    assert ids_of(json.dumps(STUDY), tmp_path)["base"].startswith("tiny-")
    odd = changed(STUDY, "model.source", "hf:org/My Model_7B!")
    assert ids_of(json.dumps(odd), tmp_path)["base"].startswith("my-model-7b-")


def shuffled(value, order):
    """Return the same value with the keys of each mapping in another order."""
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    if not isinstance(value, dict):
        return value
    keys = order.sample(list(value), len(value))
    return {key: shuffled(value[key], order) for key in keys}


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_order_of_keys_never_changes_an_id(seed):
    with tempfile.TemporaryDirectory() as folder:
        expected = ids_of(json.dumps(FULL), Path(folder))
        other = shuffled(FULL, random.Random(seed))
        assert ids_of(json.dumps(other), Path(folder)) == expected
