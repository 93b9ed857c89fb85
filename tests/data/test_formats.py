import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.conftest import chat
from snaketune.data.conversation import RowError, SkippedRow, trim
from snaketune.data.formats import FORMATS, recognise
from snaketune.data.formats.flat_formats import arxiv_filter, mapped
from snaketune.data.formats.row_fields import group_of
from snaketune.data.names import FormatName
from snaketune.experiment.schema import DataSource


def answer_with_call(arguments, name="f", content=""):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def reply(text, rank, *replies, role="assistant"):
    return {"role": role, "text": text, "rank": rank, "replies": list(replies)}


TREE = {
    "message_tree_id": "x",
    "prompt": reply(
        "Q",
        None,
        reply("worse", 1),
        reply(
            "best",
            0,
            reply("more", 0, reply("end", 0), role="prompter"),
            reply("other", 1, role="prompter"),
        ),
        reply("gone", 2) | {"deleted": True},
        role="prompter",
    ),
}

GOOD = [
    ("assistant", {"question": "Q", "answers": ["A", "B"]}, [chat("Q", "A"), chat("Q", "B")]),
    ("oasst1", {"text": "### Human: Q### Assistant: A"}, [chat("Q", "A")]),
    ("oasst1", {"text": "### Human: Q\n### Assistant:\nA\n"}, [chat("Q", "A")]),
    (
        "oasst1",
        {"text": "### Human: 1### Assistant: 2### Human: 3### Assistant: 4### Human: 5"},
        [chat("1", "2", "3", "4", "5")],
    ),
    (
        "oasst1",
        {"text": "### Human: Q### Assistant: ### Title\n#### Human: a part\n### Humans\n&###;"},
        [chat("Q", "### Title\n#### Human: a part\n### Humans\n&###;")],
    ),
    ("oasst1", {"text": "### Human: In C#### Assistant: A"}, [chat("In C#", "A")]),
    ("alpaca", {"instruction": "I", "input": "", "output": "O"}, [chat("I", "O")]),
    ("alpaca", {"instruction": "I", "output": "O", "id": 3}, [chat("I", "O")]),
    ("alpaca", {"instruction": "I", "input": None, "output": "O"}, [chat("I", "O")]),
    ("alpaca", {"instruction": "I", "input": "M", "output": "O"}, [chat("I\nM", "O")]),
    (
        "alpaca",
        {"system": "S", "history": [["1", "2"], ["3", "4"]], "instruction": "I", "output": "O"},
        [chat("1", "2", "3", "4", "I", "O", system="S")],
    ),
    (
        "alpaca",
        {"system": None, "history": None, "instruction": "I", "output": "O"},
        [chat("I", "O")],
    ),
    ("openai", {"messages": chat("Q", "A", system="S")}, [chat("Q", "A", system="S")]),
    ("openai", chat("Q", "A"), [chat("Q", "A")]),
    ("openai", {"messages": [{"role": "user", "content": "Q", "name": "x"}]}, [chat("Q")]),
    ("xtuner", {"conversation": [{"input": "Q", "output": "A"}]}, [chat("Q", "A")]),
    (
        "xtuner",
        {
            "conversation": [
                {"system": "S", "input": "1", "output": "2"},
                {"input": "3", "output": "4"},
            ]
        },
        [chat("1", "2", "3", "4", system="S")],
    ),
    ("xtuner", {"conversation": [{"system": "", "input": "Q", "output": "A"}]}, [chat("Q", "A")]),
    ("alpaca", {"instruction_zh": "问", "input_zh": "", "output_zh": "答"}, [chat("问", "答")]),
    ("arxiv", {"abstract": " On x.\n", "title": "X"}, [chat("On x.", "X")]),
    (
        "colors",
        {"description": "Sky: A calm blue.", "color": "#6cf"},
        [chat("A calm blue.", "#6cf")],
    ),
    ("colors", {"description": "A calm blue.", "color": "#6cf"}, [chat("A calm blue.", "#6cf")]),
    ("dolly", {"instruction": "I", "context": "C", "response": "R"}, [chat("I\nC", "R")]),
    (
        "openorca",
        {"system_prompt": "S", "question": "Q", "response": "A"},
        [chat("Q", "A", system="S")],
    ),
    ("openorca", {"system_prompt": "", "question": "Q", "response": "A"}, [chat("Q", "A")]),
    ("pair", {"question": "Q", "answer": "A"}, [chat("Q", "A")]),
    ("pair", {"question": "Q", "response": "A"}, [chat("Q", "A")]),
    ("pair", {"prompt": "Q", "completion": "A"}, [chat("Q", "A")]),
    ("pair", {"prompt": "Q", "response": "A"}, [chat("Q", "A")]),
    ("pair", {"input": "Q", "output": "A"}, [chat("Q", "A")]),
    (
        "sql",
        {"context": "CREATE", "question": "Q", "answer": "SELECT"},
        [chat("CREATE\nQ", "SELECT")],
    ),
    ("text", {"text": "All."}, [[{"role": "text", "content": "All."}]]),
    ("text", "All.", [[{"role": "text", "content": "All."}]]),
    (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
            "system": "S",
        },
        [chat("Q", "A", system="S")],
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "A"},
            ],
            "tools": "[]",
        },
        [
            [
                *chat("Q"),
                answer_with_call({"x": 1}),
                {"role": "tool", "content": "2"},
                *chat("Q", "A")[1:],
            ]
        ],
    ),
    (
        "openai",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, "!"]}]},
        [chat("Q!")],
    ),
    (
        "openai",
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}],
                }
            ]
        },
        [[answer_with_call({"x": 1})]],
    ),
    (
        "openai",
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": "",
                    "function_call": {"name": "f", "parameters": {"x": 1}},
                }
            ]
        },
        [[answer_with_call({"x": 1})]],
    ),
    *(
        (
            "openai",
            {"conversation": [{"role": "assistant", "content": "A"} | given]},
            [[{"role": "assistant", "content": "A", "weight": weight}]],
        )
        for given, weight in [
            ({"loss": True}, 1.0),
            ({"loss": False}, 0.0),
            ({"loss": "True"}, 1.0),
            ({"loss": "false"}, 0.0),
            ({"loss_weight": 0.25}, 0.25),
            ({"loss": 0}, 0.0),
            ({"weight": 0}, 0.0),
            ({"weight": 1, "loss": False}, 1.0),
            ({"weight": None, "loss": False}, 0.0),
        ]
    ),
    (
        "openai",
        {
            "messages": [
                *chat("Q"),
                {"role": "assistant", "content": "I plot it.", "code_interpreter_call": "plot()"},
                {"role": "code_interpreter", "content": "done"},
            ]
        },
        [
            [
                *chat("Q"),
                answer_with_call({"code": "plot()"}, "code_interpreter", "I plot it."),
                {"role": "tool", "content": "done"},
            ]
        ],
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Q", "weight": 0.0},
                {"from": "gpt", "value": "A", "loss": False},
                {"from": "function_call", "value": '{"name": "f"}', "weight": 0.5},
            ]
        },
        [
            [
                {"role": "user", "content": "Q", "weight": 0.0},
                {"role": "assistant", "content": "A", "weight": 0.0},
                answer_with_call({}) | {"weight": 0.5},
            ]
        ],
    ),
    ("openai", {"messages": chat("Q", "A"), "images": [], "audios": None}, [chat("Q", "A")]),
    (
        "xtuner",
        {"conversation": [{"input": "Q", "output": "A", "output_with_loss": False}]},
        [[*chat("Q"), {"role": "assistant", "content": "A", "weight": 0.0}]],
    ),
    ("oasst1_tree", TREE, [chat("Q", "best", "more", "end")]),
    (
        "oasst1_tree_all",
        TREE,
        [chat("Q", "best", "more", "end"), chat("Q", "best", "other"), chat("Q", "worse")],
    ),
    (
        "moss",
        {
            "meta_instruction": "S\n",
            "num_turns": 1,
            "chat": {
                "turn_1": {
                    "Human": "<|Human|>: Q<eoh>\n",
                    "Inner Thoughts": "<|Inner Thoughts|>: T<eot>\n",
                    "Commands": '<|Commands|>: Calculate("1+1")<eoc>\n',
                    "Tool Responses": "<|Results|>:\n2\n<eor>\n",
                    "MOSS": "<|MOSS|>: A<eom>\n",
                },
                "turn_2": {
                    "Human": "<|Human|>: R<eoh>",
                    "Commands": "<|Commands|>: None<eoc>",
                    "MOSS": "B",
                },
            },
        },
        [
            [
                *chat("Q", 'Thought: T\nCommand: Calculate("1+1")', system="S"),
                {"role": "tool", "content": "2"},
                *chat("x", "A", "R", "B")[1:],
            ]
        ],
    ),
    (
        "msagent",
        {
            "conversations": str(
                [
                    {"from": "system", "value": "S"},
                    {"from": "user", "value": "Q"},
                    {
                        "from": "assistant",
                        "value": 'I look. <|startofthink|>```JSON\n{"api_name": "find", "parameters": '
                        '{"q": "x"}}```<|endofthink|>\n\n<|startofexec|>```JSON\n[1]\n```'
                        "<|endofexec|>\nIt is 1.",
                    },
                ]
            )
        },
        [
            [
                *chat("Q", 'Thought: I look.\nAction: find\nAction Input: {"q": "x"}', system="S"),
                {"role": "tool", "content": "Response: [1]"},
                {"role": "assistant", "content": "Final Answer: It is 1."},
            ]
        ],
    ),
]

BAD = [
    ("assistant", {"question": "Q"}, "'answers' is missing; the row has: question"),
    ("assistant", {"question": "Q", "answers": "A"}, "'answers': expected a list, found str"),
    ("assistant", {"question": "Q", "answers": []}, "expected a list of strings, found []"),
    ("assistant", {"question": "Q", "answers": ["A", 1]}, "found ['A', 1]"),
    ("assistant", {"question": 1, "answers": ["A"]}, "'question': expected a string, found int"),
    ("oasst1", {"text": "Human: Q"}, "expected it to start with '### Human:'"),
    ("oasst1", {"text": "### Assistant: A"}, "expected it to start with '### Human:'"),
    ("oasst1", {"text": "x### Human: Q### Assistant: A"}, "expected it to start with"),
    ("oasst1", {"text": None}, "'text': expected a string, found NoneType"),
    ("alpaca", {"instruction": "I", "input": ["M"], "output": "O"}, "'input': expected a string"),
    ("alpaca", {"prompt": "I"}, "'instruction' is missing; the row has: prompt"),
    ("alpaca", {}, "'instruction' is missing; the row has: no keys"),
    ("alpaca", {"instruction": "I", "output": "O", "history": "x"}, "'history': expected a list"),
    (
        "alpaca",
        {"instruction": "I", "output": "O", "history": [["Q"]]},
        "'history': expected [question, answer], found ['Q']",
    ),
    ("alpaca", {"instruction": "I", "output": "O", "history": ["QA"]}, "found 'QA'"),
    ("alpaca", ["I", "O"], "expected an object with 'instruction', found list"),
    ("openai", {"messages": [{"role": "robot", "content": "x"}]}, "found 'robot'"),
    ("openai", {"messages": [{"role": "user", "content": None}]}, "'content': expected a string"),
    ("openai", {"messages": {"role": "user"}}, "'messages': expected a list, found dict"),
    ("openai", ["hello"], "expected an object with 'role', found str"),
    ("xtuner", {"conversation": [{"input": "Q"}]}, "'output' is missing"),
    ("pair", {"q": "Q"}, "question, answer; question, response; prompt, completion"),
    *(
        (
            "openai",
            {"messages": [{"role": "assistant", "content": "A", key: value}]},
            f"'{key}': expected true, false or a finite number from 0, found {value!r}",
        )
        for key, value in [
            ("loss", "no"),
            ("loss_weight", float("inf")),
            ("loss_weight", float("nan")),
            ("loss_weight", 10**400),
            ("weight", -1),
            ("weight", [1]),
        ]
    ),
    ("openai", {"messages": chat("Q"), "tools": {"name": "f"}}, "'tools': expected a list"),
    ("openai", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "is not text"),
    ("openai", {"messages": chat("Q"), "tools": "[{"}, "'tools': not valid JSON"),
    ("sharegpt", {"conversations": [{"from": "function_call", "value": "f(1)"}]}, "not valid JSON"),
    ("sharegpt", {"conversations": [{"from": "elf", "value": "x"}]}, "found 'elf'"),
    (
        "msagent",
        {"conversations": "__import__('os')"},
        "expected a list of messages, found other text",
    ),
    ("msagent", {"conversations": "[{[]: 1}]"}, "expected a list of messages, found other text"),
    ("msagent", {"conversations": "[" * 10**5}, "expected a list of messages, found other text"),
    ("sharegpt", {"conversations": [{"from": "function_call", "value": "[" * 10**5}]}, "not valid"),
    ("preference", {"prompt": "Q", "chosen": "A", "rejected": "B"}, "is not supported"),
    (
        "llava",
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]},
        "'image': training on rows with images, video or audio is not supported",
    ),
    (
        "openai",
        {"messages": chat("Q", "A"), "images": ["a.jpg"]},
        "'images': training on rows with",
    ),
    (
        "openai",
        {"messages": chat("Q", "A"), "audios": ["a.wav"]},
        "'audios': training on rows with",
    ),
    ("sharegpt", {"conversations": [], "image": "a.jpg"}, "'image': training on rows with"),
    ("sharegpt", {"conversations": [], "videos": ["a.mp4"]}, "'videos': training on rows with"),
    (
        "alpaca",
        {"instruction": "I", "output": "O", "images": ["a.jpg"]},
        "'images': training on rows with",
    ),
    ("llava", {"image": "a.jpg", "conversations": []}, "found it 0 times"),
    ("moss", {"meta_instruction": "S", "chat": {"turn_1": {"MOSS": "A"}}}, "'Human' is missing"),
    ("oasst1_tree", {"prompt": {"role": "robot", "text": "x"}}, "found 'robot'"),
    ("oasst1_tree", {"prompt": reply("Q", 0, "a")}, "expected an object with 'text', found str"),
    ("oasst1_tree_all", {"prompt": reply("Q", 0) | {"replies": 5}}, "'replies': expected a list"),
    ("xtuner", {"conversation": ["Q"]}, "expected an object with 'system', found str"),
    ("xtuner", {"conversation": [{"system": 3, "input": "Q", "output": "A"}]}, "'system'"),
]


@pytest.mark.parametrize(("name", "row", "conversations"), GOOD)
def test_a_row_becomes_these_conversations(name, row, conversations):
    assert [found.messages for found in FORMATS[name].parse(row)] == conversations


def test_functions_and_the_code_interpreter_are_the_tools():
    function = {"name": "f", "parameters": {}}
    row = {"messages": chat("Q", "A"), "functions": [function], "code_interpreter": "A notebook."}
    [conversation] = FORMATS["openai"].parse(row)
    notebook = {"name": "code_interpreter", "description": "A notebook."}
    assert conversation.tools == [{"type": "function", "function": f} for f in (function, notebook)]


@pytest.mark.parametrize(("name", "row", "words"), BAD)
def test_wrong_shape_is_an_error(name, row, words):
    with pytest.raises(RowError) as error:
        FORMATS[name].parse(row)
    assert words in str(error.value)


def places(value, path=()):
    """Yield the path to a value and to all that is in it."""
    yield path
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield from places(value[key], (*path, key))


def spoiled(value, path, other):
    """Return a value with another one at a path."""
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = spoiled(value[path[0]], path[1:], other)
    return copy


WORDS = st.sampled_from(["", "x", "function_call", "[{[]: 1}]", '[{"name": 1}]', "\ud83d"])
ANYTHING = st.recursive(
    st.none() | st.integers(-1, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from([row for _, row, _ in GOOD]), st.data())
def test_any_value_is_read_or_refused(row, data):
    path = data.draw(st.sampled_from([*places(row)]))
    row = spoiled(row, path, data.draw(ANYTHING))
    recognise([row])
    for data_format in FORMATS.values():
        try:
            [trim(conversation) for conversation in data_format.parse(row)]
        except (RowError, SkippedRow) as error:
            str(error).encode()


def test_the_schema_names_exactly_the_formats_there_are():
    assert set(FORMATS) | {"auto"} == set(FormatName.__args__)
    assert DataSource(path="x", format="alpaca").format == "alpaca"
    with pytest.raises(ValueError, match="Input should be 'auto', 'alpaca', 'arxiv'"):
        DataSource(path="x", format="alpacca")


RECOGNISED = {
    "alpaca": {"instruction": "I", "input": "", "output": "O"},
    "sql": {"context": "C", "question": "Q", "answer": "A"},
    "pair": {"question": "Q", "answer": "A"},
    "openorca": {"system_prompt": "", "question": "Q", "response": "A"},
    "openai": chat("Q", "A"),
    "oasst1": {"text": "### Human: Q### Assistant: A"},
    "text": {"text": "Once upon a time"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Q"}]},
    "llava": {"image": "x.jpg", "conversations": [{"from": "human", "value": "<image>"}]},
    "xtuner": {"conversation": [{"input": "Q", "output": "A"}]},
    "oasst1_tree": TREE,
    "preference": {"prompt": "Q", "chosen": "A", "rejected": "B"},
    "assistant": {"question": "Q", "answers": ["A"]},
    "arxiv": {"abstract": "A", "title": "T", "categories": "cs.AI"},
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_shape_is_recognised(name):
    assert recognise([RECOGNISED[name]]) == [name]


@pytest.mark.parametrize(
    ("rows", "fitting"),
    [
        ([RECOGNISED["alpaca"] | {"text": "I O"}], ["alpaca"]),
        ([{"messages": chat("Q", "A"), "images": ["a.jpg"]}], ["openai"]),
        ([RECOGNISED["sharegpt"], RECOGNISED["sharegpt"] | {"videos": ["a.mp4"]}], ["sharegpt"]),
        ([{"prompt": reply("Q", 0, "a")}], []),
        ([{"a": "Q", "b": "A"}], []),
        ([RECOGNISED["alpaca"], RECOGNISED["sharegpt"]], []),
        ([{"instruction": "I", "output": "O", "response": "R"}], ["alpaca", "dolly"]),
        ([3], []),
    ],
)
def test_a_shape_in_doubt_is_not(rows, fitting):
    assert recognise(rows) == fitting


def test_any_flat_table_can_be_mapped():
    parse = mapped(user="Frage", assistant="Antwort", system="Rolle")
    row = {"Frage": "Q", "Antwort": "A", "Rolle": "S", "Nr": 3}
    assert parse(row)[0].messages == chat("Q", "A", system="S")
    with pytest.raises(RowError, match="'Antwort' is missing; the row has: Frage"):
        parse({"Frage": "Q"})


@pytest.mark.parametrize(
    ("categories", "start", "kept"),
    [([], None, True), (["cs.CL"], None, True), (["cs"], None, False), ([], "2020-01-02", False)],
)
def test_arxiv_rows_are_chosen_by_category_and_date(categories, start, kept):
    row = {"categories": "math.CO cs.CL", "update_date": "2020-01-01"}
    assert arxiv_filter(categories, start)(row) is kept


def test_a_day_of_arxiv_is_a_day():
    with pytest.raises(
        RowError, match="'update_date': expected a date such as 2020-01-31, found 'May'"
    ):
        arxiv_filter([], "2020-01-01")({"update_date": "May"})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"user": None}, "'user' is missing or null; the row has: user"),
        ({"id": 1}, "'user' is missing or null; the row has: id"),
        ([1], "'user' is missing or null; found list"),
        ({"user": "\ud83d"}, "half a character"),
    ],
)
def test_row_without_group_is_an_error(row, words):
    with pytest.raises(RowError, match=words):
        group_of(row, "user")


def test_a_group_is_any_value_as_text():
    assert [group_of({"user": value}, "user") for value in (3, "", "天")] == ["3", "", "天"]


def test_the_chosen_answers_of_preferences_can_be_learned():
    with pytest.raises(RowError) as error:
        FORMATS["preference"].parse(RECOGNISED["preference"])
    assert "map: {user: prompt, assistant: chosen}" in error.value.fix
