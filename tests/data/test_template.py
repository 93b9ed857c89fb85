"""Ids are pinned against transformers, masks against golden spans and a byte by byte reference."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from snaketune.core.errors import UserError
from snaketune.data.conversation import Conversation
from snaketune.data.template import IGNORE, ChatTemplate, EncodedSample, supervised_tokens

TEXTS = {
    "plain": ("What is rain?", "Water from clouds."),
    "Chinese": ("彩虹是怎么形成的？", "阳光在水滴里折射。🌈"),
    "white space": ("  Indent? ", "  two spaces, then a line end \n"),
    "line ends": ("A list!\n\n", "\n- a\n- b\n\n"),
    "marks": ("What does <|im_end|> or <|eot_id|> do?", "They end: `<|im_start|>` begins."),
    "code": ("C#", "```c\n\tint x;\r\n```"),
}

END = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}

NESTED = (
    "{% for message in messages %}{{ message.role + ':\\n' }}{% if message.role == 'assistant' %}"
)
GENERATION = (
    NESTED + "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
TOOLS = "{% if tools is not none %}{{ 'tools' }}{% endif %}{% if documents is none %}x{% endif %}"
LAST_ANSWER_ALONE = (
    NESTED + "{{ ('<think></think>' if loop.last else '') + message.content + '<|im_end|>' }}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
NO_SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"


def chat(question, answer, turns=1, system=None):
    turn = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return ([{"role": "system", "content": system}] if system else []) + turn * turns


def encode(template, conversation):
    [encoded] = encode_all(template, [conversation])
    return encoded


def encode_all(template, conversations):
    """Return ids and labels as lists, which compare as one expects."""
    given = map(Conversation, conversations)
    texts, spans = zip(*map(template.render_with_spans, given), strict=True)
    encoded = template.tokenise(list(texts), list(spans))
    return [EncodedSample(each.input_ids.tolist(), each.labels.tolist()) for each in encoded]


def learned_texts(template, encoded):
    """Decode each run of supervised tokens."""
    runs, previous = [], IGNORE
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (IGNORE, token)
        if label != IGNORE:
            runs = [*runs, [token]] if previous == IGNORE else [*runs[:-1], [*runs[-1], token]]
        previous = label
    return [template.tokenizer.decode(run, skip_special_tokens=False) for run in runs]


@pytest.fixture(scope="session", params=["chatml", "llama3"])
def name(request):
    return request.param


@pytest.fixture(scope="session")
def template(bases, name):
    return ChatTemplate(bases[name], "auto")


@pytest.fixture(scope="session")
def chatml(bases):
    return ChatTemplate(bases["chatml"], "auto")


@pytest.fixture(scope="session")
def reference(bases, name):
    return AutoTokenizer.from_pretrained(bases[name])


@pytest.fixture
def with_template(bases, tmp_path):
    """Return a function that gives a base folder whose own template is the given text."""

    def with_template(text, **config):
        folder = shutil.copytree(bases["chatml"], tmp_path / "base")
        (folder / "chat_template.jinja").unlink()
        if text is not None:
            (folder / "chat_template.jinja").write_text(text)
        given = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(given | config))
        return folder

    return with_template


@pytest.mark.parametrize("system", [None, "Be brief.\n"])
@pytest.mark.parametrize("turns", [1, 2, 6])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_ids_equal_those_of_transformers(template, reference, text, turns, system):
    conversation = chat(*text, turns, system)
    expected = reference.apply_chat_template(conversation, return_dict=False)
    assert encode(template, conversation).input_ids == expected


@pytest.mark.parametrize("system", [None, "Be brief.\n"])
@pytest.mark.parametrize("turns", [1, 2, 6])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_exactly_the_answers_and_their_end_are_learned(template, name, text, turns, system):
    answer = text[1].strip() if name == "llama3" else text[1]
    encoded = encode(template, chat(*text, turns, system))
    assert learned_texts(template, encoded) == [answer + END[name]] * turns


def test_a_prompt_for_an_answer_equals_that_of_transformers(template, reference):
    messages = [*chat("Hi?", "Yes.", system="S"), {"role": "user", "content": "再见"}]
    expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert template.render(messages, add_generation_prompt=True) == expected


def test_a_token_that_is_half_prompt_is_not_learned(chatml):
    assert chatml.tokenizer.token_to_id("ĊĊ") is not None
    encoded = encode(chatml, chat("Hi?", "\n\nYes."))
    assert learned_texts(chatml, encoded) == ["\nYes.<|im_end|>"]


def test_prompt_ending_in_newline_hides_no_token(bases, tmp_path):
    folder = shutil.copytree(bases["llama3"], tmp_path / "base")
    text = "{% for m in messages %}{{ m.role + ':\\n' + m.content + '<|eot_id|>' }}{% endfor %}"
    prompt = "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
    (folder / "chat_template.jinja").write_text(text + prompt)
    template = ChatTemplate(folder, "auto")
    encoded = encode(template, chat("Hi!", "Yes!\n\n", turns=2))
    assert learned_texts(template, encoded) == ["Yes!\n\n<|eot_id|>"] * 2


BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}
some_text = st.text("aB1 \n\t!?#。水🌈é\u2028\u00a0", max_size=12)


def slow_labels(tokenizer, ids, pieces):
    """Label by the byte at which each token starts; pieces are (text, whether it is learned)."""
    learned = [flag for text, flag in pieces for _ in text.encode()]
    labels, position = [], 0
    for token in ids:
        mark = tokenizer.id_to_token(token)
        size = len(mark) if mark.startswith("<|") else len(bytes(BYTE_OF[c] for c in mark))
        labels.append(token if learned[position] else IGNORE)
        position += size
    assert position == len(learned)
    return labels


@given(st.lists(st.tuples(some_text, some_text), min_size=1, max_size=3))
def test_labels_equal_those_of_a_byte_by_byte_reference(chatml, turns):
    conversation = [message for turn in turns for message in chat(*turn)]
    pieces = []
    for message in conversation:
        asked = message["role"] == "user"
        pieces += [(f"<|im_start|>{message['role']}\n", False)]
        pieces += [(message["content"] + "<|im_end|>", not asked), ("\n", False)]
    encoded = encode(chatml, conversation)
    assert encoded.labels == slow_labels(chatml.tokenizer, encoded.input_ids, pieces)


def test_a_batch_equals_its_conversations_one_by_one(chatml):
    conversations = [chat(*text, turns) for text in TEXTS.values() for turns in (1, 3)]
    one_by_one = [encode(chatml, conversation) for conversation in conversations]
    assert encode_all(chatml, conversations) == one_by_one


def test_the_tokenizers_own_limits_are_lifted(bases, tmp_path):
    folder = shutil.copytree(bases["chatml"], tmp_path / "base")
    settings = json.loads((folder / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(settings | {"truncation": cut}))
    assert len(encode(ChatTemplate(folder, "auto"), chat("Hi?", "x" * 99)).input_ids) > 50


def test_supervised_tokens_leave_out_the_first_of_a_sample(chatml):
    text, spans = chatml.render_with_spans(Conversation(chat("Hi?", "Yes.")))
    [encoded] = chatml.tokenise([text], [spans])
    expected = chatml.tokenizer.encode("Yes.<|im_end|>", add_special_tokens=False).ids
    assert supervised_tokens(encoded) == len(expected)
    assert supervised_tokens(EncodedSample(np.array([1, 2]), np.array([1, 2]))) == 1


def test_an_answer_ends_at_the_templates_mark_or_the_eos(template, name):
    eos = {"chatml": "<|endoftext|>", "llama3": "<|end_of_text|>"}[name]
    expected = {template.tokenizer.token_to_id(mark) for mark in (END[name], eos)}
    assert set(template.end_token_ids()) == expected


def test_the_named_template_is_chatml(bases, tmp_path):
    base = shutil.copytree(bases["chatml"], tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    text = ChatTemplate(base, "chatml").render(chat("Q", "A", system="S"))
    turns = (("system", "S"), ("user", "Q"), ("assistant", "A"))
    assert text == "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)


@pytest.mark.parametrize(("base", "name"), [("llama3", "chatml"), ("chatml", "gemma")])
def test_template_without_end_token_is_refused(bases, base, name):
    with pytest.raises(UserError, match=r"has no such token(.|\n)*template: auto"):
        ChatTemplate(bases[base], name)


def test_a_template_may_stand_in_the_tokenizers_config(with_template):
    folder = with_template(None, chat_template="{{ bos_token }}x", bos_token={"content": "<b>"})
    assert ChatTemplate(folder, "auto").render([]) == "<b>x"


@pytest.mark.parametrize("text", [GENERATION, TOOLS])
def test_what_transformers_offers_to_templates_is_there(with_template, text):
    folder, conversation = with_template(text), chat("Q", "A", turns=2)
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference.apply_chat_template(conversation, tokenize=False)
    assert ChatTemplate(folder, "auto").render(conversation) == expected


def test_without_a_template_the_way_out_is_named(with_template):
    with pytest.raises(UserError, match=r"has no chat template(.|\n)*template: chatml"):
        ChatTemplate(with_template(None), "auto")


def test_a_template_that_is_no_jinja_is_told(with_template):
    with pytest.raises(UserError, match=r"not valid Jinja, line 2(.|\n)*template: chatml"):
        ChatTemplate(with_template("{{ 1 }}\n{% for %}"), "auto")


def test_answer_rendered_differently_later_is_found(with_template):
    template = ChatTemplate(with_template(LAST_ANSWER_ALONE), "auto")
    learned = learned_texts(template, encode(template, chat("Q", "A", turns=2)))
    assert learned == ["A<|im_end|>", "<think></think>A<|im_end|>"]


def test_answers_that_cannot_be_located_are_refused(with_template):
    text = "{% for m in messages %}{{ m.content | upper + loop.length | string }}{% endfor %}"
    template = ChatTemplate(with_template(text), "auto")
    with pytest.raises(ValueError, match="renders earlier turns differently"):
        encode(template, chat("Q", "a", turns=2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NO_SYSTEM + "{% endif %}{% endfor %}", "rejects a conversation: no system"),
        ("{{ ''.__class__.__mro__ }}", "rejects a conversation: .*unsafe"),
        ("{{ messages.append(1) }}", "rejects a conversation: .*unsafe"),
        ("{{ messages[0].content + 1 }}", "rejects a conversation: can only concatenate str"),
    ],
)
def test_template_rejecting_a_conversation_is_an_error(with_template, text, words):
    with pytest.raises(ValueError, match=words):
        encode(ChatTemplate(with_template(text), "auto"), chat("Q", "A", system="S"))
