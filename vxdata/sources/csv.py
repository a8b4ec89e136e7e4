"""CSV: text cells, read strictly in batches. Rows that have too few or too many cells are faults, never padded.

A row is a record, and the header is row 1, as a spreadsheet counts. An empty cell is null; a quoted one, ``""``, is
empty text. Rows without any cell filled are skipped.

Source: RFC 4180.
"""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from vxdata.errors import InvalidInputError, did_you_mean, name_some
from vxdata.sources.records import (
    FAULT_SCHEMA,
    MOST_SHOWN,
    ROW,
    Batch,
    ReadingRules,
    SourceFile,
    faults_at,
    ignored_columns,
    no_faults,
    resource_columns,
)

DELIMITERS = (",", ";", "\t", "|")
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_BLOCKS = (16 << 20, 1 << 30)
"""Bytes that are parsed at once: the second is for a file with records that the first does not hold."""
_BATCH_ROWS = 250_000
_HEADER_BYTES = 4 << 20


def read_csv(file: SourceFile, rules: ReadingRules) -> Iterator[Batch]:
    """Read a file in batches.

    Raises:
        InvalidInputError: it is empty or cannot be decoded, a column belongs to no type or occurs twice, or a quote is
            not closed.
    """
    encoding = rules.encoding or _encoding(file.path)
    delimiter, names = _header(file, encoding, rules)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"{file.name}: the header names {name_some(repeated)} more than once.")
    resource_columns(file, names, rules)
    done, told = 1, no_faults()
    for block in _BLOCKS:
        try:
            for batch in _Parser(file, encoding, delimiter, names).batches(block):
                faults = batch.faults.join(told, on=ROW, how="anti", maintain_order="left")
                yield Batch(batch.rows.filter(pl.col(ROW) > done), faults, True, ignored_columns(names))
                done, told = batch.last or done, pl.concat([told, faults])
            return
        except _TooLongError:
            continue
    raise InvalidInputError(
        f"{file.name}: a record after row {done} is longer than {_BLOCKS[-1] >> 20} MiB; is a quote not closed?"
    )


class _TooLongError(Exception):
    """A record is longer than the block that is parsed at once."""


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")


def _header(file: SourceFile, encoding: str, rules: ReadingRules) -> tuple[str, list[str]]:
    """Return the delimiter and the names: the delimiter is the one that finds a column ``identifier``."""
    with file.path.open("rb") as stream:
        data = stream.read(_HEADER_BYTES)
    try:
        text = data.decode(encoding, errors="ignore" if len(data) == _HEADER_BYTES else "strict")
    except (UnicodeDecodeError, LookupError) as error:
        raise _undecodable(file, encoding, error) from error
    if not text.strip():
        raise InvalidInputError(f"{file.name} is empty.")
    candidates = (rules.delimiter,) if rules.delimiter else DELIMITERS
    headers = {mark: next(csv.reader(io.StringIO(text, newline=""), delimiter=mark), []) for mark in candidates}
    fitting = [mark for mark, names in headers.items() if "identifier" in names]
    if not fitting:
        names = max(headers.values(), key=len)
        known = [*_known(rules), "identifier"]
        hint = next((f" {n!r}:{did_you_mean(n, known)}" for n in names if "ident" in n.lower()), "")
        raise InvalidInputError(
            f"{file.name}: the header has no column 'identifier'; it has {name_some(names)}.{hint} Cells are parted by "
            "',', ';', tab or '|'; --delimiter names another one."
        )
    return fitting[0], headers[fitting[0]]


def _known(rules: ReadingRules) -> list[str]:
    return [name for spec in rules.specs for name in spec.fields]


def _undecodable(file: SourceFile, encoding: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"{file.name} is not written in {encoding} ({error}). Name its encoding (--encoding cp1252 for most files of "
        "Excel on Windows, utf-16, latin-1), or save it as UTF-8."
    )


class _Watched(io.RawIOBase):
    """A file that counts, as it is read, the quotes and the NUL bytes in it."""

    def __init__(self, path: Path) -> None:
        self._stream, self.quotes, self.has_nul = path.open("rb"), 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        data = bytes(memoryview(buffer)[:count])
        self.quotes += data.count(b'"')
        self.has_nul = self.has_nul or b"\0" in data
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Parser:
    """One reading of one file, in the order of its rows."""

    def __init__(
        self, file: SourceFile, encoding: str, delimiter: str, names: list[str], *, keeps_ragged: bool = False
    ) -> None:
        self._file, self._encoding, self._delimiter, self._names = file, encoding, delimiter, names
        self._keeps_ragged, self.ragged_rows = keeps_ragged, dict[int, str]()
        self._watched, self._ragged = _Watched(file.path), list[tuple[int, int, str]]()
        self._skipped = set[int]()

    def batches(self, block: int) -> Iterator[Batch]:
        """Parse the file in blocks; one thread is faster than several.

        Raises:
            _TooLongError: a record does not fit a block.
            InvalidInputError: the file cannot be decoded, or a quote is not closed.
        """
        import pyarrow as pa

        row, held = 2, list[pl.DataFrame]()
        try:
            for table in self._tables(block):
                cells = pl.from_arrow(table)
                assert isinstance(cells, pl.DataFrame)
                places, row = _places(row, cells.height, self._skipped)
                held.append(cells.insert_column(0, places))
                if sum(part.height for part in held) >= _BATCH_ROWS:
                    yield self._batch(held)
                    held = []
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                raise _TooLongError from error
            raise self._explained(error) from error
        except (UnicodeError, LookupError) as error:
            raise _undecodable(self._file, self._encoding, error) from error
        finally:
            self._watched.close()
        if self._watched.quotes % 2:
            _refuse_open_quote(self._file, self._encoding, self._delimiter)
        yield self._batch(held)

    def _tables(self, block: int) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.csv as pc

        encoding = {"utf-8-sig": "utf8", "utf-8": "utf8"}.get(self._encoding, self._encoding)
        reading = pc.ReadOptions(use_threads=False, block_size=block, encoding=encoding)
        parsing = pc.ParseOptions(
            delimiter=self._delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=self._note_ragged,
        )
        converting = pc.ConvertOptions(
            column_types={name: pa.string() for name in self._names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return iter(pc.open_csv(pa.PythonFile(self._watched, mode="r"), reading, parsing, converting))

    def _note_ragged(self, row: Any) -> str:
        self._skipped.add(row.number)
        self._ragged.append((row.number, row.actual_columns, row.text[:MOST_SHOWN]))
        if self._keeps_ragged:
            self.ragged_rows[row.number] = row.text
        return "skip"

    def _batch(self, parts: list[pl.DataFrame]) -> Batch:
        """Return some parts as a batch, with the faults of their rows and of those that were skipped."""
        nothing = pl.DataFrame(schema={ROW: pl.Int64, **dict.fromkeys(self._names, pl.String)})
        rows = pl.concat([nothing, *parts]).filter(pl.any_horizontal(pl.col(self._names).is_not_null()))
        faults, self._ragged[:] = [self._ragged_faults()], []
        if self._watched.has_nul and self._encoding != "utf-16":
            faults += [faults_at(rows, _has_nul(rows[name]), name, f"{name} holds a NUL byte") for name in self._names]
        return Batch(rows, pl.concat(faults))

    def _ragged_faults(self) -> pl.DataFrame:
        wanted = len(self._names)
        faults = [
            (number, None, text, f"the row has {cells} cells, but the header {wanted}")
            for number, cells, text in self._ragged
        ]
        return pl.DataFrame(faults, schema=FAULT_SCHEMA, orient="row")

    def _explained(self, error: Exception) -> InvalidInputError:
        if "UTF8" in str(error):
            return _undecodable(self._file, self._encoding, error)
        return InvalidInputError(f"{self._file.name} cannot be read as CSV: {error}")


def _has_nul(cells: pl.Series) -> pl.Series:
    return cells.str.contains("\0", literal=True).fill_null(False)


def _places(first: int, count: int, skipped: set[int]) -> tuple[pl.Series, int]:
    """Return where some rows stand, between rows that were skipped, and where the next one does."""
    if not skipped:
        return pl.int_range(first, first + count, eager=True).alias(ROW), first + count
    found: list[int] = []
    place = first
    while len(found) < count:
        if place not in skipped:
            found.append(place)
        place += 1
    return pl.Series(ROW, found, dtype=pl.Int64), place


def _refuse_open_quote(file: SourceFile, encoding: str, delimiter: str) -> None:
    """Refuse a file whose last quote is not closed: all that comes after it would be one cell."""
    limit = csv.field_size_limit(2**31 - 1)
    start = 1
    try:
        with file.path.open(encoding=encoding, newline="") as stream:
            for _ in (reader := csv.reader(stream, delimiter=delimiter, strict=True)):
                start = reader.line_num + 1
    except csv.Error as error:
        raise InvalidInputError(
            f"{file.name}: a quote is not closed in the record of line {start} ({error})."
        ) from error
    finally:
        csv.field_size_limit(limit)


def read_cells(
    file: SourceFile, rules: ReadingRules, wanted: Collection[int]
) -> tuple[list[str], Iterator[tuple[int, list[str | None]]]]:
    """Read some rows as they stand, for a rejects file.

    Returns:
        The header, and each row with its cells; None is an empty cell, an empty text one that is quoted.
    """
    encoding = rules.encoding or _encoding(file.path)
    delimiter, names = _header(file, encoding, rules)
    parser = _Parser(file, encoding, delimiter, names, keeps_ragged=True)

    def rows() -> Iterator[tuple[int, list[str | None]]]:
        for batch in parser.batches(_BLOCKS[-1]):
            for row, *cells in batch.rows.filter(pl.col(ROW).is_in([*wanted])).iter_rows():
                yield row, cells
        for row, text in parser.ragged_rows.items():
            yield row, [cell or None for cell in next(csv.reader([text], delimiter=delimiter))]

    return names, rows()
