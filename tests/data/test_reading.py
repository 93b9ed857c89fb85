import pytest

from snaketune.data.reading import read_rows
from snaketune.errors import UserError


def values_of(path):
    return [row.value for row in read_rows(path)]


TWO_ROWS = [{"a": 1}, {"a": "二"}]
LINES = '{"a": 1}\n{"a": "二"}\n'
PRETTY = '[\n  {\n    "a": 1\n  },\n  {\n    "a": "二"\n  }\n]\n'

GOOD = {
    "lines": (LINES, TWO_ROWS, [1, 2]),
    "no last line end": (LINES[:-1], TWO_ROWS, [1, 2]),
    "blank lines": ("\n\n" + LINES.replace("\n", "\n\n"), TWO_ROWS, [3, 5]),
    "Windows line ends": (LINES.replace("\n", "\r\n"), TWO_ROWS, [1, 2]),
    "byte order mark": ("\ufeff" + LINES, TWO_ROWS, [1, 2]),
    "array on one line": ('[{"a": 1}, {"a": "二"}]', TWO_ROWS, [1, 1]),
    "array, pretty": (PRETTY, TWO_ROWS, [2, 5]),
    "array, pretty, Windows": (PRETTY.replace("\n", "\r\n"), TWO_ROWS, [2, 5]),
    "array after a byte order mark": ("\ufeff\n" + PRETTY, TWO_ROWS, [3, 6]),
    "array of arrays": ('[\n[{"a": 1}],\n[{"a": 2}]]', [[{"a": 1}], [{"a": 2}]], [2, 3]),
    "lines of arrays": ('[{"a": 1}]\n[{"a": 2}]\n', [[{"a": 1}], [{"a": 2}]], [1, 2]),
    "pretty objects": ('{\n"a": 1\n}\n{\n"a": "二"\n}', TWO_ROWS, [1, 4]),
    "one object": ('{"a": 1}', [{"a": 1}], [1]),
    "one object, pretty": ('{\n  "a": 1\n}\n', [{"a": 1}], [1]),
    "line separators in a text": (
        '{"a": "x\u2028y\u2029z\x85"}\n{"a": 2}',
        [{"a": "x\u2028y\u2029z\x85"}, {"a": 2}],
        [1, 2],
    ),
    "brackets and commas in a text": ('[{"a": "],[\\n}"},\n{"a": 2}]', None, [1, 2]),
}

BAD = {
    "empty": (b"", "", "is empty"),
    "white space alone": (b" \r\n\t\n", "", "is empty"),
    "byte order mark alone": (b"\xef\xbb\xbf\n", "", "is empty"),
    "empty array": (b"[\n]", "", "holds no rows"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:7322\nsize 20879728\n",
        "",
        "is a Git LFS pointer",
    ),
    "not UTF-8": ('{"a": 1}\n{"a": "二"}'.encode("gb18030"), ":2", "byte 0xb6 is not UTF-8"),
    "trailing comma": (b'[{"a": 1},\n {"a": 2},]', ":2", "not valid JSON"),
    "comma after a line": (b'{"a": 1},\n{"a": 2}\n', ":1", "not valid JSON"),
    "cut off": (b'{"a": 1}\n{"a": 2}\n{"a": "x', ":3", "Unterminated string"),
    "cut off array": (b'[{"a": 1},\n{"a": 2}', ":2", "not valid JSON"),
    "single quotes": (b"{'a': 1}", ":1", "not valid JSON"),
    "line end in a text": (b'{"a": 1}\n{"a": "x\ny"}', ":2", "Invalid control character"),
    "plain text": (b'{"a": 1}\nhello\n', ":2", "not valid JSON"),
}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows"])
@pytest.mark.parametrize(("text", "values", "lines"), GOOD.values(), ids=GOOD)
def test_rows_are_told_by_content_and_know_their_line(tmp_path, name, text, values, lines):
    path = tmp_path / name
    path.write_bytes(text.encode())
    rows = list(read_rows(path))
    assert [row.place for row in rows] == [f"{path}:{line}" for line in lines]
    if values is not None:
        assert [row.value for row in rows] == values


@pytest.mark.parametrize(("content", "line", "words"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_read_is_told_with_its_line_and_a_fix(tmp_path, content, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        values_of(path)
    assert str(error.value).startswith(f"{path}{line}")
    assert words in str(error.value)
    assert "\n  Fix: " in str(error.value)


def test_a_missing_file_is_told_with_what_its_path_is_relative_to(tmp_path):
    with pytest.raises(UserError, match=r"none.jsonl: No such file(.|\n)*relative to experiments/"):
        values_of(tmp_path / "none.jsonl")
