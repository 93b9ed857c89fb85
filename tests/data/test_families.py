"""The chat templates of well-known families, written down here: ids as transformers gives them,
masks as golden spans. What is learned stands between ⟦ and ⟧."""

import numpy as np
import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from conftest import save_tokenizer
from data.conftest import bracketed
from snaketune.data.conversation import Conversation, RowError
from snaketune.data.data_report import decode
from snaketune.data.template import ChatTemplate

QWEN = """\
{%- if tools %}{{- '<tools>' + tools | tojson + '</tools>' }}{%- endif %}
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or message.role == 'system' and not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {{- '<tool_call>' + tool_call.function | tojson + '</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>' + message.content + '</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

QWEN3 = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
        {%- if loop.last %}
            {{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}\
{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}\
{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

PHI3 = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

MISTRAL = """\
{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}\
{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}\
{{- bos_token }}{%- for message in rest %}{%- if message.role == 'user' %}\
{%- if loop.first and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}\
{%- else %}{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}\
{%- else %}{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"""

INTERNLM2 = """\
{{ bos_token }}{% for message in messages %}\
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

IM = ["<|im_start|>", "<|im_end|>"]
FAMILIES = {
    "qwen": (QWEN, ["<|endoftext|>", *IM], {"eos": "<|im_end|>"}),
    "qwen3": (QWEN3, ["<|endoftext|>", *IM], {"eos": "<|im_end|>"}),
    "gemma": (
        GEMMA,
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        {"bos": "<bos>", "eos": "<eos>"},
    ),
    "phi3": (
        PHI3,
        ["<s>", "<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        {"bos": "<s>", "eos": "<|endoftext|>"},
    ),
    "mistral": (MISTRAL, ["<s>", "</s>", "[INST]", "[/INST]"], {"bos": "<s>", "eos": "</s>"}),
    "internlm2": (INTERNLM2, ["<s>", "</s>", *IM], {"bos": "<s>", "eos": "</s>"}),
}

TWO_TURNS = {
    "qwen": "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n"
    "<|im_start|>assistant\n⟦A1<|im_end|>⟧\n<|im_start|>user\nQ2<|im_end|>\n"
    "<|im_start|>assistant\n⟦A2<|im_end|>⟧\n",
    "qwen3": "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n⟦A1<|im_end|>⟧\n"
    "<|im_start|>user\nQ2<|im_end|>\n"
    "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nA2<|im_end|>⟧\n",
    "gemma": "<bos><start_of_turn>user\nQ1<end_of_turn>\n<start_of_turn>model\n⟦A1<end_of_turn>⟧\n"
    "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n⟦A2<end_of_turn>⟧\n",
    "phi3": "<|user|>\nQ1<|end|>\n<|assistant|>\n⟦A1<|end|>⟧\n<|user|>\nQ2<|end|>\n"
    "<|assistant|>\n⟦A2<|end|>⟧\n<|endoftext|>",
    "mistral": "<s>[INST] Q1[/INST]⟦ A1</s>⟧[INST] Q2[/INST]⟦ A2</s>⟧",
    "internlm2": "<s><|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n⟦A1<|im_end|>⟧\n"
    "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n⟦A2<|im_end|>⟧\n",
}

NO_SYSTEM = {"gemma"}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request, tmp_path_factory):
    text, marks, named = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("families") / request.param
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    save_tokenizer(folder, words, marks, text, **named)
    return request.param, ChatTemplate(folder, "auto"), AutoTokenizer.from_pretrained(folder)


def chat(turns, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    for turn in range(1, turns + 1):
        messages.append({"role": "user", "content": f"Q{turn}"})
        messages.append({"role": "assistant", "content": f"A{turn}"})
    return messages


def shown_to(template, encoded):
    return bracketed([part.model_dump() for part in decode(template, encoded)])


def encode(template, messages, tools=None, **options):
    text, spans = template.render_with_spans(Conversation(messages, tools), **options)
    [encoded] = template.tokenise([text], [spans])
    return encoded


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("turns", [1, 2, 6])
def test_ids_equal_those_of_transformers(family, turns, system):
    name, template, reference = family
    messages = chat(turns, system)
    if system and name in NO_SYSTEM:
        with pytest.raises(RowError, match="no system role"):
            encode(template, messages)
        return
    expected = reference.apply_chat_template(messages, return_dict=False)
    assert encode(template, messages).input_ids.tolist() == expected


def test_what_is_learned_is_golden(family):
    name, template, _ = family
    assert shown_to(template, encode(template, chat(2))) == TWO_TURNS[name]


def test_six_turns_are_learned_from_six_times(family):
    _, template, _ = family
    shown = shown_to(template, encode(template, chat(6)))
    learned = [part.split("⟧")[0] for part in shown.split("⟦")[1:]]
    assert len(learned) == 6
    assert all(f"A{turn}" in part for turn, part in enumerate(learned, 1))
    assert not any("Q" in part for part in learned)


def test_the_last_turn_alone_may_be_learned(family):
    _, template, _ = family
    shown = shown_to(template, encode(template, chat(3), loss_on="last_turn"))
    assert shown.count("⟦") == 1
    assert "A3" in shown.split("⟦")[1]


def test_all_may_be_learned_but_the_first_token(family):
    _, template, _ = family
    encoded = encode(template, chat(2), loss_on="all")
    assert encoded.labels.tolist() == encoded.input_ids.tolist()


def test_an_answer_may_be_left_out_or_count_half(family):
    _, template, _ = family
    messages = chat(3)
    messages[1]["weight"], messages[3]["weight"] = 0.0, 0.5
    encoded = encode(template, messages)
    assert shown_to(template, encoded).count("⟦") == 2
    plain = encode(template, chat(3))
    learned = plain.labels != -100
    first, second, third = (part for part in runs(learned))
    assert not encoded.weights[first].any()
    assert set(encoded.weights[second]) == {0.5}
    assert set(encoded.weights[third]) == {1.0}
    assert not encoded.weights[~learned].any()


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_loss_on_all_keeps_answer_weights(family, weight):
    _, template, _ = family
    first, second = runs(encode(template, chat(2)).labels != -100)
    messages = chat(2)
    messages[1]["weight"] = weight
    encoded = encode(template, messages, loss_on="all")
    expected = np.ones(len(encoded.input_ids))
    expected[first] = weight
    counted = encoded.labels != -100
    weights = counted if encoded.weights is None else encoded.weights
    assert weights.tolist() == expected.tolist()
    assert counted.tolist() == (expected > 0).tolist()
    assert counted[second].all()


def runs(flags):
    """Return the slices where flags are set."""
    found, start = [], None
    for index, flag in enumerate([*flags.tolist(), False]):
        if flag and start is None:
            start = index
        if not flag and start is not None:
            found.append(slice(start, index))
            start = None
    return found


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def test_a_call_is_learned_and_its_result_is_not(family):
    name, template, _ = family
    if name == "mistral":
        pytest.skip("its template takes every role but user's for an answer's")
    messages = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "two"},
        {"role": "assistant", "content": "It is 2."},
    ]
    shown = shown_to(template, encode(template, messages))
    learned = [part.split("⟧")[0] for part in shown.split("⟦")[1:]]
    assert len(learned) == 2
    assert '"name": "add"' in learned[0]
    assert "It is 2." in learned[1]
    assert "two" in shown and "two" not in "".join(learned)


def test_tools_are_shown_by_the_template_or_as_text(family):
    name, template, _ = family
    if name in NO_SYSTEM:
        with pytest.raises(RowError, match="no system role"):
            encode(template, chat(1), TOOLS)
        return
    shown = shown_to(template, encode(template, chat(1), TOOLS))
    assert ("<tools>" in shown) == (name == "qwen")
    assert '"name": "add"' in shown


def test_a_bos_stands_at_the_beginning_once(family):
    _, template, reference = family
    ids = encode(template, chat(2)).input_ids.tolist()
    if reference.bos_token_id in ids:
        assert ids.count(reference.bos_token_id) == 1
        assert ids[0] == reference.bos_token_id
