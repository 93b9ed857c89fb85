import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from snaketune.core.data_paths import data_files
from snaketune.core.errors import UserError
from snaketune.rows import json_text, reading
from snaketune.rows.reading import read_rows


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
    "empty array": (b"[\n]", "", "has no rows"),
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
    "something after an array": (b'[{"a": 1}\n]\n{}', ":3", "something follows"),
    "cut off in a pretty object": (b'[\n{"a":\n1', ":3", "Expecting"),
    "nested too deeply": (b"[" * 100_000, ":1", "recursion"),
    "a line nested too deeply": (b'{"a": 1}\n' + b"[" * 100_000, ":2", "recursion"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "", "utf-16 -t utf-8 rows.jsonl > fixed.jsonl"),
    "Zstandard": (b"\x28\xb5\x2f\xfd\x04\x58", "", "zstd -d rows.jsonl"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0", "", "is a 7z or RAR archive"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "", "save it as .xlsx"),
    "image": (b"\xff\xd8\xff\xe0\0\x10JFIF", "", "is an image"),
    "binary": (b"\x93NUMPY\1\0", "", "is a binary file"),
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
def test_unreadable_file_names_line_and_fix(tmp_path, content, line, words):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        values_of(path)
    assert str(error.value).startswith(f"{path}{line}")
    assert words in str(error.value)
    assert "\n  Fix: " in str(error.value)


def test_missing_file_names_its_base_folder(tmp_path):
    with pytest.raises(UserError, match=r"none.jsonl: No such file(.|\n)*relative to experiments/"):
        values_of(tmp_path / "none.jsonl")


def test_an_array_is_read_without_holding_it_all(tmp_path):
    path, rows = tmp_path / "rows.json", 2000
    texts = (json.dumps({"a": "😀" + "x" * 4000}, ensure_ascii=False) for _ in range(rows))
    path.write_text(f"[{', '.join(texts)}]", encoding="utf-8")
    tracemalloc.start()
    try:
        found = sum(1 for _ in read_rows(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == rows
    assert peak < path.stat().st_size


def test_lines_longer_than_what_is_looked_at_are_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "HEAD_BYTES", 4)
    (tmp_path / "rows.jsonl").write_text(LINES, "utf-8")
    assert values_of(tmp_path / "rows.jsonl") == TWO_ROWS


@pytest.mark.parametrize("block", [1, 2, 7])
def test_where_a_block_ends_changes_nothing(monkeypatch, tmp_path, block):
    monkeypatch.setattr(json_text, "BLOCK", block)
    path = tmp_path / "rows.json"
    path.write_text('\ufeff[\n{"a": "\\ud83d\\ude00二"},\r\n  12.5e-3,\n[true, null]\n]', "utf-8")
    rows = [(row.value, row.place) for row in read_rows(path)]
    assert rows == [
        ({"a": "😀二"}, f"{path}:2"),
        (12.5e-3, f"{path}:3"),
        ([True, None], f"{path}:4"),
    ]
    path.write_text('[\n{"a": 1},\n{"a": ?}]')
    with pytest.raises(UserError, match=r"rows.json:3: not valid JSON: Expecting value"):
        values_of(path)


ROWS = [{"a": "1", "b": "二"}, {"a": "3", "b": "x,\ny"}, {"a": "5", "b": ""}]


def as_lines(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_csv(path, delimiter=","):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["a", "b"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_excel(path):
    book = openpyxl.Workbook()
    for cells in [("a", "b"), *((row["a"], row["b"]) for row in ROWS)]:
        book.active.append(cells)
    book.save(path)


def write_arrow(path, new):
    table = pa.Table.from_pylist(ROWS)
    with new(str(path), table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(as_lines())),
    "rows.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(as_lines())),
    "rows.jsonl.xz": lambda path: path.write_bytes(lzma.compress(as_lines())),
    "rows.txt": lambda path: path.write_bytes(b"\xef\xbb\xbf\n" + as_lines()),
    "rows.csv": write_csv,
    "rows.tsv": lambda path: write_csv(path, "\t"),
    "rows.xlsx": write_excel,
    "rows.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "rows.arrow": lambda path: write_arrow(path, pa.ipc.new_file),
    "stream.arrow": lambda path: write_arrow(path, pa.ipc.new_stream),
    "named-wrongly.json": lambda path: path.write_bytes(gzip.compress(as_lines())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_tables_and_compressed_files_are_read(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    assert values_of(path) == ROWS


@pytest.mark.parametrize(
    ("name", "places"),
    [("rows.csv", [2, 3, 5]), ("rows.xlsx", [2, 3, 4]), ("rows.parquet", [1, 2, 3])],
)
def test_a_row_of_a_table_knows_its_place(tmp_path, name, places):
    path = tmp_path / name
    WRITERS[name](path)
    assert [row.place for row in read_rows(path)] == [f"{path}:{place}" for place in places]


@pytest.mark.parametrize("text", ["one\ntwo\u2028three\n", "1\n2\n", '"a"\n', "{a}\n", "[1]\n[2]"])
def test_a_text_file_is_one_row(tmp_path, text):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8-sig")
    assert values_of(tmp_path / "a.txt") == [{"text": text}]


NOT_DATA = [
    ".hidden",
    "_SUCCESS",
    "README.md",
    "LICENSE",
    "DATA_LICENSE",
    "provenance.json",
    ".git/HEAD",
    ".cache/huggingface/download/a.jsonl",
    "__MACOSX/._a.jsonl",
]


def write_named(folder, names):
    """Write files of one row, which tells the file's name."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(json.dumps({"in": name}))


def named_in(path):
    return [row["in"] for row in values_of(path)]


def test_a_folder_is_read_file_by_file_by_name(tmp_path):
    folder = tmp_path / ".hidden" / "rows"
    write_named(folder, ["b.jsonl", "a.jsonl", "sub/c.jsonl", *NOT_DATA])
    assert named_in(folder) == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("**/*.jsonl", ["1.jsonl", "_2.jsonl", "a/3.jsonl", "a/b/4.jsonl"]),
        ("a/*", ["a/3.jsonl", "a/README.json"]),
        ("_*.jsonl", ["_2.jsonl"]),
        (".cache/*.jsonl", [".cache/5.jsonl"]),
        ("*.json", ["6.json"]),
    ],
)
def test_a_pattern_names_files_at_any_depth_and_hides_none(tmp_path, pattern, named):
    names = ["1.jsonl", "_2.jsonl", "a/3.jsonl", "a/README.json", "a/b/4.jsonl", ".cache/5.jsonl"]
    write_named(tmp_path, [*names, "6.json", "provenance.json"])
    assert named_in(tmp_path / pattern) == named


def test_a_pattern_names_several_files(tmp_path):
    write_named(tmp_path, ["b-2.jsonl", "b-1.jsonl", "c-1.jsonl", "b-[3].jsonl"])
    assert named_in(tmp_path / "b-?.jsonl") == ["b-1.jsonl", "b-2.jsonl"]
    assert named_in(tmp_path / "b-[3].jsonl") == ["b-[3].jsonl"]
    with pytest.raises(UserError, match=r"x-\*.jsonl: No such file"):
        values_of(tmp_path / "x-*.jsonl")


def test_saved_data_set_is_read_in_its_order(tmp_path):
    for name in ("b", "a"):
        table = pa.Table.from_pylist([{"in": name}])
        with pa.ipc.new_stream(str(tmp_path / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": "b.arrow"}, {"filename": "../../a.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    (tmp_path / "dataset_info.json").write_text("{}")
    assert named_in(tmp_path) == ["b", "a"]


@pytest.mark.parametrize(
    "state",
    ['{"x": 1}', "[1]", '{"_data_files": 1}', '{"_data_files": ["a"]}', '{"_data_files": [{}]}'],
)
def test_foreign_state_json_is_an_ordinary_file(tmp_path, state):
    (tmp_path / "state.json").write_text(state)
    (tmp_path / "a.jsonl").write_text("{}")
    assert data_files(tmp_path) == [tmp_path / "a.jsonl", tmp_path / "state.json"]


@pytest.mark.parametrize("state", [b'{"_data_files": [', b"\xff", b"[" * 100_000])
def test_a_damaged_state_json_does_not_stop_the_experiments(tmp_path, state):
    (tmp_path / "state.json").write_bytes(state)
    assert data_files(tmp_path) == [tmp_path / "state.json"]


def test_a_saved_dataset_dict_asks_for_a_split(tmp_path):
    write_named(tmp_path, ["dataset_dict.json", "train/state.json", "test/state.json"])
    with pytest.raises(UserError, match=r"choose a split, e.g. \S+/test\n  Fix: .*: test, train"):
        values_of(tmp_path)


def write_archive(path, named):
    """Write files in their order; a link is added to a tar."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in named.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in named.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_read_without_leaving_a_trace_outside(tmp_path, kind):
    path = tmp_path / "folder" / f"rows.{kind}"
    path.parent.mkdir()
    write_archive(path, {"../../escaped.jsonl": as_lines()})
    assert values_of(path) == ROWS
    assert [file.name for file in tmp_path.rglob("*")] == ["folder", path.name]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_what_is_no_data_in_a_folder_is_none_in_an_archive(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    write_archive(path, {"./a.jsonl": as_lines()} | dict.fromkeys(NOT_DATA, b"not JSON"))
    assert values_of(path) == ROWS


def test_compressed_tar_is_read_without_seeking_back(tmp_path, monkeypatch):
    path = tmp_path / "rows.tar.gz"
    files = {f"{name}.jsonl": as_lines([{"a": name * 99_999}] * 3) for name in "ca"}
    write_archive(path, files | {"b.json": json.dumps([{"a": "b" * 99_999}] * 9).encode()})
    monkeypatch.delattr(gzip._GzipReader, "_rewind")
    assert "".join(row["a"][0] for row in values_of(path)) == "cccaaabbbbbbbbb"


def encrypted(path):
    """Set the bits of a zip that tell that its file is encrypted."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)


def test_an_encrypted_zip_is_told_with_the_file_in_it(tmp_path):
    path = tmp_path / "rows.zip"
    write_archive(path, {"a.jsonl": as_lines()})
    encrypted(path)
    with pytest.raises(UserError, match=r"rows.zip/a.jsonl: .* encrypted(.|\n)*Fix: unpack"):
        values_of(path)


def test_a_zip_that_only_looks_like_a_workbook_is_told(tmp_path):
    path = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(
        UserError, match=r"cannot read the workbook \S+rows.xlsx(.|\n)*Fix: open it"
    ):
        values_of(path)


def test_a_workbook_is_read_beyond_the_dimension_it_tells(tmp_path):
    write_excel(tmp_path / "right.xlsx")
    with (
        zipfile.ZipFile(tmp_path / "right.xlsx") as right,
        zipfile.ZipFile(tmp_path / "rows.xlsx", "w") as wrong,
    ):
        for name in right.namelist():
            wrong.writestr(name, right.read(name).replace(b'ref="A1:B4"', b'ref="A1:A2"'))
    assert values_of(tmp_path / "rows.xlsx") == ROWS


def test_a_workbooks_further_sheets_are_named_once(tmp_path, caplog):
    book = openpyxl.Workbook()
    book.create_sheet("blank")
    for sheet in (book.active, book.create_sheet("more")):
        sheet.append(["a"])
        sheet.append([sheet.title])
    book.save(tmp_path / "rows.xlsx")
    for _ in range(2):
        assert values_of(tmp_path / "rows.xlsx") == [{"a": "Sheet"}]
    [told] = [record.message for record in caplog.records]
    assert told.endswith("rows.xlsx: only the first sheet is read, not more")


def test_cells_missing_at_the_end_of_a_workbooks_row_are_empty(tmp_path):
    book = openpyxl.Workbook()
    for cells in (["a", None, "b"], ["1", "unnamed"], [], ["2", None, "3", "beyond"]):
        book.active.append(cells)
    book.save(tmp_path / "rows.xlsx")
    assert values_of(tmp_path / "rows.xlsx") == [{"a": "1", "b": ""}, {"a": "2", "b": "3"}]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.bz2", "rows.jsonl.xz"])
def test_a_compressed_file_that_is_damaged_is_told(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    content = bytearray(path.read_bytes())
    content[24:32] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read the data file {path}"):
        values_of(path)


def test_a_table_whose_texts_are_not_utf8_is_told(tmp_path):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"a": pa.array([b"\xff"]).view(pa.string())}), path)
    with pytest.raises(UserError, match=f"cannot read the data file {path}"):
        values_of(path)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet", "rows.xlsx", "stream.arrow"])
def test_a_file_that_was_cut_off_is_told(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"cannot read the data file {path}"):
        values_of(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", ":3: expected 2 cells as in the first line, found 3"),
        ("a,b,c\n\n1,2\n", ":3: expected 3 cells as in the first line, found 2"),
        ('a,b\n1,"x\ny"\n1,"2\n3,4\n', ":4: not valid CSV: unexpected end of data"),
        ('a,b\n1,"2"x\n', ":2: not valid CSV"),
        ("a,b,a\n1,2,3\n", ":1: 2 columns are named 'a'"),
        ("", " has no rows.\n  Fix: add rows"),
        ("a,b\n", " has no rows.\n  Fix: add rows"),
    ],
)
def test_malformed_csv_names_the_line(tmp_path, content, words):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(UserError) as error:
        values_of(tmp_path / "rows.csv")
    assert str(error.value).startswith(f"{tmp_path}/rows.csv{words}")
    assert "\n  Fix: " in str(error.value)


def test_a_doubled_column_of_a_workbook_is_told(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["a", "a"])
    book.save(tmp_path / "rows.xlsx")
    with pytest.raises(UserError, match=r"rows.xlsx:1: 2 columns are named 'a'"):
        values_of(tmp_path / "rows.xlsx")


def test_a_cell_of_a_csv_may_be_a_whole_document(tmp_path):
    (tmp_path / "rows.csv").write_text(f"a,b\n1,{'x' * 200_000}\n")
    assert len(values_of(tmp_path / "rows.csv")[0]["b"]) == 200_000


def test_a_csv_that_is_not_utf8_is_told_with_the_line(tmp_path):
    good = "".join(f"{number},x\n" for number in range(2, 3002))
    (tmp_path / "rows.csv").write_bytes(f"a,b\n{good}1,二\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"rows.csv:3002: byte 0xb6 is not UTF-8(.|\n)*fixed.csv"):
        values_of(tmp_path / "rows.csv")
