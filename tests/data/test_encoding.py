"""No token is lost or invented on the way from rows to samples, whatever does not fit."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.conftest import chat
from snaketune.data.data_spec import SourceSpec
from snaketune.data.encoding import EncodingOptions, encode_rows
from snaketune.data.template import IGNORE, ChatTemplate
from snaketune.rows.reading import Row

SOURCE = SourceSpec("rows", Path(), "openai")
ANSWER_ENDS = "<|im_end|>"

words = st.integers(1, 12).map(lambda count: " ".join(["tea"] * count))
turn = st.tuples(words, words).map(
    lambda said: [
        {"role": "user", "content": f"user {said[0]}"},
        {"role": "assistant", "content": f"answer {said[1]}"},
    ]
)
weighed = st.tuples(turn, st.sampled_from([{}, {"weight": 0}])).map(
    lambda given: [given[0][0], given[0][1] | given[1]]
)
system = st.sampled_from([[], [{"role": "system", "content": "Be kind."}]])
lengths = st.integers(8, 80)
conversation = st.tuples(system, st.lists(turn, min_size=1, max_size=4)).map(
    lambda parts: [*parts[0], *chain(*parts[1])]
)


@pytest.fixture(scope="module")
def template(bases):
    return ChatTemplate(bases["chatml"], "auto")


@pytest.fixture(scope="module")
def reference(tokenizer):
    return lambda messages: tokenizer.apply_chat_template(messages, return_dict=False)


@given(
    st.lists(conversation, max_size=6),
    lengths,
    st.sampled_from(["right", "left_turns", "drop"]),
    st.sampled_from(["assistant", "last_turn"]),
)
def test_every_row_is_kept_cut_or_dropped_and_counted(
    template, reference, conversations, max_length, truncation, loss_on
):
    options = EncodingOptions("auto", max_length, loss_on, truncation)
    rows = [Row(messages, f"x:{n}") for n, messages in enumerate(conversations)]
    chunk = encode_rows(template, options, SOURCE, rows)
    dropped = {place: reason for reason, place in chunk.dropped}
    cut = {place: tokens for place, tokens, _ in chunk.cut}
    kept = split(chunk.samples)
    for row in rows:
        whole = reference(row.value)
        if row.place in dropped:
            assert len(whole) > max_length
            assert row.place not in cut
            continue
        ids, labels = next(kept)
        assert len(ids) + cut.get(row.place, 0) == len(whole)
        assert (len(ids) < len(whole)) == (row.place in cut)
        assert ids in beginnings(reference, row.value, max_length, truncation)
        assert any(label != IGNORE for label in labels)
        assert all(label in (IGNORE, token) for label, token in zip(labels, ids, strict=True))
    assert next(kept, None) is None


@given(conversation, st.integers(8, 200), st.sampled_from(["right", "left_turns"]))
def test_no_label_is_outside_an_answer(template, conversation, max_length, truncation):
    options = EncodingOptions("auto", max_length, "assistant", truncation)
    chunk = encode_rows(template, options, SOURCE, [Row(conversation, "x:1")])
    answers = [m["content"] + ANSWER_ENDS for m in conversation if m["role"] == "assistant"]
    for ids, labels in split(chunk.samples):
        *whole, last = learned_texts(template.tokenizer, ids, labels)
        following = [answers[n : n + len(whole) + 1] for n in range(len(answers) - len(whole))]
        assert any(
            whole == given[:-1] and given[-1].startswith(last)
            for given in (following if truncation == "left_turns" else following[:1])
        )


@given(st.lists(weighed, min_size=1, max_size=4).map(lambda turns: [*chain(*turns)]), lengths)
def test_left_turns_drops_no_more_than_a_cut(template, conversation, max_length):
    def kept(truncation):
        options = EncodingOptions("auto", max_length, "assistant", truncation)
        chunk = encode_rows(template, options, SOURCE, [Row(conversation, "x:1")])
        return len(chunk.groups)

    assert kept("left_turns") >= kept("right")


def test_left_turns_needs_a_supervised_token(template, reference):
    messages = chat("a", "learn " * 60, "b", "no")
    messages[3]["loss"] = False
    options = EncodingOptions("auto", 64, "assistant", "left_turns")
    chunk = encode_rows(template, options, SOURCE, [Row(messages, "x:1")])
    assert [ids for ids, _ in split(chunk.samples)] == [reference(messages)[:64]]
    assert chunk.dropped == []


@given(st.integers(1, 120), lengths)
def test_a_text_is_learned_but_for_the_first_token_of_each_part(
    template, tokenizer, count, max_length
):
    text = "tea" + " tea" * count
    rows = [Row({"text": text}, "x:1")]
    source = SourceSpec("rows", Path(), "text")
    chunk = encode_rows(template, EncodingOptions("auto", max_length), source, rows)
    parts = list(split(chunk.samples))
    whole = tokenizer(text + "<|endoftext|>", add_special_tokens=False)["input_ids"]
    assert [token for ids, _ in parts for token in ids] == whole
    assert [labels for _, labels in parts] == [ids for ids, _ in parts]
    assert all(2 <= len(ids) <= max_length for ids, _ in parts)
    assert (chunk.dropped, chunk.cut) == ([], [])


def split(samples):
    """Yield each sample's ids and labels as lists."""
    start = 0
    for length in samples.sizes.lengths.tolist():
        stop = start + length
        yield samples.input_ids[start:stop].tolist(), samples.labels[start:stop].tolist()
        start = stop


def beginnings(reference, messages, max_length, truncation):
    """Return what may be left: the beginning of the whole, or of its last turns."""
    texts = [reference(messages)]
    if truncation == "left_turns":
        head = [m for m in messages if m["role"] == "system"]
        asked = [n for n, message in enumerate(messages) if message["role"] == "user"]
        texts += [reference(head + messages[n:]) for n in asked[1:]]
    return [ids[:max_length] for ids in texts]


def learned_texts(tokenizer, ids, labels):
    """Return the texts of the runs of labels."""
    texts, run = [], []
    for token, label in zip([*ids, None], [*labels, IGNORE], strict=True):
        if label != IGNORE:
            run.append(token)
        elif run:
            texts.append(tokenizer.decode(run, skip_special_tokens=False))
            run = []
    return texts
