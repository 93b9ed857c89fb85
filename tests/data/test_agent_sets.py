"""Made-up files in the shapes of Agent-FLAN and MSAgent-Bench: what is read and learned of them."""

import json
from pathlib import Path

import pytest

from snaketune.data.data_spec import SourceSpec
from snaketune.data.encoding import EncodingOptions, encode_rows
from snaketune.data.template import IGNORE, ChatTemplate
from snaketune.experiment.catalog import Catalog
from snaketune.rows.reading import read_rows

AGENT_FLAN = [
    {
        "conversation": [
            {"role": "system", "content": "Tools: [weather]", "loss": False},
            {"role": "user", "content": "Is it wet?", "loss": False},
            {"role": "assistant", "content": "Thought: an example\nAction: sun", "loss": False},
            {"role": "user", "content": "Response: none", "loss": False},
            {"role": "assistant", "content": "Thought: hm\nAction: weather", "loss": True},
            {"role": "user", "content": "Response: rain", "loss": False},
            {"role": "assistant", "content": "Final Answer: It rains.", "loss": True},
        ],
        "id": "react_1",
    },
    {"conversation": [{"role": "user", "content": "Hi", "loss": None},
                      {"role": "assistant", "content": "Hello."}], "id": "2"},
]  # fmt: skip

CALL = '<|startofthink|>```JSON\n{"api_name": "get", "parameters": {"q": "rain"}}```<|endofthink|>'
MSAGENT = [
    {"from": "system", "value": "You can use a plugin."},
    {"from": "user", "value": 'It\'s wet? "Yes" or no'},
    {
        "from": "assistant",
        "value": f"I look.\n{CALL}\n\n<|startofexec|>```JSON\nwet\n```<|endofexec|>\nIt rains.",
    },
]
LEARNED = ['Thought: I look.\nAction: get\nAction Input: {"q": "rain"}', "Final Answer: It rains."]


@pytest.fixture
def learned(bases, tmp_path):
    """Return a function that gives the texts that a file's rows teach, a list for each row."""
    template = ChatTemplate(bases["chatml"], "auto")

    def learned(name, kind, *lines):
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
        rows = list(read_rows(tmp_path / name))
        chunk = encode_rows(
            template, EncodingOptions("auto", 999), SourceSpec("rows", Path(), kind), rows
        )
        assert (chunk.dropped, chunk.cut) == ([], [])
        texts, start = [], 0
        for length in chunk.samples.sizes.lengths.tolist():
            labels = chunk.samples.labels[start : start + length].tolist()
            kept = [label for label in labels if label != IGNORE]
            texts.append(template.tokenizer.decode(kept, skip_special_tokens=False))
            start += length
        return [[part.strip() for part in text.split("<|im_end|>")[:-1]] for text in texts]

    return learned


def test_of_agent_flan_what_its_flags_say_is_learned(learned):
    assert learned("flan.jsonl", "openai", *AGENT_FLAN) == [
        ["Thought: hm\nAction: weather", "Final Answer: It rains."],
        ["Hello."],
    ]


def test_msagent_reads_lists_and_python_literals(learned):
    rows = ({"id": "1", "conversations": told} for told in (MSAGENT, str(MSAGENT)))
    assert learned("train.jsonl", "msagent", *rows) == [LEARNED, LEARNED]


@pytest.mark.parametrize(
    ("name", "source", "kind"),
    [
        ("agent-flan", "hf:internlm/Agent-FLAN", "openai"),
        ("msagent-bench", "modelscope:damo/MSAgent-Bench", "msagent"),
    ],
)
def test_both_are_in_the_catalog(repository, name, source, kind):
    entry = Catalog(repository / "experiments").datasets[name]
    assert (entry.source, entry.format) == (source, kind)
    assert entry.revision and entry.file
