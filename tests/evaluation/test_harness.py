"""lm-evaluation-harness: run for real where it is installed, and the message where it is not."""

import importlib.util
import json

import pytest
import torch

from snaketune.core.errors import UserError
from snaketune.evaluation.evaluation_record import HarnessFigure
from snaketune.evaluation.harness import Harness, _figures
from snaketune.evaluation.probes import probe_figures, score_answers
from snaketune.experiment.probe_kinds import MultipleChoice
from snaketune.models.likelihood import choice_log_probs
from snaketune.models.load_model import load_model, load_tokenizer

CPU = torch.device("cpu")
HERE = importlib.util.find_spec("lm_eval") is not None
needs_the_harness = pytest.mark.skipif(not HERE, reason="lm_eval is not installed")

TASK = """\
task: our_choices
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{question}} A:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{choices.index(answer)}}"
target_delimiter: " "
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROWS = [
    {"question": f"Which {i}?", "choices": ["x", f"a {i * 'very '}long one", "no"], "answer": right}
    for i, right in enumerate(["x", "no", "x", "no", "x", "x", "no", "no"])
]


@needs_the_harness
def test_local_task_agrees_with_our_multiple_choice(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "task.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))
    model, tokenizer = load_model(base, torch.float32, CPU), load_tokenizer(base)
    found = Harness([str(tmp_path / "task.yaml")]).measure(model, tokenizer)
    log_probs = [
        choice_log_probs(
            model, tokenizer, f"Q: {row['question']} A:", [f" {c}" for c in row["choices"]], CPU
        )
        for row in ROWS
    ]
    probe = {"own": MultipleChoice(questions=ROWS)}
    own = probe_figures(probe, score_answers(probe, {"base": {"own": log_probs}}))
    for metric in ("acc", "acc_norm"):
        figure = found["our_choices"][metric]
        share = own[f"own.{metric}"].by_model["base"].value
        assert figure.value == pytest.approx(share)
        assert figure.stderr == pytest.approx((share * (1 - share) / 7) ** 0.5)
        assert (figure.n, figure.higher_is_better) == (8, True)


@needs_the_harness
def test_unknown_task_suggests_the_nearest():
    with pytest.raises(UserError, match=r"no task 'arc_eazy'\. Did you mean 'arc_easy'"):
        Harness(["arc_eazy"])


@needs_the_harness
def test_task_without_data_fails_early(tmp_path):
    (tmp_path / "task.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))
    with pytest.raises(UserError, match=r"cannot run .*task\.yaml(.|\n)*Fix: correct the task"):
        Harness([str(tmp_path / "task.yaml")])


def test_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"arc_easy need(.|\n)*pip install -e '\.\[lm-eval\]'"):
        Harness(["arc_easy"])


def test_figures_have_errors_counts_and_directions():
    found = {
        "results": {
            "t": {
                "alias": "t",
                "acc,none": 0.5,
                "acc_stderr,none": 0.1,
                "exact_match,strict": 0.25,
                "exact_match_stderr,strict": "N/A",
            }
        },
        "higher_is_better": {"t": {"acc": True}},
        "n-samples": {"t": {"original": 9, "effective": 4}},
    }
    assert _figures(found, "t") == {
        "acc": HarnessFigure(value=0.5, stderr=0.1, n=4, higher_is_better=True),
        "exact_match,strict": HarnessFigure(value=0.25, n=4),
    }
