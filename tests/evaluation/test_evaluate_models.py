"""The evaluation against plain transformers, sample by sample."""

import dataclasses
import json
import math
import re
import shutil
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl
from snaketune.data.storage import Packs
from snaketune.data.template import IGNORE
from snaketune.evaluation.evaluate_models import evaluate
from snaketune.experiment.resolved import read_resolved
from snaketune.export.agreement import heldout_loss
from snaketune.export.merge import merge
from snaketune.models.load_model import load_model

CPU = torch.device("cpu")

PROBES = Path("no probes here")
PROMPTS = ["Say 3", "Something longer than that"]


@pytest.fixture(scope="module")
def held_out(make_data):
    return make_data(rows=24, heldout=0.4, pack=True)


@pytest.fixture(scope="module")
def merged(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merged") / "merged"
    merge(trained.base, trained.export(), folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(trained, base, merged, held_out, tmp_path_factory):
    output = tmp_path_factory.mktemp("eval")
    experiment = dataclasses.replace(read_resolved(trained.resolved), prompts=PROMPTS)
    evaluate(experiment, base, merged, held_out, trained.output, output, PROBES)
    return output


def plain_answers(folder, adapter) -> list[str]:
    """What PEFT and transformers answer to PROMPTS, one at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model, found = PeftModel.from_pretrained(model, adapter).eval(), []
    for prompt in PROMPTS:
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        output = model.generate(input_ids=ids, do_sample=False, max_new_tokens=128, eos_token_id=2)
        found.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    return found


def plain_loss(folder, packs, adapter=None) -> tuple[float, int]:
    """transformers' own loss of single samples, weighted by their supervised tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    total, tokens = 0.0, 0
    for pack in packs:
        bounds = [0, *pack.lengths.cumsum().tolist()]
        for start, end in pairwise(bounds):
            ids = torch.tensor(pack.input_ids[start:end].tolist())[None]
            labels = torch.tensor(pack.labels[start:end].tolist())[None]
            count = int((labels[:, 1:] != IGNORE).sum())
            with torch.no_grad():
                total += model(ids, labels=labels).loss.item() * count
            tokens += count
    return total / tokens, tokens


def test_heldout_loss_agrees_with_transformers(base, held_out):
    packs = Packs(held_out / "heldout.arrow")
    assert any(len(pack.lengths) > 1 for pack in packs) and len(packs) > 1
    expected, tokens = plain_loss(base, packs)
    found = heldout_loss(load_model(base, torch.float32, CPU), packs, CPU)
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert found["supervised_tokens"] == tokens


def test_no_heldout_rows_have_no_loss(base, data):
    model = load_model(base, torch.float32, CPU)
    found = heldout_loss(model, Packs(data / "heldout.arrow"), CPU)
    assert found == {"loss": None, "perplexity": None, "supervised_tokens": 0}


def test_both_models_are_measured_on_the_same_rows(evaluated, base, merged, held_out):
    heldout = read_json(evaluated / "report.json")["heldout"]
    packs = Packs(held_out / "heldout.arrow")
    for name, folder in (("base", base), ("merged", merged)):
        assert heldout[name]["loss"] == pytest.approx(plain_loss(folder, packs)[0], abs=1e-5)
    assert heldout["merged"]["loss"] < heldout["base"]["loss"] - 1


def test_answers_agree_with_transformers(evaluated, base, merged):
    answers = read_json(evaluated / "report.json")["answers"]
    assert [row["prompt"] for row in answers] == PROMPTS
    for name, folder in (("base", base), ("merged", merged)):
        model, tokenizer = (
            kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
        )
        for row in answers:
            text = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            output = model.generate(ids, do_sample=False, max_new_tokens=128, eos_token_id=2)
            told = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
            assert row[name] == told
    assert answers[0]["base"] != answers[0]["merged"]


def test_every_checkpoint_is_measured(evaluated, trained, base, held_out):
    report = read_json(evaluated / "report.json")
    names = ["base", *(f"iter_{n}" for n in (4, 8, 12, 16, 20, 24)), "merged"]
    assert [row["name"] for row in report["models"]] == names
    assert [row["iteration"] for row in report["models"]] == [0, 4, 8, 12, 16, 20, 24, 24]
    assert list(report["heldout"]) == names
    assert all(list(row) == ["prompt", *names] for row in report["answers"])
    assert report["checkpoints"]["result"] == "iter_24"
    packs = Packs(held_out / "heldout.arrow")
    for iteration in (4, 20):
        loss, _ = plain_loss(base, packs, trained.export(str(iteration)))
        assert report["heldout"][f"iter_{iteration}"]["loss"] == pytest.approx(loss, abs=1e-5)
        answers = [row[f"iter_{iteration}"] for row in report["answers"]]
        assert answers == plain_answers(base, trained.export(str(iteration)))
    assert report["checkpoints"]["sentence"] in unescape((evaluated / "report.html").read_text())


def test_checkpoints_can_be_left_out(trained, base, merged, data, run, tmp_path):
    experiment = read_resolved(run("few", evaluate={"checkpoints": False}).resolved)
    evaluate(experiment, base, merged, data, trained.output, tmp_path / "eval", PROBES)
    report = read_json(tmp_path / "eval" / "report.json")
    assert list(report["heldout"]) == ["base", "merged"]
    assert report["checkpoints"]["best"] is None


def test_report_has_ids_training_and_merge(evaluated, trained, merged):
    report = read_json(evaluated / "report.json")
    assert report["ids"] == {"base": "tiny", "data": "data-id", "train": "0123456789ab"}
    training = read_json(trained.output / "train.json")
    training.pop("record_version", None)
    assert report["training"] == training
    assert report["merge"] == read_json(merged / "snaketune.json")["merge"]
    assert "<h1>run</h1>" in (evaluated / "report.html").read_text()


def test_report_without_heldout_rows_and_prompts(trained, base, merged, data, run, tmp_path):
    experiment = read_resolved(run("other", sample={"prompts": []}).resolved)
    evaluate(experiment, base, merged, data, trained.output, tmp_path / "eval", PROBES)
    report = read_json(tmp_path / "eval" / "report.json")
    assert (report["answers"], report["heldout"]["base"]["loss"]) == ([], None)
    assert report["probes"] == {}
    assert (tmp_path / "eval" / "probes.jsonl").read_text() == ""
    assert "no rows are held out" in (tmp_path / "eval" / "report.html").read_text()


def test_probe_is_scored_for_both_models(trained, base, merged, data, run, tmp_path):
    (tmp_path / "retention.yaml").write_text(
        "- {question: Say 3, accept: ['3']}\n- {question: Say 5, accept: [nothing like this]}\n"
    )
    resolved = run("probed", evaluate={"probes": ["retention"]}).resolved
    experiment = dataclasses.replace(read_resolved(resolved), prompts=["Say 3", "Say 5"])
    evaluate(experiment, base, merged, data, trained.output, tmp_path / "eval", tmp_path)
    report = read_json(tmp_path / "eval" / "report.json")
    rows = read_jsonl(tmp_path / "eval" / "probes.jsonl")
    assert [(row["probe"], row["question"]) for row in rows] == [
        ("retention", "Say 3"),
        ("retention", "Say 5"),
    ]
    for model in ("base", "merged"):
        told = [row[model] for row in report["answers"]]  # the same prompts, in one batch too
        assert all(
            long.startswith(row[model]["answer"]) for long, row in zip(told, rows, strict=True)
        )
        found = [bool(re.search(r"\b3\b", rows[0][model]["answer"])), False]
        assert [row[model]["found"] for row in rows] == found
        assert report["probes"]["retention"][model]["value"] == sum(found) / 2
        assert report["probes"]["retention"][model]["n"] == 2
    page = (tmp_path / "eval" / "report.html").read_text()
    assert "knows the answer to a general question" in page


KINDS = {
    "qa": (
        "kind: question_answering\nquestions: [{question: Say 3, answers: ['3 3']}]",
        "exact_match",
    ),
    "mc": (
        "kind: multiple_choice\nquestions: [{question: Say 3, choices: [a b, c], answer: c}]",
        "acc_norm",
    ),
    "sums": ("kind: numeric\nquestions: [{question: Say 3, answer: 3}]", ""),
    "calls": ("kind: tool_calls\ntools: [{name: x}]\nquestions: [{question: Say 3}]", "strict"),
}


def test_every_kind_of_probe(trained, base, merged, held_out, run, tmp_path):
    for name, (text, _) in KINDS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    settings = {"probes": list(KINDS), "heldout_answers": 3, "max_new_tokens": 20}
    experiment = dataclasses.replace(
        read_resolved(run("kinds", evaluate=settings).resolved), prompts=["Say 3"]
    )
    output = tmp_path / "eval"
    evaluate(experiment, base, merged, held_out, trained.output, output, tmp_path)
    report, rows = read_json(output / "report.json"), read_jsonl(output / "probes.jsonl")
    figures = {f"{name}.{metric}".strip(".") for name, (_, metric) in KINDS.items()}
    figures |= {"heldout_answers.token_f1", "repetition", "never_stops"}
    assert figures <= set(report["probes"])
    for row in report["probes"].values():
        for model in ("base", "merged"):
            assert row[model]["low"] <= row[model]["value"] <= row[model]["high"]
    asked = [row["probe"] for row in rows]
    assert asked == [*KINDS, *["heldout_answers"] * 3]
    answered = 1 + 3 + 3  # the prompt, the probes that are answered, the held-out rows
    assert report["probes"]["never_stops"]["base"]["n"] == answered
    stopped = [row["base"]["stopped"] for row in rows if row["probe"] != "mc"]
    cut = report["probes"]["never_stops"]["base"]["value"] * answered - stopped.count(False)
    assert cut == pytest.approx(0) or cut == pytest.approx(1)
    assert report["heldout_by_source"] == {
        "rows": {model: pytest.approx(found) for model, found in report["heldout"].items()}
    }
    assert report["lm_eval"] == {}
    page = (output / "report.html").read_text()
    assert "gives the right choice the highest likelihood" in page


def test_mistakes_are_reported_before_models_are_loaded(
    trained, base, merged, data, run, tmp_path, monkeypatch
):
    (tmp_path / "mine.yaml").write_text("kind: numeric\nquestions: 3")
    monkeypatch.setattr("snaketune.evaluation.evaluated_models.load_model", None)

    def attempt(experiment):
        evaluate(experiment, base, merged, data, trained.output, tmp_path / "eval", tmp_path)

    probed = read_resolved(run("broken", evaluate={"probes": ["mine"]}).resolved)
    with pytest.raises(UserError, match=r"mine\.yaml:2: questions: found 3"):
        attempt(probed)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tasks = dataclasses.replace(read_resolved(run("harness").resolved), lm_eval=["arc_easy"])
    with pytest.raises(UserError, match=r"pip install -e '\.\[lm-eval\]'"):
        attempt(tasks)
    assert not (tmp_path / "eval").exists()


def test_other_template_is_refused(trained, base, merged, data, tmp_path):
    changed = shutil.copytree(data, tmp_path / "data")
    told = read_json(changed / "data.json")
    told["template"] |= {"name": "chatml", "sha256": 64 * "f"}
    (changed / "data.json").write_text(json.dumps(told))
    experiment = read_resolved(trained.resolved)
    message = r"template 'auto' \(\w{12}\), but the data now uses 'chatml' \(f{12}\)"
    with pytest.raises(UserError, match=message):
        evaluate(experiment, base, merged, changed, trained.output, tmp_path / "eval", PROBES)
    assert not (tmp_path / "eval").exists()
