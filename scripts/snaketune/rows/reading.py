"""Read rows from files of any common kind, each with its place.

The kind of a file is recognised by its first bytes, whatever its name: compressed, archived,
Parquet, Arrow, Excel, JSON and JSON Lines. CSV (.csv, .tsv) and plain text (.txt, .md) go by their
suffix. Archives are not unpacked to disk, so a path in one cannot lead outside a folder.
"""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import re
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice, zip_longest
from pathlib import Path, PurePosixPath
from typing import IO, Any, TextIO

import pyarrow as pa
import pyarrow.parquet as parquet

from snaketune.core.data_paths import data_files, is_data
from snaketune.core.errors import UserError
from snaketune.core.files import LFS_POINTER
from snaketune.rows.json_text import JsonText, not_json

log = logging.getLogger(__name__)

csv.field_size_limit(sys.maxsize)  # a cell may be a whole document

HEAD_BYTES = 2**18
"""Bytes of a line that are read to distinguish JSON Lines from other JSON."""

_BOM = b"\xef\xbb\xbf"
_DAMAGED = (
    OSError,
    EOFError,
    pa.ArrowException,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    UnicodeDecodeError,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a data file, and its place as `file:line` (or row of a table).

    `content` is the value, or the bytes of a line: workers parse them, in parallel.
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
        except (ValueError, RecursionError) as error:
            raise not_json(self.place, getattr(error, "msg", str(error))) from error


_Reader = Callable[[IO[bytes], str], Iterator[Row]]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, of all files in a folder, or of those matching a pattern, by name.

    Raises:
        UserError: A file is missing, empty, damaged, of an unsupported kind, not UTF-8 or not JSON.
    """
    _refuse_several_splits(path)
    empty = True
    for row in chain.from_iterable(map(_read, data_files(path))):
        empty = False
        yield row
    if empty:
        raise UserError(
            f"{path} has no rows.\n"
            "  Fix: add rows; in folders and archives, hidden files, README and LICENSE are "
            "skipped."
        )


def _refuse_several_splits(folder: Path) -> None:
    """Refuse a DatasetDict saved by `datasets`, which has one folder for each split."""
    splits = sorted(state.parent.name for state in folder.glob("*/state.json"))
    if splits and (folder / "dataset_dict.json").exists():
        raise UserError(
            f"{folder} is a saved DatasetDict: choose a split, e.g. {folder / splits[0]}\n"
            f"  Fix: end `path:` with one of its splits: {', '.join(splits)}."
        )


def _read(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb") as file:
            yield from _read_stream(file, str(path))
    except _DAMAGED as error:
        raise UserError(
            f"cannot read the data file {path}: {getattr(error, 'strerror', None) or error}.\n"
            "  Fix: paths under `data:` are relative to experiments/; correct the path, or put "
            "the whole file there."
        ) from error


def _read_stream(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read one file of any kind; `name` begins the places of its rows."""
    head = file.read(512)
    file.seek(0)
    reader = next((read for mark, read in _BY_MARK if re.match(mark, head, re.DOTALL)), None)
    if reader is None:
        _refuse_unsupported(head, name)
        reader = _BY_SUFFIX.get(Path(name).suffix.lower(), _read_json)
    yield from reader(file, name)


def _refuse_unsupported(head: bytes, name: str) -> None:
    for mark, kind, fix in _UNSUPPORTED:
        if re.match(mark, head, re.DOTALL):
            path = Path(name)
            command = fix.format(name=path.name, suffix=path.suffix)
            raise UserError(f"{name} is {kind}.\n  Fix: {command}.")


def _decompressed(opened: Callable[[IO[bytes]], Any], suffix: str) -> _Reader:
    """Make the reader of compressed files, whose names end with `suffix`."""

    def read(file: IO[bytes], name: str) -> Iterator[Row]:
        with opened(file) as inside:
            yield from _read_stream(inside, name.removesuffix(suffix))

    return read


def _read_zip(file: IO[bytes], name: str) -> Iterator[Row]:
    with zipfile.ZipFile(file) as archive:
        if "xl/workbook.xml" in archive.namelist():
            yield from _read_excel(file, name)
            return
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            if not member.is_dir() and is_data(PurePosixPath(member.filename)):
                place = f"{name}/{member.filename}"
                yield from _read_stream(_unzipped(archive, member, place), place)


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: str) -> IO[bytes]:
    try:
        return io.BytesIO(archive.read(member))
    except RuntimeError as error:  # encrypted, or an unknown compression
        raise UserError(
            f"cannot read {place}: {error}.\n"
            "  Fix: unpack the archive, and name the folder in `path:`."
        ) from error


def _read_tar(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read an archive's files in its own order.

    Seeking back in a compressed archive would decompress it again from its start: the bytes that
    are read twice, to recognise a file, fit in the buffer.
    """
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            data = member.isfile() and is_data(PurePosixPath(member.name))
            inside = archive.extractfile(member) if data else None
            if inside:
                buffered = io.BufferedReader(inside, 4 * HEAD_BYTES)  # type: ignore[type-var]
                yield from _read_stream(buffered, f"{name}/{member.name}")


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
    """Read the first sheet; its first row names the columns, places count rows as Excel does."""
    records = _excel_records(file, name)
    place, columns = next(records, ("", ()))
    _require_distinct([column for column in columns if column], place)
    for place, cells in records:
        pairs = zip_longest(columns, cells[: len(columns)], fillvalue="")
        yield Row({column: cell for column, cell in pairs if column}, place)


def _excel_records(file: IO[bytes], name: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the place and texts of every row that is not empty."""
    import openpyxl

    try:
        sheets = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets
        for sheet in sheets:
            sheet.reset_dimensions()  # some programs write wrong ones, which hide rows
        others = [sheet.title for sheet in sheets[1:] if any(map(any, sheet.values))]
        if others:
            _warn(f"{name}: only the first sheet is read, not {', '.join(others)}")
        for number, cells in enumerate(sheets[0].values, 1):
            if any(cell is not None for cell in cells):
                texts = ["" if cell is None else str(cell) for cell in cells]
                yield f"{name}:{number}", texts
    except Exception as error:  # of any type, as openpyxl does not check a damaged workbook
        raise UserError(
            f"cannot read the workbook {name}: {error}.\n"
            "  Fix: open it in a spreadsheet program, and save it as .xlsx or .csv."
        ) from error


@cache
def _warn(message: str) -> None:
    """Log a warning once: every file is read twice, as rows are counted first."""
    log.warning("%s", message)


def _read_csv(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read a table whose first line names the columns; .tsv has tabs."""
    records = _csv_records(file, name)
    place, columns = next(records, ("", []))
    _require_distinct(columns, place)
    for place, cells in records:
        if len(cells) != len(columns):
            raise UserError(
                f"{place}: expected {len(columns)} cells as in the first line, found "
                f"{len(cells)}.\n  Fix: give every row a cell for each column, and quote cells "
                "with commas."
            )
        yield Row(dict(zip(columns, cells, strict=True)), place)


def _csv_records(file: IO[bytes], name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and cells of every row that is not blank."""
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    line = 1
    try:
        with _decoded(file, name) as text:
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            for cells in reader:
                if cells:
                    yield f"{name}:{line}", cells
                line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}:{line}: not valid CSV: {error}.\n"
            '  Fix: close each quote; inside a quoted cell, write " as "".'
        ) from error


def _require_distinct(columns: Sequence[str], place: str) -> None:
    for column, count in Counter(columns).items():
        if count > 1:
            raise UserError(
                f"{place}: {count} columns are named '{column}'.\n"
                "  Fix: give every column its own name."
            )


def _read_text(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read a file as one text, unless its first line shows that it is JSON Lines."""
    _, first = next(_lines(file), (0, b""))
    file.seek(0)
    if first.startswith(b"{") and _is_json(first):
        yield from _read_json(file, name)
        return
    with _decoded(file, name) as decoded:
        text = decoded.read()
    if text.strip():
        yield Row({"text": text}, f"{name}:1")


def _read_json(file: IO[bytes], name: str) -> Iterator[Row]:
    """Read JSON Lines line by line, any other JSON value by value."""
    begin = [line for _, line in islice(_lines(iter(partial(file.readline, HEAD_BYTES), b"")), 2)]
    file.seek(0)
    if not begin:
        raise UserError(f"{name} is empty.\n  Fix: write one JSON object on each line.")
    is_array = len(begin) == 1 and begin[0].lstrip().startswith(b"[")
    if not is_array and _is_json(begin[0]):
        for number, line in _lines(file):
            yield Row(line, f"{name}:{number}")
    else:
        with _decoded(file, name) as text:
            for value, number in JsonText(text, name).rows():
                yield Row(value, f"{name}:{number}")


def _lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the number and bytes of every line that is not blank."""
    for number, line in enumerate(file, 1):
        content = line.removeprefix(_BOM)
        if content.strip():
            yield number, content


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def _decoded(file: IO[bytes], name: str) -> Iterator[TextIO]:
    """Decode a file as UTF-8 with its line ends as they are; an invalid byte is an error."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield text
    except UnicodeDecodeError:
        _require_utf8(file, name)
        raise


def _require_utf8(file: IO[bytes], name: str) -> None:
    """Raise for the first invalid byte read so far, with its line: decoders read ahead of rows."""
    end = file.tell()
    file.seek(0)
    content = file.read(end)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{name}:{line}", error) from error


def _not_utf8(place: str, error: UnicodeDecodeError) -> UserError:
    path = Path(place.rpartition(":")[0])
    return UserError(
        f"{place}: byte {error.object[error.start]:#04x} is not UTF-8.\n"
        f"  Fix: convert it, e.g. iconv -f gb18030 -t utf-8 {path.name} > fixed{path.suffix}"
    )


_BY_MARK: list[tuple[bytes, _Reader]] = [
    (rb"\x1f\x8b", _decompressed(gzip.open, ".gz")),
    (rb"BZh[1-9]1AY&SY", _decompressed(bz2.open, ".bz2")),
    (rb"\xfd7zXZ\0", _decompressed(lzma.open, ".xz")),
    (rb"PK(\x03\x04|\x05\x06)", _read_zip),
    (rb".{257}ustar", _read_tar),
    (rb"PAR1", _read_parquet),
    (rb"ARROW1", _read_arrow),
    (rb"\xff\xff\xff\xff", _read_arrow_stream),
]
_BY_SUFFIX: dict[str, _Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_text,
    ".md": _read_text,
}

_UNSUPPORTED: list[tuple[bytes, str, str]] = [
    (
        LFS_POINTER,
        "a Git LFS pointer, not the data itself",
        "run `git lfs pull` in the repository it came from, then copy it again",
    ),
    (
        rb"\xff\xfe|\xfe\xff",
        "UTF-16 text",
        "convert it, e.g. iconv -f utf-16 -t utf-8 {name} > fixed{suffix}",
    ),
    (rb"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it, e.g. zstd -d {name}"),
    (rb"7z\xbc\xaf|Rar!\x1a", "a 7z or RAR archive", "unpack it, or pack it as .zip or .tar.gz"),
    (
        rb"\xd0\xcf\x11\xe0",
        "an old Excel file (.xls) or one with a password",
        "save it as .xlsx or .csv, without a password",
    ),
    (
        rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|%PDF-",
        "an image or PDF, but rows are text",
        "name only the files with rows, e.g. path: FOLDER/*.jsonl",
    ),
    (
        rb".*\0",
        "a binary file of an unsupported kind",
        "convert it to JSON Lines, CSV or Parquet",
    ),
]
