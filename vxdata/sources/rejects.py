"""The rejects file: the rows that were refused, as their source wrote them, and what is wrong with each.

It can be mended and loaded again: what it has beside the source's columns starts with ``_`` and is ignored.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.sources.csv import read_cells
from vxdata.sources.records import REJECT_COLUMNS, ReadingRules, SourceFile

_ADDED = ("_file", "_row", "_field", "_reason")


class RejectsWriter:
    """Writes a rejects file in the form of its sources: CSV for CSV files, else NDJSON.

    Raises:
        InvalidInputError: its suffix does not say that form, the sources have both forms, or it is one of them.
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

    def write(self, rejected: pl.DataFrame) -> None:
        """Write the rejected rows.

        Args:
            rejected: file, row, field, value, reason.
        """
        by_file = {file.name: _reasons(rejected.filter(pl.col("file") == file.name)) for file in self._files}
        if self._form == "csv":
            self._write_csv(by_file)
            return
        with self.path.open("w", encoding="utf-8") as stream:
            for file in self._files:
                for row, content in _objects(file, by_file[file.name]):
                    added = dict(zip(_ADDED, (file.name, row, *by_file[file.name][row]), strict=True))
                    stream.write(json.dumps({**added, **content}, default=_as_json) + "\n")

    def _write_csv(self, by_file: Mapping[str, Mapping[int, tuple[str, str]]]) -> None:
        delimiter = self._rules.delimiter or ("\t" if self.path.suffix.lower() == ".tsv" else ",")
        read = {file.name: read_cells(file, self._rules, by_file[file.name]) for file in self._files}
        names = dict.fromkeys(name for header, _ in read.values() for name in header)
        header = [name for name in names if name not in REJECT_COLUMNS]
        with self.path.open("w", encoding=self._rules.encoding or "utf-8", newline="") as stream:

            def write(cells: Iterable[Any]) -> None:
                stream.write(delimiter.join(_quoted(cell, delimiter) for cell in cells) + "\n")

            write([*_ADDED, *header])
            for name, (own, rows) in read.items():
                for row, cells in rows:
                    fields, reasons = by_file[name][row]
                    write([name, row, fields or None, reasons, *_in_order(header, own, cells)])


def _quoted(cell: Any, delimiter: str) -> str:
    """Return a cell as CSV: nothing for null, quotes for empty text and where something in it asks for them."""
    if cell is None:
        return ""
    text = str(cell)
    needs_quotes = not text or any(mark in text for mark in (delimiter, '"', "\n", "\r"))
    return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def _in_order(header: list[str], names: list[str], values: list[str | None]) -> list[str | None]:
    """Return cells under another header; those that a row has too many stay at its end, to be mended."""
    by_name = dict(zip(names, values, strict=False))
    return [*(by_name.get(name) for name in header), *values[len(names) :]]


def _reasons(rejected: pl.DataFrame) -> dict[int, tuple[str, str]]:
    """Return for each row its fields and the reasons, joined."""
    words = rejected.group_by("row", maintain_order=True).agg(
        pl.col("field").drop_nulls().unique(maintain_order=True).str.join(", "), pl.col("reason").str.join("; ")
    )
    return {row: (fields, reasons) for row, fields, reasons in words.iter_rows()}


def _objects(file: SourceFile, wanted: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read some rows as JSON objects; a line that is none comes as it stands, as ``_line``."""
    if file.form == "parquet":
        scan = pl.scan_parquet(file.path, glob=False, hive_partitioning=False).with_row_index(":row", 1)
        for content in scan.filter(pl.col(":row").is_in([*wanted])).collect().iter_rows(named=True):
            yield content.pop(":row"), content
        return
    rows = {*wanted}
    with file.path.open("rb") as stream:
        for row, line in enumerate(stream, start=1):
            if row in rows:
                yield row, _content(line)


def _content(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return {"_line": line.decode(errors="replace").rstrip("\r\n")}
    return {name: value for name, value in found.items() if name not in _ADDED}


def _as_json(value: Any) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytes():
            return value.hex()
    raise TypeError(f"{type(value).__name__} has no JSON form")
