"""Read rows from files of any common kind, each with the place it stands at.

What a file is shows in its first bytes: gzip, zip, tar, Parquet, Arrow, Excel, JSON and JSON
Lines whatever their name. Only CSV (.csv, .tsv) and plain text (.txt, .md) go by their suffix.
Nothing of an archive is unpacked to disk, so no path in one can lead anywhere.
"""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as parquet

from snaketune.data.files import data_files
from snaketune.errors import UserError
from snaketune.files import LFS_POINTER

_BOM = b"\xef\xbb\xbf"
_ARROW_STREAM = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a data file and where it stands, as `file:line` (or row of a table).

    `content` is the value, or the bytes of a line that nobody has parsed yet.
    """

    content: Any
    place: str

    @property
    def value(self) -> Any:
        """The row as plain values.

        Raises:
            UserError: The line is not UTF-8 or not JSON.
        """
        if not isinstance(self.content, bytes):
            return self.content
        try:
            return json.loads(self.content.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise _not_utf8(self.place, error) from error
        except ValueError as error:
            raise _not_json(self.place, getattr(error, "msg", str(error))) from error


def read_rows(path: Path) -> Iterator[Row]:
    """Yield all rows of a file, of all in a folder, or of those a pattern matches, by name.

    Raises:
        UserError: Missing, empty, a Git LFS pointer, not UTF-8, damaged or not JSON.
    """
    empty = True
    for row in chain.from_iterable(map(_read, data_files(path))):
        empty = False
        yield row
    if empty:
        raise UserError(f"{path} holds no rows.\n  Fix: put one JSON object on each line.")


def _read(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb") as file:
            yield from _read_stream(file, str(path))
    except (OSError, EOFError, pa.ArrowInvalid, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read the data file {path}: {getattr(error, 'strerror', None) or error}.\n"
            "  Fix: paths under `data:` are relative to experiments/; correct the path, or put "
            "the whole file there."
        ) from error


def _read_stream(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read one file, whatever it is; `name` is what places begin with."""
    head = file.read(512)
    file.seek(0)
    if head.startswith(LFS_POINTER):
        raise UserError(
            f"{name} is a Git LFS pointer, not the data itself.\n"
            "  Fix: run `git lfs pull` in the repository it came from, then copy it again."
        )
    reader = next((read for mark, read in _BY_MARK if mark(head)), None)
    reader = reader or _BY_SUFFIX.get(Path(name).suffix.lower(), _read_json)
    yield from reader(file, name)


def _read_gzip(file: IO[bytes], name: str) -> Iterator[Row]:
    with gzip.open(file) as inside:
        yield from _read_stream(inside, name.removesuffix(".gz"))  # type: ignore[arg-type]


def _read_zip(file: IO[bytes], name: str) -> Iterator[Row]:
    with zipfile.ZipFile(file) as archive:
        if "xl/workbook.xml" in archive.namelist():
            yield from _read_excel(file, name)
            return
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            if not member.is_dir():
                inside = io.BytesIO(archive.read(member))
                yield from _read_stream(inside, f"{name}/{member.filename}")


def _read_tar(file: IO[bytes], name: str) -> Iterator[Row]:
    with tarfile.open(fileobj=file) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            inside = archive.extractfile(member) if member.isfile() else None
            if inside:
                yield from _read_stream(inside, f"{name}/{member.name}")


def _read_parquet(file: IO[bytes], name: str) -> Iterator[Row]:
    return _table_rows(parquet.ParquetFile(file).iter_batches(), name)


def _read_arrow(file: IO[bytes], name: str) -> Iterator[Row]:
    reader = pa.ipc.open_file(file)
    return _table_rows(map(reader.get_batch, range(reader.num_record_batches)), name)


def _read_arrow_stream(file: IO[bytes], name: str) -> Iterator[Row]:
    return _table_rows(pa.ipc.open_stream(file), name)


def _table_rows(batches: Iterable[pa.RecordBatch], name: str) -> Iterator[Row]:
    values = chain.from_iterable(batch.to_pylist() for batch in batches)
    return (Row(value, f"{name}:{number}") for number, value in enumerate(values, 1))


def _read_excel(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read the first sheet; its first row names the columns, and places are Excel's own rows."""
    import openpyxl

    sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
    rows = sheet.iter_rows(values_only=True)
    columns = [str(cell) for cell in next(rows, ())]
    for number, cells in enumerate(rows, 2):
        if any(cell is not None for cell in cells):
            texts = ("" if cell is None else str(cell) for cell in cells)
            yield Row(dict(zip(columns, texts, strict=False)), f"{name}:{number}")


def _read_csv(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read a table whose first line names the columns; .tsv is separated by tabs."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, delimiter="\t" if name.lower().endswith(".tsv") else ",")
    line = 1
    try:
        for row in reader:
            if None in row or None in row.values():
                expected, found = len(reader.fieldnames or ()), len([*filter(None, row)])
                raise UserError(
                    f"{name}:{line + 1}: expected {expected} cells as in the first line, found "
                    f"{'more' if None in row else found}.\n  Fix: put cells with commas in quotes."
                )
            yield Row(row, f"{name}:{line + 1}")
            line = reader.line_num
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{name}:{line + 1}", error) from error


def _read_text(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read a file as one text."""
    text = _decoded(file.read(), name)
    if text.strip():
        yield Row({"text": text}, f"{name}:1")


def _read_json(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read JSON Lines line by line, anything else that is JSON as a whole."""
    lines = ((number, line) for number, line in enumerate(file, 1) if line.strip(b" \t\r\n" + _BOM))
    first = next(lines, None)
    if first is None:
        raise UserError(f"{name} is empty.\n  Fix: put one JSON object on each line.")
    second = next(lines, None)
    if _is_row(first[1].removeprefix(_BOM), second is not None):
        for number, line in chain([first], [second] if second else [], lines):
            yield Row(line.removeprefix(_BOM) if number == first[0] else line, f"{name}:{number}")
    else:
        file.seek(0)
        yield from _read_whole_json(_decoded(file.read(), name), name)


def _is_row(line: bytes, more_follow: bool) -> bool:
    """Tell whether a file's first line is its first row: an array alone is an array of rows."""
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return more_follow or not isinstance(value, list)


def _read_whole_json(text: str, name: str) -> Iterator[Row]:
    """Read values one after the other, or the items of an array, one at a time."""
    start, lines = _skip(text, 0), _LineCounter(text)
    values = _items if text[start] == "[" else _values
    for value, position in values(text, start, name):
        yield Row(value, f"{name}:{lines.at(position)}")


def _values(text: str, position: int, name: str) -> Iterator[tuple[Any, int]]:
    while position < len(text):
        value, end = _value(text, position, name)
        yield value, position
        position = _skip(text, end)


def _items(text: str, position: int, name: str) -> Iterator[tuple[Any, int]]:
    position = _skip(text, position + 1)
    comma = False
    while comma or text[position : position + 1] != "]":
        value, end = _value(text, position, name)
        yield value, position
        position = _skip(text, end)
        comma = text[position : position + 1] == ","
        if comma:
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise _not_json(_at(text, position, name), "expected ',' or ']' after a row")
    after = _skip(text, position + 1)
    if after < len(text):
        raise _not_json(_at(text, after, name), "something follows the array of rows")


def _value(text: str, position: int, name: str) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except ValueError as error:
        place = _at(text, getattr(error, "pos", position), name)
        raise _not_json(place, getattr(error, "msg", str(error))) from error


def _at(text: str, position: int, name: str) -> str:
    return f"{name}:{text.count(chr(10), 0, position) + 1}"


_DECODER = json.JSONDecoder()


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{name}:{line}", error) from error


def _not_utf8(place: str, error: UnicodeDecodeError) -> UserError:
    name = place.rpartition(":")[0]
    return UserError(
        f"{place}: byte {error.object[error.start]:#04x} is not UTF-8.\n"
        f"  Fix: convert it, e.g. iconv -f gb18030 -t utf-8 {Path(name).name} > fixed.jsonl"
    )


def _not_json(place: str, message: str) -> UserError:
    return UserError(
        f"{place}: not valid JSON: {message.removesuffix(' at')}.\n"
        "  Fix: each row is one JSON object, on a line of its own or in one array."
    )


class _LineCounter:
    """Line numbers of ascending positions, in one pass over the text."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.line = text, 0, 1

    def at(self, position: int) -> int:
        self.line += self.text.count("\n", self.position, position)
        self.position = position
        return self.line


_Reader = Callable[[IO[bytes], str], Iterator[Row]]

_BY_MARK: list[tuple[Callable[[bytes], bool], _Reader]] = [
    (lambda head: head.startswith(b"\x1f\x8b"), _read_gzip),
    (lambda head: head.startswith(b"PK\x03\x04"), _read_zip),
    (lambda head: head[257:262] == b"ustar", _read_tar),
    (lambda head: head.startswith(b"PAR1"), _read_parquet),
    (lambda head: head.startswith(b"ARROW1"), _read_arrow),
    (lambda head: head.startswith(_ARROW_STREAM), _read_arrow_stream),
]
_BY_SUFFIX: dict[str, _Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_text,
    ".md": _read_text,
}
