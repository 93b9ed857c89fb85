"""Records of an evaluation: old files are read, files keep their keys, no torch is needed."""

import json
import subprocess
import sys

from snaketune.evaluation.evaluation_record import EvaluationRecord, read_probed_questions

ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 20}
LOSS = {"loss": 2.0, "perplexity": 7.389, "supervised_tokens": 1234}
SIGN = {"figure": "leak", "from": 8, "lowest": 0.5, "highest": 0.6}
MERGE = {"dtype": "bfloat16", "difference": 0.001, "bound": 0.05}
MERGE |= {"equal_tokens": 0.98, "equal_tokens_bound": 0.9}
REPORT = {
    "experiment": "study_none",
    "study": "study",
    "description": "",
    "ids": {"base": "b", "data": "d", "train": "t"},
    "models": [{"name": "base", "iteration": 0}, {"name": "merged", "iteration": 8}],
    "merge": MERGE,
    "training": {"train_id": "t", "iterations": 8},
    "heldout": {"base": LOSS, "merged": {"loss": None, "perplexity": None, "supervised_tokens": 0}},
    "heldout_by_source": {"chat": {"base": LOSS, "merged": LOSS}},
    "answers": [{"prompt": "Who?", "base": "A model.", "merged": "Ada."}],
    "probes": {"leak": {"wanted": 0, "base": ESTIMATE, "merged": ESTIMATE}},
    "lm_eval": {
        "arc": {"acc": {"base": {"value": 0.1, "stderr": None, "n": 9, "higher_is_better": True}}}
    },
    "checkpoints": {
        "loss_margin": 0.02,
        "result": "iter_8",
        "best": None,
        "overfitting": {
            "iteration": 8,
            "signs": [SIGN | {"than": {"iteration": 0, "value": 0.0}}],
        },
        "sentence": "From iteration 8 on …",
    },
}
"""As written before records had a version."""


def test_file_without_version_is_read_and_kept(tmp_path):
    file = tmp_path / "report.json"
    file.write_text(json.dumps(REPORT))
    record = EvaluationRecord.read(file)
    assert record.probes["leak"].by_model["merged"].n == 20
    assert record.answers[0].by_model == {"base": "A model.", "merged": "Ada."}
    assert record.checkpoints.overfitting.signs[0].since == 8
    record.write(file)
    assert json.loads(file.read_text()) == {"record_version": 1} | REPORT


def test_probe_row_separates_metrics_and_models(tmp_path):
    file = tmp_path / "probes.jsonl"
    answer = {"answer": "Ada", "found": True, "right": False, "repetition": 0.0, "stopped": True}
    row = {"probe": "leak", "kind": "excludes", "question": "2+2?", "forms": ["Ada"]}
    file.write_text(json.dumps(row | {"base": answer}) + "\n")
    [question] = read_probed_questions(file)
    assert question.by_model["base"].score("found") is True
    assert question.model_dump() == row | {"base": answer}


def test_records_import_without_torch():
    code = (
        "import sys, snaketune.evaluation.evaluation_record, snaketune.agent.agent_record\n"
        "assert not {'torch', 'lagent', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
