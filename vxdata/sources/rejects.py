"""The rejects file: the rows that were refused, as their source wrote them, and what is wrong with each.

It can be mended and loaded again: what it has beside the source's columns starts with ``_``. `COLUMNS` alone is read:
it says which columns the source has, where the rejects file has others.
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl

from vxdata.errors import InvalidInputError, StorageError
from vxdata.sources.csv import read_cells
from vxdata.sources.files import FileRows
from vxdata.sources.records import COLUMNS, REJECT_COLUMNS, ReadingRules, SourceFile
from vxdata.sources.rejected_objects import read_objects, to_line

_ADDED = ("_file", "_row", "_field", "_reason")
_Cells = list[str | None]
_Reasons = Mapping[int, tuple[str, str]]


class RejectsWriter:
    """Writes a rejects file in the form of its sources: CSV for CSV files, else NDJSON.

    Raises:
        InvalidInputError: its suffix does not say that form, the sources have both forms, it is one of them, or its
            folder is none.
    """

    def __init__(self, path: Path, files: Sequence[SourceFile], rules: ReadingRules) -> None:
        self.path, self._files, self._rules = path, files, rules
        forms = {"csv" if file.form == "csv" else "ndjson" for file in files}
        if len(forms) > 1:
            raise InvalidInputError(
                f"{path}: rejected rows keep the form of their source, and the files are CSV and others; load the CSV "
                "files by themselves."
            )
        (self._form,) = forms
        suffixes = (".csv", ".tsv") if self._form == "csv" else (".ndjson", ".jsonl")
        if path.suffix.lower() not in suffixes:
            raise InvalidInputError(
                f"{path}: rejected rows are written as {' or '.join(suffixes)}, as their source is."
            )
        if any(path.resolve() == file.path.resolve() for file in files):
            raise InvalidInputError(f"{path} is one of the files that are loaded; name another one.")
        if path.is_dir() or not path.resolve().parent.is_dir():
            raise InvalidInputError(f"{path}: rejected rows are written to a file in a folder that exists.")
        if path.exists() and not _is_rejects(path):
            raise InvalidInputError(f"{path} is there already, and no rejects file; name another one, or move it away.")

    def write(self, rejected: pl.DataFrame, rows: FileRows) -> None:
        """Write the rejected rows; without any, remove what an earlier run left there.

        Args:
            rejected: file, row, field, value, reason.
            rows: what the files say.

        Raises:
            InvalidInputError: a row holds what the encoding of the files cannot say.
            StorageError: the file cannot be written.
        """
        by_file = {file.name: _reasons(rejected.filter(pl.col("file") == file.name)) for file in self._files}
        encoding = (self._rules.encoding if self._form == "csv" else None) or "utf-8"
        if rejected.is_empty():
            self.path.unlink(missing_ok=True)
            return
        with _replacing(self.path, encoding) as stream:
            if self._form == "csv":
                _CsvRejects(stream, self._files, self._rules, self.path, encoding).write(by_file)
            else:
                self._write_objects(stream, by_file, rows)

    def _write_objects(self, stream: IO[str], by_file: Mapping[str, _Reasons], rows: FileRows) -> None:
        for position, file in enumerate(self._files):
            reasons = by_file[file.name]
            for row, content in read_objects(file, reasons, rows.columns[position]):
                added = zip(_ADDED, (_said(file.name, "utf-8"), row, *reasons[row]), strict=True)
                stream.write(to_line({**dict(added), **content}))


class _CsvRejects:
    """Rejected rows of CSV files, which may have different headers, under one header."""

    def __init__(
        self, stream: IO[str], files: Sequence[SourceFile], rules: ReadingRules, path: Path, encoding: str
    ) -> None:
        self._stream, self._files, self._rules, self._encoding = stream, files, rules, encoding
        self._delimiter = rules.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")

    def write(self, by_file: Mapping[str, _Reasons]) -> None:
        """Write the header, and the rows of each file."""
        read = {file.name: read_cells(file, self._rules, by_file[file.name]) for file in self._files}
        headers = {name: own for name, (own, _) in read.items() if by_file[name]}
        differ = len({frozenset(_own(header)) for header in headers.values()}) > 1
        says_columns = differ or any(COLUMNS in header for header in headers.values())
        header = list(dict.fromkeys(name for own in headers.values() for name in _own(own)))
        self._line([*_ADDED, *([COLUMNS] if says_columns else []), *header])
        for name, own in headers.items():
            for row, cells in read[name][1]:
                added = [_said(text or None, self._encoding) for text in (name, str(row), *by_file[name][row])]
                columns = [_columns_of(own, cells)] if says_columns else []
                self._line([*added, *columns, *_under(header, own, cells)])

    def _line(self, cells: Iterable[str | None]) -> None:
        self._stream.write(self._delimiter.join(_quoted(cell, self._delimiter) for cell in cells) + "\n")


def _is_rejects(path: Path) -> bool:
    """Whether a file is empty, or begins as `RejectsWriter` lets one begin, in whatever encoding."""
    with path.open("rb") as stream:
        start = stream.read(4 * len(_ADDED[0]))
    words = start.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\0", b"").lstrip(b'{"')
    return not start or words.startswith(_ADDED[0].encode())


@contextmanager
def _replacing(path: Path, encoding: str) -> Iterator[IO[str]]:
    """Open a file that takes the place of another one when it is whole."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with unfinished.open("w", encoding=encoding, newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except UnicodeError as error:
        raise InvalidInputError(f"{path}: rejected rows cannot be written in {encoding}: {error}") from error
    except OSError as error:
        words = error.strerror or str(error)
        raise StorageError(f"{words}.", uri=str(path), operation="write", retryable=False) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _said(text: str | None, encoding: str) -> str | None:
    """Return text with what an encoding lacks escaped: what VxData adds itself is for people to read."""
    return None if text is None else text.encode(encoding, "backslashreplace").decode(encoding)


def _quoted(cell: str | None, delimiter: str) -> str:
    """Return a cell as CSV: nothing for null, quotes for empty text and where something in it asks for them."""
    if cell is None:
        return ""
    needs_quotes = not cell or any(mark in cell for mark in (delimiter, '"', "\n", "\r"))
    return '"' + cell.replace('"', '""') + '"' if needs_quotes else cell


def _own(header: Iterable[str]) -> list[str]:
    """Return the columns that say something of resources."""
    return [name for name in header if name not in REJECT_COLUMNS]


def _columns_of(header: list[str], cells: _Cells) -> str:
    """Return the columns that a row's source has: a rejects file that is loaded again says so in each row."""
    said = dict(zip(header, cells, strict=False)).get(COLUMNS)
    return said or " ".join(_own(header))


def _under(header: list[str], own: list[str], cells: _Cells) -> _Cells:
    """Return a row's cells under another header.

    A row with too few cells stays in the order of its own header, and as short as it is; with too many, the last ones
    stay at its end: neither is taken for a whole row.
    """
    by_name = dict(zip(own, cells, strict=False))
    if len(cells) < len(own):
        return [cell for name, cell in by_name.items() if name not in REJECT_COLUMNS]
    return [*(by_name.get(name) for name in header), *cells[len(own) :]]


def _reasons(rejected: pl.DataFrame) -> dict[int, tuple[str, str]]:
    """Return for each row its fields and the reasons, joined."""
    words = rejected.group_by("row", maintain_order=True).agg(
        pl.col("field").drop_nulls().unique(maintain_order=True).str.join(", "), pl.col("reason").str.join("; ")
    )
    return {row: (fields, reasons) for row, fields, reasons in words.iter_rows()}
