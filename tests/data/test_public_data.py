"""Real data sets beside the repository, in ../shared/data; skipped where that is absent."""

import re
from collections import Counter
from pathlib import Path

import openpyxl
import pytest

from data.conftest import samples_of
from snaketune.core.errors import UserError
from snaketune.data.conversation import RowError, SkippedRow, fill, trim
from snaketune.data.formats import FORMATS, recognise
from snaketune.rows.reading import read_rows

SHARED = Path(__file__).parents[3] / "shared/data"
OASST1 = SHARED / "oasst1/openassistant_best_replies_eval.jsonl"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no public data sets in {SHARED}")


def load(file, kind, **values):
    """Return each row's place and first conversation."""
    rows = read_rows(SHARED / file)
    found = [(row.place, FORMATS[kind].parse(row.value)[0]) for row in rows]
    return [(place, trim(fill(each, values) if values else each).messages) for place, each in found]


@pytest.fixture(scope="module")
def oasst1():
    return [conversation for _, conversation in load(OASST1.relative_to(SHARED), "oasst1")]


def test_oasst1_is_read_whole(oasst1):
    assert len(oasst1) == 518
    assert all(oasst1)


def test_oasst1_loses_132_unanswered_questions(oasst1):
    written = [row.value["text"].count("### Human:") for row in read_rows(OASST1)]
    kept = [sum(m["role"] == "user" for m in chat) for chat in oasst1]
    lost = [before - after for before, after in zip(written, kept, strict=True)]
    assert (lost.count(1), lost.count(0)) == (132, 518 - 132)


def test_oasst1_keeps_hashes_that_are_no_turn(oasst1):
    assert "win male&###; male conflicts" in oasst1[230][1]["content"]
    question, answer = oasst1[356][:2]
    assert question["content"].endswith("haz un ejemplo escrito en C#")
    assert answer["content"].startswith("El patrón Builder es un patrón")


@pytest.mark.parametrize(
    ("name", "kind", "rows", "last_line"),
    [
        ("alpaca/alpaca_en_demo.json", "alpaca", 999, 4992),
        ("alpaca/alpaca_zh_demo.json", "alpaca", 1000, 4997),
        ("alpaca/text2sql.json", "alpaca", 2700, 13497),
        ("openai/openai_sft.jsonl", "openai", 128, 128),
        ("openai/chatml.jsonl", "openai", 3, 3),
        ("nasty/pretty_printed_array.jsonl", "xtuner", 208, 1865),
    ],
)
def test_every_row_is_read_and_knows_its_line(name, kind, rows, last_line):
    loaded = load(name, kind)
    assert len(loaded) == rows
    assert loaded[-1][0] == f"{SHARED / name}:{last_line}"


def test_placeholders_of_the_persona_set_are_filled():
    texts = str(load("alpaca/identity.json", "alpaca", name="Ada", author="Grace"))
    assert "Ada" in texts
    assert "{{" not in texts


def test_json_lines_named_json_are_read():
    assert len(list(read_rows(SHARED / "nasty/jsonl_inside.json"))) == 175


def test_a_git_lfs_pointer_is_told():
    with pytest.raises(UserError, match="is a Git LFS pointer"):
        load("nasty/openassistant_best_replies_train.jsonl.lfs-pointer", "oasst1")


def test_other_layout_is_described_by_its_keys():
    with pytest.raises(ValueError, match="'messages' is missing; the row has: conversations"):
        load("nasty/conversation.missingturns.json", "openai")


def parsed(file, kind):
    """Return what became of each row: `used`, or why not."""
    found = []
    for row in read_rows(SHARED / file):
        try:
            [trim(each) for each in FORMATS[kind].parse(row.value)]
            found.append("used")
        except (RowError, SkippedRow) as error:
            found.append(str(error))
    return found


def test_results_without_a_call_are_found_in_two_rows_of_glaive():
    zh = parsed("toolcall/glaive_toolcall_zh_demo.json", "sharegpt")
    assert [index for index, what in enumerate(zh) if what != "used"] == [197, 293]
    assert {zh[197], zh[293]} == {"a tool's result without a call"}
    assert set(parsed("toolcall/glaive_toolcall_en_demo.json", "sharegpt")) == {"used"}


def test_every_conversation_of_moss_is_used():
    files = [*(SHARED / "moss").rglob("*.json")]
    assert len(files) == 48
    assert {what for file in files for what in parsed(file, "moss")} == {"used"}


@pytest.mark.parametrize(
    ("file", "kind"), [("llava/unique_data.json", "llava"), ("mllm/mllm_demo.json", "openai")]
)
def test_rows_with_pictures_are_recognised_and_refused(file, kind):
    assert recognise(row.value for row in read_rows(SHARED / file)) == [kind]
    assert all("is not supported" in what for what in parsed(file, kind))


def test_every_call_of_internlm2s_agent_is_kept():
    [(_, messages)] = load("agent/agent.json", "openai")
    calls = [message.get("tool_calls") for message in messages if message["role"] == "assistant"]
    plotting, searching = (call["function"] for [call] in filter(None, calls))
    assert plotting["name"] == "code_interpreter"
    assert plotting["arguments"]["code"].startswith("```python\nimport plotly.express as px\n")
    assert searching == {"name": "get_current_weather", "arguments": {"location": "Shanghai"}}
    assert [m["role"] for m in messages].count("tool") == 2


def test_trees_give_their_best_path_and_all_paths():
    assert set(parsed("oasst1/en_100_tree.jsonl", "oasst1_tree")) == {"used"}
    assert set(parsed("oasst1/en_100_tree.jsonl", "oasst1_tree_all")) == {"used"}


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("alpaca/alpaca_zh_demo.json", "alpaca"),
        ("math/gsm8k_test.jsonl", "pair"),
        ("sharegpt/dummy_conversation.json", "sharegpt"),
        ("openai/openai_sft.jsonl", "openai"),
        ("pretrain/c4_demo.jsonl", "text"),
        ("oasst1/en_100_tree.jsonl", "oasst1_tree"),
        ("oasst1/openassistant_best_replies_eval.jsonl", "oasst1"),
        ("toolcall/glaive_toolcall_en_demo.json", "sharegpt"),
        ("nasty/pretty_printed_array.jsonl", "xtuner"),
    ],
)
def test_shapes_are_recognised(file, kind):
    rows = [row.value for _, row in zip(range(20), read_rows(SHARED / file), strict=False)]
    assert recognise(rows) == [kind]


def test_the_blank_answer_is_found():
    assert parsed("nasty/conversation.missingturns.json", "sharegpt") == ["a blank answer"]


def test_the_questions_of_medqa_are_on_one_side_each(run, tokenizer, tmp_path):
    excel = SHARED / "medqa/MedInfo2019-QA-Medications.xlsx"
    given = {"label": "medqa", "path": str(excel), "format": "auto", "vars": {}, "weight": 1.0}
    columns = {"map": {"user": "Question", "assistant": "Answer"}}
    report = run(given | columns, max_length=512, heldout=0.3)
    assert report["sources"][0]["rows_read"] == 690
    train, heldout = (
        Counter(re.split(r"user\n|<\|im_end\|>", tokenizer.decode(ids))[1] for ids in samples)
        for samples in (samples_of(tmp_path / f"out/{name}.arrow") for name in ("train", "heldout"))
    )
    sheet = openpyxl.load_workbook(excel).worksheets[0]
    [column] = [cells for cells in sheet.columns if cells[0].value == "Question"]
    assert Counter(str(cell.value) for cell in column[1:]) == train + heldout
    assert not train & heldout
    assert len(heldout) == round(0.3 * 651)
