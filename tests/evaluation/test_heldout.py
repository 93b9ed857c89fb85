"""Held-out rows: the loss of each source and the answers to them, against the rows themselves."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare
from snaketune.data.storage import Packs, Samples
from snaketune.evaluation.evaluation_record import HeldoutLoss
from snaketune.evaluation.heldout import Heldout, heldout_losses
from snaketune.export.agreement import heldout_loss
from snaketune.models.load_model import load_model, load_tokenizer

CPU = torch.device("cpu")
END = 2
FRUIT = [(f"Fruit {index}?", "apple " * (1 + index % 4) + f"{index}") for index in range(12)]
TOWNS = [(f"Town {index}?", f"London {index}" * (1 + index % 3)) for index in range(20)]


def split_by_source(folder, base, pack=True, **changes):
    """Prepare two sources, the second given in two parts of the same label."""
    folder.mkdir(exist_ok=True)
    sources = []
    for label, rows in (("fruit", FRUIT), ("towns", TOWNS[:8]), ("towns", TOWNS[8:])):
        file = folder / f"{len(sources)}.jsonl"
        lines = (json.dumps({"instruction": q, "input": "", "output": a}) for q, a in rows)
        file.write_text("\n".join(lines))
        source = {"label": label, "path": str(file), "format": "alpaca", "vars": {}, "weight": 1.0}
        sources.append(source)
    spec = {"template": "auto", "loss_on": "assistant", "truncation": "right", "pack": pack}
    spec |= {"max_length": 200, "deduplicate": False, "heldout": 0.4, "sources": sources}
    prepare(DataSpec.from_key(spec | changes), base, folder / "data")
    return folder / "data"


@pytest.fixture(scope="module")
def data(base, tmp_path_factory):
    return split_by_source(tmp_path_factory.mktemp("split"), base)


def rows_held_out(heldout: Heldout, tokenizer) -> dict[str, list[tuple[str, str]]]:
    """Return the question and answer of each held-out sample, by the words that are in it."""
    found = {"fruit": [], "towns": []}
    for pack in heldout.packs:
        text = tokenizer.decode(pack.input_ids.tolist())
        for part in text.split("<|im_start|>user\n")[1:]:
            question, _, answer = part.partition("<|im_end|>\n<|im_start|>assistant\n")
            name = "fruit" if "Fruit" in question else "towns"
            found[name].append((question, answer.partition("<|im_end|>")[0]))
    return found


def plain_loss(folder, tokenizer, rows) -> tuple[float, int]:
    """Return transformers' own mean loss of each row alone, over the tokens of answer and end."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    total, count = 0.0, 0
    for question, answer in rows:
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        begin = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = tokenizer(f"{prompt}{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
        labels = torch.tensor([[-100] * begin + ids[begin:]])
        with torch.no_grad():
            loss = model(torch.tensor([ids]), labels=labels).loss.item()
        total, count = total + loss * (len(ids) - begin), count + len(ids) - begin
    return total / count, count


def test_loss_of_each_source(data, base):
    heldout, tokenizer = Heldout(data), AutoTokenizer.from_pretrained(base)
    rows = rows_held_out(heldout, tokenizer)
    assert all(rows.values())
    model = load_model(base, torch.float32, CPU)
    every, by_source = heldout_losses(model, heldout, CPU)
    assert set(by_source) == {"fruit", "towns"}
    numbers = map(heldout.packs.samples, range(len(heldout.packs)))
    mixed = [len(set(map(heldout.source, of_pack))) for of_pack in numbers]
    assert max(mixed) == 2  # some pack has rows of both
    for name, figures in by_source.items():
        loss, tokens = plain_loss(base, tokenizer, rows[name])
        assert figures.loss == pytest.approx(loss, abs=1e-5)
        assert figures.perplexity == pytest.approx(math.exp(loss), rel=1e-5)
        assert figures.supervised_tokens == tokens
    whole = heldout_loss(model, Packs(data / "heldout.arrow"), CPU)
    assert every.model_dump() == pytest.approx(whole)


def test_source_of_each_sample(data, base):
    heldout, tokenizer = Heldout(data), AutoTokenizer.from_pretrained(base)
    samples = Samples(data / "samples.arrow")
    assert len(samples) == len(FRUIT) + len(TOWNS)
    for number in range(len(samples)):
        text = tokenizer.decode(samples[number].input_ids.tolist())
        assert heldout.source(number) == ("fruit" if "Fruit" in text else "towns")


def test_loss_is_weighted(base, tmp_path):
    folder = tmp_path / "weighed"
    folder.mkdir()
    asked = {"role": "user", "content": "Hi?"}
    rows = [
        {"messages": [asked | {"content": f"Hi {i}?"}, {"role": "assistant", "content": f"a{i}"}]}
        for i in range(12)
    ]
    for row in rows[::2]:
        row["messages"][1]["loss_weight"] = 0.25
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"label": "own", "path": str(folder / "rows.jsonl"), "format": "openai", "vars": {}}
    spec = {"template": "auto", "loss_on": "assistant", "truncation": "right", "pack": True}
    spec |= {"max_length": 200, "deduplicate": False, "heldout": 0.5}
    prepare(
        DataSpec.from_key(spec | {"sources": [source | {"weight": 1.0}]}), base, folder / "data"
    )
    model, packs = load_model(base, torch.float32, CPU), Packs(folder / "data/heldout.arrow")
    assert any(pack.weights is not None for pack in packs)
    every, by_source = heldout_losses(model, Heldout(folder / "data"), CPU)
    assert by_source == {"own": every}
    assert every.model_dump() == pytest.approx(heldout_loss(model, packs, CPU))


def test_no_heldout_rows_have_no_loss(base, tmp_path):
    heldout = Heldout(split_by_source(tmp_path, base, heldout=0.0))
    every, by_source = heldout_losses(load_model(base, torch.float32, CPU), heldout, CPU)
    assert every == HeldoutLoss(loss=None, perplexity=None, supervised_tokens=0)
    assert by_source == {}
    assert heldout.questions(5, load_tokenizer(base), [END]).questions == []


def test_rows_to_answer_have_their_own_answers(data, base):
    heldout, tokenizer = Heldout(data), load_tokenizer(base)
    rows = rows_held_out(heldout, tokenizer)
    found = heldout.questions(99, tokenizer, [END]).questions
    assert {row.answers[0] for row in found} == {
        answer for own in rows.values() for _, answer in own
    }
    for row in found:
        begin, _, rest = tokenizer.decode(row.prompt).partition("user\n")
        question, _, end = rest.partition("<|im_end|>")
        assert (begin, end) == ("<|im_start|>", "\n<|im_start|>assistant\n")
        assert (question, row.answers[0]) in rows["fruit" if "Fruit" in question else "towns"]
        assert question in row.question and "<|" not in row.question


def test_few_rows_are_spread_over_all_sources(data, base):
    heldout, tokenizer = Heldout(data), load_tokenizer(base)
    every = heldout.questions(99, tokenizer, [END]).questions
    few = heldout.questions(3, tokenizer, [END]).questions
    assert len(few) == 3 and few[0] == every[0] and few[-1] == every[-1]
    assert {row.question.split()[1] for row in few} == {"Fruit", "Town"}
    assert heldout.questions(3, tokenizer, [END]).questions == few


def test_last_answer_of_a_conversation_is_asked_for(base, tmp_path):
    rows = [
        {"instruction": f"Last {i}?", "output": f"z{i}", "history": [[f"{i}?", "a"], ["Mid?", "b"]]}
        for i in range(6)
    ]
    folder = split_rows(tmp_path, base, rows)
    found = Heldout(folder).questions(9, load_tokenizer(base), [END]).questions
    assert found
    for row in found:
        text = load_tokenizer(base).decode(row.prompt)
        assert text.count("<|im_start|>assistant\n") == 3 and "Mid?<|im_end|>" in text
        assert row.answers[0].startswith("z")


def test_truncated_answers_and_plain_texts_are_skipped(base, tmp_path):
    rows = [{"instruction": f"Q{i}?", "input": "", "output": "word " * 40} for i in range(6)]
    cut = Heldout(split_rows(tmp_path / "cut", base, rows, max_length=80))
    assert len(cut.packs) and cut.questions(9, load_tokenizer(base), [END]).questions == []
    texts = [{"text": f"Once {i}"} for i in range(6)]
    told = Heldout(split_rows(tmp_path / "text", base, texts, format="text"))
    assert len(told.packs) and told.questions(9, load_tokenizer(base), [END]).questions == []


def split_rows(folder, base, rows, max_length=300, format="alpaca"):
    """Prepare rows, half of them held out."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"label": "rows", "path": str(folder / "rows.jsonl"), "format": format, "vars": {}}
    spec = {"template": "auto", "loss_on": "assistant", "truncation": "right", "pack": False}
    spec |= {"max_length": max_length, "deduplicate": False, "heldout": 0.5}
    prepare(
        DataSpec.from_key(spec | {"sources": [source | {"weight": 1.0}]}), base, folder / "data"
    )
    return folder / "data"
