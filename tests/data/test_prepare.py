import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.conftest import SPEC, bracketed, samples_of
from data_report import with_training_length
from snaketune.core.errors import UserError
from snaketune.data.data_record import DataReport
from snaketune.data.data_report_page import report_html, report_text
from snaketune.data.data_spec import DataSpec, SourceSpec
from snaketune.data.packing import concatenate_and_cut
from snaketune.data.prepare import (
    chosen_rows,
    first_mistakes,
    heldout_groups,
    sample_by_weight,
)
from snaketune.data.storage import Packs, Samples
from snaketune.experiment.schema import Train

FILES = ("samples.arrow", "train.arrow", "heldout.arrow")


def with_training(report, train):
    """Add how long training takes to a report given as plain values."""
    return with_training_length(DataReport(**report), train)


ROWS = [
    {"instruction": f"Question {n}?", "output": f"Answer {n}. " + "word " * n} for n in range(40)
]


def length(tokenizer, row):
    """Count a row's tokens with transformers alone."""
    turns = [("user", row["instruction"]), ("assistant", row["output"])]
    messages = [{"role": role, "content": content} for role, content in turns]
    return len(tokenizer.apply_chat_template(messages, return_dict=False))


def shown(report):
    """Return the texts of the samples a report shows."""
    return [bracketed(sample["parts"]) for sample in report["samples"]]


def questions_of(path, tokenizer):
    """Return the first line a user says in each sample."""
    return [tokenizer.decode(ids).split("\n")[1] for ids in samples_of(path)]


def test_the_reports_numbers_equal_a_slow_count(run, source, tokenizer):
    report = run(source(ROWS))
    answers = [tokenizer.encode(row["output"] + "<|im_end|>") for row in ROWS]
    tokens = sum(length(tokenizer, row) for row in ROWS)
    assert report["train"]["samples"] == 40
    assert report["train"]["tokens"] == tokens
    assert report["train"]["supervised_tokens"] == sum(map(len, answers))
    assert report["train"]["fill_rate"] == round(tokens / report["train"]["packs"] / 128, 4)
    lengths = sorted(length(tokenizer, row) for row in ROWS)
    assert report["train"]["length_quantiles"]["min"] == lengths[0]
    assert report["train"]["length_quantiles"]["max"] == lengths[-1]
    assert report["train"]["length_quantiles"]["50%"] == (lengths[19] + lengths[20]) / 2


def test_the_packs_hold_every_sample_once_and_none_is_too_long(run, source, tokenizer, tmp_path):
    report = run(source(ROWS))
    packs = Packs(tmp_path / "out/train.arrow")
    assert len(packs) == report["train"]["packs"] < 40
    assert all(pack.lengths.sum() == len(pack.input_ids) <= 128 for pack in packs)
    assert sorted(map(len, samples_of(tmp_path / "out/train.arrow"))) == sorted(
        length(tokenizer, row) for row in ROWS
    )


def test_without_packing_samples_keep_their_order(run, source, tmp_path):
    run(source(ROWS), pack=False)
    lengths = [pack.lengths.tolist() for pack in Packs(tmp_path / "out/train.arrow")]
    assert len(lengths) == 40
    assert lengths == sorted(lengths)


def test_what_is_too_long_is_cut_and_counted(run, source, tokenizer):
    [told] = run(source(ROWS), max_length=60)["sources"]
    over = [max(0, length(tokenizer, row) - 60) for row in ROWS]
    assert told["truncated"]["samples"] == sum(map(bool, over)) > 0
    assert told["truncated"]["tokens_cut"] == sum(over)
    first = next(line for line, cut in enumerate(over, 1) if cut)
    assert told["truncated"]["first"][0].endswith(f"rows.jsonl:{first}")


def test_question_that_fills_the_sample_is_dropped(run, source, tmp_path):
    rows = [ROWS[0], {"instruction": "why " * 200, "output": "So."}]
    [told] = run(source(rows), max_length=60)["sources"]
    reason = {"samples": 1, "first": [f"{tmp_path}/rows.jsonl:2"]}
    assert told["dropped"] == {"the answer starts after max_length = 60": reason}
    assert (told["rows_read"], told["samples_kept"]) == (2, 1)


def test_a_row_without_an_answer_is_dropped_with_its_line(run, source, tmp_path):
    rows = [ROWS[0], {"instruction": "Why?", "output": " "}]
    [told] = run(source(rows))["sources"]
    reason = {"samples": 1, "first": [f"{tmp_path}/rows.jsonl:2"]}
    assert told["dropped"] == {"a blank answer": reason}


def test_unanswered_questions_are_dropped_and_counted(run, source, tmp_path):
    asked = {"role": "user", "content": "Why?"}
    answered = [asked, {"role": "assistant", "content": "So."}]
    report = run(source([answered, [*answered, asked], answered], format="openai"))
    [told] = report["sources"]
    assert told["unanswered"] == {"samples": 1, "first": [f"{tmp_path}/rows.jsonl:2"]}
    assert told["samples_kept"] == 3
    assert "1 lose what follows their last answer" in report_text(with_training(report, Train()))


def test_shown_sample_brackets_learned_text(run, source, tmp_path):
    report = run(source([{"instruction": "天气？", "output": "晴。"}]))
    expected = "<|im_start|>user\n天气？<|im_end|>\n<|im_start|>assistant\n⟦晴。<|im_end|>⟧\n"
    assert shown(report) == [expected]
    told = with_training(report, Train())
    assert expected.rstrip() in report_text(told)
    learned = "<mark>晴。&lt;|im_end|&gt;</mark>"
    assert f"&lt;|im_start|&gt;assistant\n{learned}" in report_html("x", told)


def test_brackets_in_a_text_do_not_mark_it_as_learned(run, source):
    report = run(source([{"instruction": "What is ⟦?", "output": "A ⟧ mirrored."}]))
    assert [tuple(part.values()) for part in report["samples"][0]["parts"]] == [
        ("<|im_start|>user\nWhat is ⟦?<|im_end|>\n<|im_start|>assistant\n", False),
        ("A ⟧ mirrored.<|im_end|>", True),
        ("\n", False),
    ]
    page = report_html("x", with_training(report, Train()))
    assert "What is ⟦?&lt;|im_end|&gt;\n" in page
    assert page.count("<mark>") == 1 + 1  # the heading has one
    assert "<mark>A ⟧ mirrored.&lt;|im_end|&gt;</mark>\n" in page


@pytest.mark.parametrize(
    ("counts", "expected"), [([9], [5]), ([9, 2, 9], [2, 2, 2]), ([1, 9], [1, 3])]
)
def test_some_samples_of_each_source_are_shown(run, source, counts, expected):
    sources = [source(ROWS[:count], f"rows{n}", weight=2.0) for n, count in enumerate(counts)]
    report = run(*sources)
    names = Counter(sample["source"] for sample in report["samples"])
    assert [names[each["label"]] for each in sources] == expected
    told = report_text(with_training(report, Train()))
    assert all(f"\n{each['label']}:\n<|im_start|>user\nQuestion 0?" in told for each in sources)


def test_page_shows_the_length_of_training(run, source):
    train = Train(epochs=3, batch_size=2, accumulate=4, save_every=10)
    told = with_training(run(source(ROWS), pack=False), train)
    assert told.training.model_dump() == {"iterations": 60, "updates": 15, "checkpoints": 6}
    assert "60 iterations" in report_html("x", told)


def test_what_was_left_out_is_on_the_page_with_its_places(run, source, tmp_path):
    rows = [*ROWS, {"instruction": "Why?", "output": " "}, {"instruction": "<b>", "output": "x"}]
    told = with_training(run(source(rows), max_length=60), Train())
    page = report_html("x", told)
    assert f"<td>1 dropped: a blank answer</td><td>{tmp_path}/rows.jsonl:41</td>" in page
    assert "<b>" not in page
    assert "within an answer" in page
    assert "src=" not in page and 'href="http' not in page  # it opens offline


def test_the_tokens_that_end_answers_are_counted(run, source):
    report = run(source(ROWS))
    assert report["special_tokens"] == {"<|endoftext|>": 0, "<|im_end|>": 80}


def test_the_report_is_written_as_it_is_returned(run, source, tmp_path):
    report = run(source(ROWS))
    assert json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8")) == {
        "record_version": 1,
        **report,
    }


def test_placeholders_are_filled_from_the_source(run, source):
    rows = [{"question": "Who?", "answers": ["I'm {{name}}.", "{{name}}!"]}]
    report = run(source(rows, format="assistant", vars={"name": "Ada"}))
    said = [sample.split("⟦")[1].split("<")[0] for sample in shown(report)]
    assert said == ["I'm Ada.", "Ada!"]


def test_unfilled_placeholder_is_an_error_in_assistant_rows(run, source):
    rows = [{"question": "Who?", "answers": ["I'm {{name}}."]}]
    with pytest.raises(UserError, match=r"rows.jsonl:1: the text contains \{\{name\}\}, but no"):
        run(source(rows, format="assistant"))
    report = run(source([{"instruction": "Jinja?", "output": "{{name}}"}]))
    assert "⟦{{name}}<|im_end|>⟧" in shown(report)[0]


@pytest.mark.parametrize(
    ("row", "reason", "fix"),
    [
        ({"instruction": "x " * 99}, "the answer starts after max_length = 16", "raise max_length"),
        ({"output": ""}, "a blank answer", "provide rows with answers"),
        ({"update_date": "2019-01-01"}, "left out by `filter`", "a `filter` that keeps some"),
    ],
)
def test_no_supervised_token_is_an_error_with_a_fix(run, source, row, reason, fix):
    wanted = {"categories": [], "start_date": "2020-01-01"}
    rows = source([ROWS[0] | {"update_date": "2020-01-01"} | row], filter=wanted)
    with pytest.raises(UserError) as error:
        run(rows, max_length=16)
    assert f"no row has a token to learn from (1 rows: {reason})" in str(error.value)
    assert fix in str(error.value).split("Fix:")[1]


def test_wrong_rows_are_counted_and_five_listed(run, source, tmp_path):
    with pytest.raises(UserError) as error:
        run(source([{"text": "x"}] * 7 + ROWS))
    told = str(error.value)
    assert told.startswith("7 of the first 47 rows cannot be used as 'alpaca':\n")
    assert f"\n  {tmp_path}/rows.jsonl:5: 'instruction' is missing; the row has: text\n" in told
    assert "rows.jsonl:6" not in told
    assert "\n  ... and 2 more\n  Fix: correct the rows, or set the `format:`" in told


@pytest.mark.parametrize(
    ("settings", "changes", "fix"),
    [
        ({"truncation": "error", "max_length": 16}, {}, "raise max_length (now 16), or set trunc"),
        ({}, {"group": "user"}, "name another column than `group: user`"),
        (
            {},
            {"format": "auto", "map": {"user": "instruction", "assistant": "reply"}},
            "correct the rows, or the columns that `map:` names",
        ),
    ],
)
def test_the_fix_is_that_of_the_mistake_alone(run, source, settings, changes, fix):
    with pytest.raises(UserError) as error:
        run(source(ROWS, **changes), **settings)
    assert fix in str(error.value).split("Fix: ")[1]
    assert "format" not in str(error.value).split("Fix: ")[1]


def test_template_rejecting_a_row_names_its_place(source, bases, tmp_path):
    from snaketune.data.prepare import prepare

    (base := tmp_path / "base").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((bases["chatml"] / name).read_bytes())
    (base / "chat_template.jinja").write_text(
        "{% if messages[0].content == 'Question 2?' %}{{ raise_exception('no') }}{% endif %}"
    )
    spec = SPEC | {"sources": [source(ROWS)]}
    with pytest.raises(
        UserError, match=r"rows.jsonl:3: template 'auto' rejects(.|\n)*template: chatml"
    ):
        prepare(DataSpec.from_key(spec), base, tmp_path / "out")


@pytest.mark.parametrize("bad", [{"format": "openai"}, {"path": "/none.jsonl"}, {"weight": 0.001}])
def test_a_stage_that_fails_leaves_no_manifest(run, source, tmp_path, bad):
    with pytest.raises(UserError):
        run(source(ROWS, **bad))
    assert not (tmp_path / "out/data.json").exists()


def test_preparing_twice_gives_the_same_bytes(run, source, tmp_path):
    sources = [source(ROWS, weight=1.5), source(ROWS[:20], "more", max_rows=7)]
    for output in ("one", "two"):
        run(*sources, output=output, heldout=0.2)
    for name in (*FILES, "report.json", "data.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_data_record_describes_the_data(run, source, tokenizer, bases, tmp_path):
    report = run(source(ROWS), heldout=0.1)
    manifest = json.loads((tmp_path / "out/data.json").read_text())
    for name, digest in manifest["files"].items():
        assert digest == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
    text = (bases["chatml"] / "chat_template.jinja").read_text()
    assert manifest["template"]["text"] == text
    assert manifest["template"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert manifest["template"]["end_token_ids"] == sorted(ends)
    assert (manifest["max_length"], manifest["pack"]) == (128, True)
    assert (manifest["train"], manifest["heldout"]) == (report["train"], report["heldout"])


@pytest.mark.parametrize(("share", "aside"), [(0.0, 0), (0.01, 1), (0.1, 4), (0.5, 20), (0.99, 39)])
def test_this_many_samples_are_held_out(run, source, share, aside):
    report = run(source(ROWS), heldout=share)
    assert report["heldout"]["samples"] == aside
    assert report["train"]["samples"] == 40 - aside


def test_a_question_of_several_sources_is_on_one_side_alone(run, source, tokenizer, tmp_path):
    other_answers = [row | {"output": "Another."} for row in ROWS[::3]]
    run(source(ROWS), source(other_answers, "more"), heldout=0.25)
    train, aside = (
        set(questions_of(tmp_path / f"out/{name}.arrow", tokenizer))
        for name in ("train", "heldout")
    )
    assert train & aside == set()
    assert len(aside) >= 0.25 * len(ROWS)
    assert train | aside == {row["instruction"] + "<|im_end|>" for row in ROWS}


def test_rows_of_a_group_are_on_one_side_whatever_they_ask(run, source, tokenizer, tmp_path):
    rows = [row | {"user": n % 8} for n, row in enumerate(ROWS)]
    run(source(rows, group="user"), heldout=0.25)
    aside = questions_of(tmp_path / "out/heldout.arrow", tokenizer)
    users = {int(question.split()[1].split("?")[0]) % 8 for question in aside}
    assert (len(users), len(aside)) == (2, 10)


def test_missing_group_column_names_the_line(run, source, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/rows.jsonl:1: 'user' is missing"):
        run(source(ROWS, group="user"))
    rows = [ROWS[0] | {"user": 1}, ROWS[1] | {"user": None}]
    with pytest.raises(UserError, match=f"{tmp_path}/rows.jsonl:2: 'user' is missing or null"):
        run(source(rows, group="user"))


def test_long_preparation_reports_progress(run, source, monkeypatch, caplog):
    monkeypatch.setattr("snaketune.core.progress.SECONDS_BETWEEN", 0)
    monkeypatch.setattr(logging.getLogger("snaketune"), "propagate", True)
    caplog.set_level(logging.INFO)
    run(source(MANY))
    told = [record.message for record in caplog.records if " of 2600 rows" in record.message]
    assert told[0].startswith("rows: 500 of 2600 rows  eta 0:0")
    assert told[-1].startswith("rows: 2600 of 2600 rows  eta 0:00:00")


def test_common_system_message_is_recorded(run, source, tmp_path):
    def told(*sources):
        run(*sources)
        return json.loads((tmp_path / "out/data.json").read_text())["template"]["system"]

    one, same = source(ROWS, system="Be brief."), source(ROWS, "more", system="Be brief.")
    assert told(one, same) == "Be brief."
    assert told(one, source(ROWS, "more", system="Be long.")) == ""
    assert told(one, source(ROWS, "more")) == told(source(ROWS)) == ""


some_questions = st.lists(st.integers(0, 6).map(lambda n: n * 2**60 + 7))


@given(some_questions, st.floats(0.001, 0.99), st.randoms())
def test_what_is_held_out_does_not_depend_on_the_order_of_rows(questions, share, order):
    turned = order.sample(questions, len(questions))
    held_out = heldout_groups(turned, share)
    assert held_out.tolist() == heldout_groups(questions, share).tolist()
    assert set(held_out.tolist()) <= set(questions)


@given(some_questions, st.floats(0.001, 0.99))
def test_a_share_holds_out_one_question_at_least_and_leaves_one(questions, share):
    aside = len(heldout_groups(questions, share))
    distinct = len(set(questions))
    assert (1 <= aside < distinct) if distinct > 1 else aside == 0


@pytest.mark.parametrize(
    ("count", "weight", "times", "total"),
    [
        (10, 1.0, {1}, 10),
        (10, 3.0, {3}, 30),
        (10, 0.5, {1}, 5),
        (10, 2.5, {2, 3}, 25),
        (7, 1.1, {1, 2}, 8),
        (10, 1.6, {1, 2}, 16),
        (10, 0.01, set(), 0),
        (0, 2.5, set(), 0),
    ],
)
def test_a_weight_is_how_often_a_sample_is_seen(count, weight, times, total):
    chosen = sample_by_weight(count, weight)
    assert chosen == sample_by_weight(count, weight)
    assert (set(Counter(chosen).values()), len(chosen)) == (times, total)
    assert set(chosen) <= set(range(count))


def test_a_half_is_a_sample_and_not_the_first_half():
    assert sample_by_weight(100, 0.5) != list(range(50))


def test_a_weight_counts_training_samples_and_not_the_held_out(run, source):
    [told] = run(source(ROWS, weight=2.0), heldout=0.25)["sources"]
    assert told["samples_kept"] == 40
    assert told["samples_heldout"] == 10
    assert told["samples_per_epoch"] == 60


def test_max_rows_is_a_seeded_sample(source):
    def chosen():
        return [
            row.value["instruction"]
            for row in chosen_rows(SourceSpec.from_key(source(ROWS, max_rows=10)))[1]
        ]

    one, two = chosen(), chosen()
    assert one == two
    asked_in_order = [row["instruction"] for row in ROWS]
    assert len(set(one)) == 10
    assert one != asked_in_order[:10]
    assert one == sorted(one, key=asked_in_order.index)


@pytest.mark.parametrize("limit", [40, 41, None])
def test_max_rows_above_the_rows_takes_all_in_order(source, limit):
    count, rows = chosen_rows(SourceSpec.from_key(source(ROWS, max_rows=limit)))
    rows = list(rows)
    assert count == len(rows)
    assert [row.value for row in rows] == ROWS
    assert [row.place for row in rows] == [f"{source(ROWS)['path']}:{n}" for n in range(1, 41)]


def test_sources_are_reported_separately(run, source):
    first, second = run(source(ROWS), source(ROWS[:5], "more", weight=2.0))["sources"]
    assert (first["source"], first["rows_read"], first["samples_per_epoch"]) == ("rows", 40, 40)
    assert (second["source"], second["rows_read"], second["samples_per_epoch"]) == ("more", 5, 10)
    assert second["tokens_per_epoch"] < first["tokens_per_epoch"]


def test_tokens_per_epoch_add_up_to_the_tokens_in_the_packs(run, source, tmp_path):
    report = run(source(ROWS, weight=1.5), source(ROWS[:5], "more"), heldout=0.1)
    stored = sum(map(len, samples_of(tmp_path / "out/train.arrow")))
    assert sum(told["tokens_per_epoch"] for told in report["sources"]) == stored
    assert stored == report["train"]["tokens"]
    supervised = chain(*(pack.labels != -100 for pack in Packs(tmp_path / "out/train.arrow")))
    assert sum(map(bool, supervised)) == report["train"]["supervised_tokens"]


MANY = [{"instruction": f"{n}?", "output": "word " * (n % 9 + 1)} for n in range(2600)]


def test_any_number_of_workers_gives_the_same_bytes(run, source, tmp_path):
    for workers in (1, 2, 3):
        run(source(MANY, weight=1.5), output=str(workers), workers=workers, heldout=0.1)
    for name in (*FILES, "report.json", "data.json"):
        one, two, three = ((tmp_path / str(n) / name).read_bytes() for n in (1, 2, 3))
        assert one == two == three


def test_mistake_in_a_worker_reads_the_same(run, source):
    rows = [*MANY, {"instruction": 3, "output": "x"}]
    with pytest.raises(UserError, match=r"1 of the first 2601 rows(.|\n)*rows.jsonl:2601: "):
        run(source(rows), workers=2)


def test_a_longer_sample_may_be_dropped(run, source, tokenizer):
    [told] = run(source(ROWS), max_length=60, truncation="drop")["sources"]
    long = sum(length(tokenizer, row) > 60 for row in ROWS)
    assert told["dropped"]["longer than max_length = 60"]["samples"] == long > 0
    assert told["truncated"]["samples"] == 0


def test_a_longer_sample_may_stop_the_preparation(run, source):
    with pytest.raises(UserError, match=r"rows.jsonl:\d+: \d+ tokens, and max_length is 60"):
        run(source(ROWS), max_length=60, truncation="error")


def test_the_oldest_turns_may_be_left_out(run, source, tokenizer, tmp_path):
    turns = [
        {"role": role, "content": f"{role} {n} " + "word " * 10}
        for n in range(8)
        for role in ("user", "assistant")
    ]
    system = {"role": "system", "content": "Be brief."}
    report = run(
        source([{"messages": [system, *turns]}], format="openai"),
        max_length=100,
        truncation="left_turns",
    )
    [ids] = samples_of(tmp_path / "out/train.arrow")
    rest = [
        tokenizer.apply_chat_template([system, *turns[first:]], return_dict=False)
        for first in range(0, 16, 2)
    ]
    assert ids == next(ids for ids in rest if len(ids) <= 100)
    assert report["sources"][0]["truncated"]["tokens_cut"] == len(rest[0]) - len(ids)
    assert report["sources"][0]["truncated"]["answers_cut"] == 1


def test_pre_training_text_is_learned_whole_and_split_not_cut(run, source, tokenizer, tmp_path):
    text = "Once there was a story. " * 60
    report = run(source([{"text": text}], format="text"), max_length=64, pack=False)
    samples = samples_of(tmp_path / "out/train.arrow")
    whole = tokenizer(text + "<|endoftext|>", add_special_tokens=False)["input_ids"]
    assert [token for ids in samples for token in ids] == whole
    assert report["train"]["supervised_tokens"] == len(whole) - len(samples)
    assert report["sources"][0]["truncated"]["samples"] == 0


def test_duplicates_are_counted_and_may_be_left_out(run, source, tmp_path):
    sources = source([*ROWS[:10], *ROWS[:4]]), source(ROWS[8:12], "more")
    counted = run(*sources)
    assert [told["duplicates"] for told in counted["sources"]] == [4, 2]
    assert counted["train"]["samples"] == 18
    assert run(*sources, deduplicate=True, output="once")["train"]["samples"] == 12


def test_a_quick_look_finds_what_is_wrong_with_the_first_rows(source):
    assert first_mistakes(SourceSpec.from_key(source(ROWS))) == []
    [told] = first_mistakes(SourceSpec.from_key(source([ROWS[0], {"instruction": 3}], "bad")))
    assert "bad.jsonl:2: 'instruction': expected a string, found int" in told
    [told] = first_mistakes(SourceSpec.from_key(source([{"x": 1}], "none", format="auto")))
    assert "none.jsonl:1: the rows up to here fit no format" in told
    assert "the row has: x" in told


DIES = """
import os, runpy, signal, sys
name, *sys.argv = sys.argv[1:]
def replace(source, target, rename=os.replace):
    rename(source, target)
    if os.path.basename(target) == name:
        os.killpg(0, signal.SIGKILL)
os.replace = replace
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program that is killed, with its workers, as soon as a file of this name is there."""


def test_a_kill_at_any_moment_costs_nothing_but_time(run, source, bases, repository, tmp_path):
    spec = SPEC | {"sources": [source(MANY)], "heldout": 0.1}
    run(*spec["sources"], output="undisturbed", heldout=0.1)
    program = [str(repository / "scripts/prepare_data.py"), "--workers", "2"]
    program += ["--base", str(bases["chatml"]), "--output", str(tmp_path / "killed")]
    program += ["--spec", json.dumps(spec)]
    process = subprocess.Popen([sys.executable, *program], start_new_session=True)
    while process.poll() is None and not any((tmp_path / "killed").glob("*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for name in (*FILES, "report.json"):
        command = [sys.executable, "-c", DIES, name, *program]
        killed = subprocess.run(command, start_new_session=True, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert (tmp_path / "killed" / name).exists()
        assert not (tmp_path / "killed/data.json").exists()
    subprocess.run([sys.executable, *program], check=True, capture_output=True)
    for name in (*FILES, "report.json", "data.json"):
        one, two = ((tmp_path / folder / name) for folder in ("undisturbed", "killed"))
        assert one.read_bytes() == two.read_bytes()
    assert {file.name for file in (tmp_path / "killed").iterdir()} == {
        *FILES,
        "report.json",
        "data.json",
    }


def test_xtuner_packing_reports_dropped_tokens(run, source, tmp_path):
    rows = [{"instruction": f"{n:03}?", "output": "word " * 20} for n in range(640)]
    report = run(source(rows), pack="xtuner", max_length=128)
    packs = Packs(tmp_path / "out/train.arrow")
    assert {len(pack.input_ids) for pack in packs} == {128}
    dropped = report["train"]["tokens"] - 128 * len(packs)
    assert report["train"]["tokens_not_packed"] == dropped > 0
    weights = [(pack.labels != -100).sum() for pack in packs]
    assert packs.loss_weights().tolist() == weights


def test_a_cut_pack_without_anything_to_learn_is_left_out(run, source, tmp_path):
    long = "why " * 42
    early = [("user", "Q"), ("assistant", "A"), ("user", long), ("assistant", long)]
    late = [("user", long + long), ("assistant", "A")]
    rows = []
    for number in range(192):
        turns = [{"role": role, "content": said} for role, said in (early, late)[number % 2]]
        turns[-1]["loss"] = number % 2 == 1
        rows.append({"messages": turns})
    report = run(source(rows, format="openai"), pack="xtuner", max_length=256)
    packs = Packs(tmp_path / "out/train.arrow")
    samples = Samples(tmp_path / "out/samples.arrow")
    lengths = [len(samples[number].input_ids) for number in range(len(samples))]
    assert len(packs) < len(concatenate_and_cut(lengths, 256))
    assert packs.loss_weights().min() > 0
    assert report["train"]["tokens_not_packed"] == sum(lengths) - 256 * len(packs)


def test_the_weights_of_answers_are_stored(run, source, tmp_path):
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    half = {"messages": [turns[0], turns[1] | {"loss_weight": 0.5}]}
    run(source([half, {"messages": turns}], format="openai"), pack=False)
    first, second = Packs(tmp_path / "out/train.arrow")
    assert set(first.weights.tolist()) == {0.0, 0.5}
    assert set(second.weights.tolist()) == {0.0, 1.0}
    learned = (first.labels != -100).sum()
    assert Packs(tmp_path / "out/train.arrow").loss_weights().tolist() == [learned / 2, learned]


def test_format_is_recognised_or_the_row_named(run, source):
    assert run(source(ROWS, format="auto"))["sources"][0]["format"] == "alpaca"
    with pytest.raises(UserError, match=r"fit no format(.|\n)*map: \{user"):
        run(source([{"x": "1"}], format="auto"))
    unsure = {"instruction": "I", "output": "O", "response": "R"}
    with pytest.raises(UserError, match="fit the formats alpaca, dolly"):
        run(source([unsure], format="auto"))
    with pytest.raises(UserError, match=r"rows.jsonl:3: the rows up to .* the row has: x, y\."):
        run(source([*ROWS[:2], {"x": 1, "y": 2}, {"z": 3}], format="auto"))


def test_columns_are_mapped_and_a_system_text_is_added(run, source):
    rows = [{"q": "Who?", "a": "Me."}]
    given = source(rows, format="auto", map={"user": "q", "assistant": "a"}, system="Be brief.")
    report = run(given)
    assert report["sources"][0]["format"] == "map"
    assert shown(report)[0].startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_row_without_messages_is_counted(run, source):
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    rows = [{"messages": []}, {"messages": turns}]
    [told] = run(source(rows, format="openai", system="Be brief."))["sources"]
    assert told["dropped"]["no answer to learn from"]["samples"] == 1


def test_arxiv_rows_are_filtered_and_counted(run, source):
    row = {"abstract": "On x.", "title": "X", "update_date": "2021-01-01"}
    rows = [row | {"categories": "cs.AI"}, row | {"categories": "math.CO"}]
    wanted = {"categories": ["cs.AI"], "start_date": "2020-01-01"}
    [told] = run(source(rows, format="arxiv", filter=wanted))["sources"]
    assert told["samples_kept"] == 1
    assert told["dropped"]["left out by `filter`"]["samples"] == 1
