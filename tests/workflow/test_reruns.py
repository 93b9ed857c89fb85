"""What reruns when: the promise that nothing is retrained without reason, key by key."""

import base64
import os
import re

import pytest
from ruamel.yaml import YAML

ENDS = ("eval/report.html", "data/report.html", "resolved.yaml", "agent/report.html")
TARGETS = [f"experiments/study_none/{end}" for end in ENDS]
NOTHING = set()
RESOLVE = {"resolve"}
EVALUATE = RESOLVE | {"evaluate"}
TRAIN = EVALUATE | {"train", "export_adapter", "merge", "agent"}
DATA = TRAIN | {"prepare_data", "data_report"}

CHANGES = {
    "lr": ("lr: 1e-3", "lr: 2e-3", TRAIN),
    "seed": ("epochs: 2,", "epochs: 2, seed: 7,", TRAIN),
    "deepspeed": ("epochs: 2,", "epochs: 2, deepspeed: zero2,", TRAIN),
    "rank": ("r: 4", "r: 8", TRAIN),
    "data weight": ("format: alpaca}", "format: alpaca, weight: 2}", DATA),
    "max_rows": ("format: alpaca}", "format: alpaca, max_rows: 5}", DATA),
    "max_length": ("max_length: 160", "max_length: 150", DATA),
    "template": ("pack: false", "pack: false\ntemplate: chatml", DATA),
    "held-out share": ("evaluate: {", "evaluate: {heldout: 0.2, ", DATA),
    "merged dtype": ("max_length", "export: {dtype: fp16}\nmax_length", EVALUATE | {"merge"}),
    "dtype of the GGUF": ("max_length", "export: {gguf: bf16}\nmax_length", RESOLVE),
    "evaluation prompt": ("[Say 4]", "[Say 5]", EVALUATE),
    "evaluation length": (
        "prompts: [Say 4], max_new_tokens: 4",
        "prompts: [Say 4], max_new_tokens: 5",
        EVALUATE,
    ),
    "probes": ("probes: [retention]", "probes: []", EVALUATE),
    "measured checkpoints": ("evaluate: {", "evaluate: {checkpoints: false, ", EVALUATE),
    "held-out answers": ("evaluate: {", "evaluate: {heldout_answers: 2, ", EVALUATE),
    "turns of the agent": ("canned: t", "max_turn: 3, canned: t", RESOLVE | {"agent"}),
    "sample prompt": ("[Say 3]", "[Say 9]", RESOLVE),
    "save_every": ("save_every: 4", "save_every: 5", RESOLVE | {"data_report"}),
    "log_every": ("epochs: 2,", "epochs: 2, log_every: 1,", RESOLVE),
    "description": ("max_length", "description: new words\nmax_length", RESOLVE),
    "default written out": ("epochs: 2,", "epochs: 2, weight_decay: 0,", NOTHING),
    "number written differently": ("lr: 1e-3", "lr: 0.001", NOTHING),
    "comment": ("max_length", "# a comment\nmax_length", NOTHING),
    "another variant": ("{seed: 1}", "{seed: 2}", NOTHING),
}


@pytest.fixture
def restored(built):
    """The built project; its study, rows and questions are put back afterwards."""
    others = ("rows.jsonl", "probes/retention.yaml", "tools.yaml")
    files = [built.study, *(built.folder / "experiments" / name for name in others)]
    before = [(file, file.read_bytes()) for file in files]
    yield built
    for file, content in before:
        file.write_bytes(content)


def test_a_finished_target_has_nothing_to_do(built):
    assert built.would_run(*TARGETS) == {}


def test_snakemakes_own_report_holds_our_pages(built):
    built.snakemake(*TARGETS, "--report", "report.html")
    page = (built.folder / "report.html").read_text()
    for folder in ("eval", "data"):
        ours = (built.folder / f"experiments/study_none/{folder}/report.html").read_bytes()
        assert base64.b64encode(ours).decode() in page


def test_a_gguf_is_made_of_what_is_there(built):
    assert built.would_run("experiments/study_none/gguf") == {"export_gguf": 1}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_key_reruns_its_stages_and_no_others(restored, change):
    old, new, expected = CHANGES[change]
    text = restored.study.read_text()
    assert old in text
    restored.study.write_text(text.replace(old, new, 1))
    assert set(restored.would_run(*TARGETS)) == expected


def test_the_order_of_keys_reruns_nothing(restored):
    yaml = YAML(typ="safe")
    study = yaml.load(restored.study.read_text())
    study["train"] = dict(reversed(study["train"].items()))
    with restored.study.open("w") as file:
        yaml.dump(dict(reversed(study.items())), file)
    assert restored.would_run(*TARGETS) == {}


@pytest.mark.parametrize(
    "file",
    [
        "Snakefile",
        "experiments/study.yaml",
        "experiments/rows.jsonl",
        "experiments/probes/retention.yaml",
        "experiments/models/tiny/config.json",
        "rules/train.smk",
        "scripts/train.py",
        "scripts/prepare_data.py",
        "scripts/snaketune/training/trainer.py",
        "envs/cpu.yaml",
    ],
)
def test_a_touched_file_reruns_nothing(built, file):
    os.utime(built.folder / file)
    assert built.would_run(*TARGETS) == {}


def test_a_deleted_checkpoint_reruns_nothing(built, tmp_path):
    kept = sorted((built.folder / "experiments/study_none/checkpoints").glob("iter_*.pth"))
    assert len(kept) == 3
    aside = kept[0].rename(tmp_path / kept[0].name)
    assert built.would_run(*TARGETS) == {}
    aside.rename(kept[0])


def test_an_edited_script_retrains_nothing(built):
    for script in ("train.py", "merge.py"):
        path = built.folder / "scripts" / script
        path.write_text(path.read_text() + "# edited\n")
    assert built.would_run(*TARGETS) == {}


def test_a_changed_row_reruns_from_the_data_on(restored):
    rows = restored.folder / "experiments" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("Say 1", "Tell 1", 1))
    assert set(restored.would_run(*TARGETS)) == DATA - {"resolve"}


def test_a_changed_question_reruns_the_report_alone(restored):
    questions = restored.folder / "experiments" / "probes" / "retention.yaml"
    questions.write_text(questions.read_text().replace("Say 3", "Say 5"))
    assert set(restored.would_run(*TARGETS)) == {"evaluate"}


def test_a_changed_row_of_a_probe_reruns_the_report_alone(restored):
    questions = restored.folder / "experiments" / "probes" / "retention.yaml"
    rows = questions.with_name("own.jsonl")
    rows.write_text('{"question": "Say 3", "accept": ["three"]}')
    questions.write_text("kind: contains\nrows: own.jsonl")
    assert set(restored.would_run(*TARGETS)) == {"evaluate"}
    told = restored.snakemake("-n", *TARGETS, "--quiet", "host").stdout
    assert re.search(r"^ +input: .*experiments/probes/own\.jsonl", told, re.MULTILINE)


def test_a_changed_canned_answer_reruns_the_agent_alone(restored):
    tools = restored.folder / "experiments" / "tools.yaml"
    tools.write_text(tools.read_text().replace("rain", "snow"))
    assert set(restored.would_run(*TARGETS)) == {"agent"}


def test_variants_with_the_same_data_share_one_processed_set(fresh):
    jobs = fresh.would_run("experiments/study_none/merged", "experiments/study_other/merged")
    assert jobs["prepare_data"] == jobs["fetch_base"] == 1
    assert jobs["train"] == jobs["merge"] == 2


@pytest.mark.parametrize("source", ["iter_5.pth", "iter_6.pth/mp_rank_00_model_states.pt"])
def test_a_converted_experiment_is_neither_trained_nor_needs_data(built, source):
    file, study = built.folder / "experiments" / source, built.study.with_name("old.yaml")
    file.parent.mkdir(exist_ok=True)
    file.touch()
    study.write_text(f"model: {{source: ./models/tiny}}\nconvert_from: {source.split('/')[0]}\n")
    try:
        jobs = set(built.would_run("experiments/old/merged"))
        assert jobs == {"convert_xtuner", "export_adapter", "prepare_data", "merge"}
        adapter = set(built.would_run("experiments/old/adapter"))
        assert adapter == {"convert_xtuner", "export_adapter"}
        assert built.would_run(*TARGETS) == {}
        file.unlink()
        asked = built.snakemake("experiments/old/merged", "-n", check=False)
    finally:
        study.unlink()
    if source.endswith(".pth"):
        assert re.search(r"old.yaml:2: convert_from: .*iter_5.pth does not exist", asked.stdout)


def test_a_broken_study_is_told_and_leaves_the_others_alone(restored):
    broken = restored.folder / "experiments" / "broken.yaml"
    broken.write_text("model: {source: ./models/tiny}\nepoks: 3\n")
    try:
        assert restored.would_run(*TARGETS) == {}
        check = restored.snakemake("check", check=False)
        asked = restored.snakemake("experiments/broken/merged", check=False)
    finally:
        broken.unlink()
    for told in (check, asked):
        assert told.returncode != 0
        assert re.search(r"broken\.yaml:2: epoks: unknown key", told.stdout)
        assert "data: this required key is missing" in told.stdout


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("experiments/study_none/mergd", "no target 'mergd'. Did you mean 'merged'?"),
        ("experiments/studi_none/merged", "no experiment 'studi_none'. Did you mean 'study_none'?"),
    ],
)
def test_an_unknown_target_is_answered_with_the_nearest(built, target, message):
    asked = built.snakemake(target, check=False)
    assert asked.returncode != 0
    assert message in asked.stdout


def test_the_bare_command_lists_the_experiments(built):
    assert "study_none" in built.snakemake().stdout
