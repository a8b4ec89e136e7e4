"""CSV: text cells, read strictly in batches. Rows that have too few or too many cells are faults, never padded.

A row is a record, and the header is row 1, as a spreadsheet counts. An empty cell is null; a quoted one, ``""``, is
empty text. Rows without any cell filled are skipped.

Source: RFC 4180.
"""

import codecs
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from vxdata.errors import InvalidInputError, did_you_mean, name_some
from vxdata.sources.cells import is_utf8
from vxdata.sources.quotes import OpenQuoteError, QuoteWatch, cell_text, quote_fault, records
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
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_BLOCKS = (16 << 20, 1 << 30)
"""Bytes that are parsed at once: the second is for a file with records that the first does not hold."""
_BATCH_ROWS = 250_000
_LEAST_BYTES = 4 << 10
_HEADER_BYTES = 4 << 20
_LONGEST_NAME = 1_000
_END = 2**63


def read_csv(file: SourceFile, rules: ReadingRules) -> Iterator[Batch]:
    """Read a file in batches.

    Raises:
        InvalidInputError: it is empty or cannot be decoded, a column belongs to no type or occurs twice, or a quote is
            not closed.
    """
    encoding = rules.encoding or _encoding(file.path)
    delimiter, names = _header(file, encoding, rules)
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
    text = _start(file, encoding)
    if not text.strip():
        raise InvalidInputError(f"{file.name} is empty.")
    candidates = (_one_character(rules.delimiter),) if rules.delimiter is not None else DELIMITERS
    headers = {mark: _first_record(text, mark) for mark in candidates}
    fitting = [mark for mark, cells in headers.items() if "identifier" in map(cell_text, cells)]
    if not fitting:
        raise _headless(file, max(headers.values(), key=len), rules)
    return fitting[0], _names(file, headers[fitting[0]])


def _names(file: SourceFile, cells: list[str]) -> list[str]:
    """Return the names of a header.

    Raises:
        InvalidInputError: a name's quotes are at fault, or one occurs twice, or is none at all.
    """
    if reason := next(filter(None, map(quote_fault, cells)), None):
        raise InvalidInputError(f"{file.name}: a name in the header, row 1, {reason}.")
    names = [cell_text(cell) or "" for cell in cells]
    if longest := next((name for name in names if len(name) > _LONGEST_NAME), None):
        raise InvalidInputError(
            f"{file.name}: the header has a name of {len(longest):,} characters, {longest[:60]!r}..."
        )
    if ROW in names:
        raise InvalidInputError(f"{file.name}: no type has a field {ROW!r}.")
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise InvalidInputError(f"{file.name}: the header names {name_some(repeated)} more than once.")
    return names


def _one_character(delimiter: str) -> str:
    if len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n\0':
        return delimiter
    raise InvalidInputError(f"delimiter {delimiter!r}: one ASCII character is expected, and no quote or line break.")


def _start(file: SourceFile, encoding: str) -> str:
    """Return the text of a file's first bytes, to the end of a line if there is one in them."""
    try:
        with io.BufferedReader(_Utf8(file.path, encoding)) as stream:
            data = stream.read(_HEADER_BYTES)
    except (UnicodeError, LookupError) as error:
        raise _undecodable(file, encoding, error) from error
    if len(data) < _HEADER_BYTES:
        return data.decode()
    whole = data[: max(data.rfind(b"\n"), data.rfind(b"\r"), 0)]
    if not whole:
        raise InvalidInputError(f"{file.name}: its first line is longer than {_HEADER_BYTES >> 20} MiB; is it CSV?")
    return whole.decode()


def _first_record(text: str, delimiter: str) -> list[str]:
    """Return the cells of the header as they are written; with another delimiter its quotes may not be closed."""
    try:
        return next(records(io.StringIO(text, newline=""), delimiter))[1]
    except OpenQuoteError as error:
        return [error.text]


def _headless(file: SourceFile, cells: list[str], rules: ReadingRules) -> InvalidInputError:
    names = [(cell_text(cell) or "")[:_LONGEST_NAME] for cell in cells]
    if names == [""]:
        return InvalidInputError(f"{file.name}: its first line is blank; the header is expected there.")
    if any("\0" in name for name in names):
        return InvalidInputError(
            f"{file.name}: its first line holds NUL bytes; name its encoding (--encoding utf-16-le or utf-16-be), or "
            "save it as UTF-8."
        )
    if reason := next(filter(None, map(quote_fault, cells)), None):
        return InvalidInputError(f"{file.name}: a name in the header, row 1, {reason}.")
    known = [*_known(rules), "identifier"]
    hint = next((f" {n!r}:{did_you_mean(n, known)}" for n in names if "ident" in n.lower()), "")
    held = name_some(name[:60] for name in names)
    return InvalidInputError(
        f"{file.name}: the header has no column 'identifier'; it has {held}.{hint} Cells are parted by "
        "',', ';', tab or '|'; --delimiter names another one."
    )


def _known(rules: ReadingRules) -> list[str]:
    return [name for spec in rules.specs for name in spec.fields]


def _undecodable(file: SourceFile, encoding: str, error: Exception) -> InvalidInputError:
    why = str(error)
    if isinstance(error, UnicodeDecodeError):
        why = f"{error.reason}: {error.object[max(error.start - 20, 0) : error.start + 20]!r}"
    return InvalidInputError(
        f"{file.name} is not written in {encoding} ({why}). Name its encoding (--encoding cp1252 for most files of "
        "Excel on Windows, utf-16, latin-1), or save it as UTF-8."
    )


class _Utf8(io.RawIOBase):
    """The text of a file in UTF-8, whatever its encoding is, without a byte order mark, and with its last line ended.

    PyArrow takes an empty cell at the end of a file that lacks the latter for an empty text, not for null.

    Args:
        path: the file.
        encoding: the one that it is written in; what it does not allow raises UnicodeError as it is read.
        see: told each part as it is read, and at the end an empty one.

    Raises:
        LookupError: there is no such encoding.
    """

    def __init__(self, path: Path, encoding: str, see: Callable[[bytes], None] = lambda part: None) -> None:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # some codecs, such as hex, are of bytes
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._is_utf8 = codecs.lookup(encoding).name == "utf-8"
        self._stream, self._see = path.open("rb"), see
        self._is_start, self._is_end, self._ends_line, self._rest = True, False, True, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._rest) < len(buffer) and not self._is_end:  # a record must not straddle a short block
            self._rest += self._next(max(len(buffer) - len(self._rest), _LEAST_BYTES))
        count = min(len(self._rest), len(buffer))
        if count > 1 and self._rest[count - 1 : count + 1] in (b"\r", b"\r\n"):
            count -= 1  # PyArrow drops a line feed that begins a block, also inside quotes
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._is_end = not data
        is_sound = self._is_utf8 and data and not self._decoder.getstate()[0] and is_utf8(data)
        part = data if is_sound else self._decoded(data)
        if self._is_start and part:
            part, self._is_start = part.removeprefix(codecs.BOM_UTF8), False
        if part or self._is_end:
            self._see(part)
        self._ends_line = part.endswith((b"\n", b"\r")) if part else self._ends_line
        return part + b"\n" if self._is_end and not self._ends_line else part

    def _decoded(self, data: bytes) -> bytes:
        text = self._decoder.decode(data, final=self._is_end)
        return data if self._is_utf8 else text.encode()

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Stray(NamedTuple):
    """A cell whose quotes are at fault."""

    row: int
    position: int
    cell: str
    reason: str


def _stray_cells(file: SourceFile, encoding: str, delimiter: str) -> Iterator[_Stray]:
    """Find the cells whose quotes are at fault, in the order of their rows.

    Raises:
        InvalidInputError: rows may be swallowed: a quote is not closed, or closed lines later, with text behind it.
    """
    with io.TextIOWrapper(io.BufferedReader(_Utf8(file.path, encoding)), encoding="utf-8", newline="") as lines:
        try:
            for row, (line, cells) in enumerate(records(lines, delimiter), 1):
                for position, cell in enumerate(cells):
                    if reason := quote_fault(cell):
                        _refuse_lines(file, row, line, cell, reason)
                        yield _Stray(row, position, cell, reason)
        except OpenQuoteError as error:
            raise InvalidInputError(f"{file.name}: {error}.") from error


def _refuse_lines(file: SourceFile, row: int, line: int, cell: str, reason: str) -> None:
    count = len(cell.splitlines())
    if "\n" in cell or "\r" in cell:
        raise InvalidInputError(
            f"{file.name}: a cell of {count:,} lines {reason} in the record of line {line} (row {row}): "
            f"{cell[:60]!r}; is a quote not closed?"
        )


class _Parser:
    """One reading of one file, in the order of its rows."""

    def __init__(
        self, file: SourceFile, encoding: str, delimiter: str, names: list[str], *, keeps_ragged: bool = False
    ) -> None:
        self._file, self._encoding, self._delimiter, self._names = file, encoding, delimiter, names
        self._keeps_ragged, self.ragged_rows = keeps_ragged, dict[int, str]()
        self._quotes, self._has_nul = QuoteWatch(delimiter), False
        self._stray: Iterator[_Stray] | None = None
        self._next_stray: _Stray | None = None
        self._ragged, self._skipped = list[tuple[int, int, str]](), set[int]()

    def batches(self, block: int) -> Iterator[Batch]:
        """Parse the file in blocks; one thread is faster than several.

        Raises:
            _TooLongError: a record does not fit a block.
            InvalidInputError: the file cannot be decoded, or rows may be swallowed by a quote that is not closed.
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
                    yield self._batch(held, row - 1)
                    held = []
        except pa.ArrowInvalid as error:
            self._stray_cells(_END)
            if "straddling" in str(error):
                raise _TooLongError from error
            raise InvalidInputError(f"{self._file.name} cannot be read as CSV: {error}") from error
        except (UnicodeError, LookupError) as error:
            raise _undecodable(self._file, self._encoding, error) from error
        yield self._batch(held, _END)

    def _tables(self, block: int) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.csv as pc

        reading = pc.ReadOptions(use_threads=False, block_size=block)
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
        with _Utf8(self._file.path, self._encoding, self._see) as text:
            yield from pc.open_csv(pa.PythonFile(text, mode="r"), reading, parsing, converting)

    def _see(self, part: bytes) -> None:
        self._quotes.see(part)
        self._has_nul = self._has_nul or b"\0" in part

    def _note_ragged(self, row: Any) -> str:
        self._skipped.add(row.number)
        self._ragged.append((row.number, row.actual_columns, row.text[:MOST_SHOWN]))
        if self._keeps_ragged:
            self.ragged_rows[row.number] = row.text
        return "skip"

    def _batch(self, parts: list[pl.DataFrame], last: int) -> Batch:
        """Return some parts as a batch, with the faults of their rows and of those that were skipped up to the last."""
        nothing = pl.DataFrame(schema={ROW: pl.Int64, **dict.fromkeys(self._names, pl.String)})
        rows = pl.concat([nothing, *parts]).filter(pl.any_horizontal(pl.col(self._names).is_not_null()))
        stray = self._stray_cells(last)
        faults, self._ragged[:] = [self._ragged_faults(), self._stray_faults(stray)], []
        if self._has_nul:
            faults += [faults_at(rows, _has_nul(rows[name]), name, f"{name} holds a NUL byte") for name in self._names]
        return Batch(self._as_written(rows, stray), pl.concat(faults))

    def _stray_cells(self, last: int) -> list[_Stray]:
        """Return the cells whose quotes are at fault, of rows that were not told yet, up to the last.

        A quote was seen before the record that holds it was parsed.
        """
        if self._quotes.is_sound:
            return []
        if self._stray is None:
            self._stray = _stray_cells(self._file, self._encoding, self._delimiter)
            self._next_stray = next(self._stray, None)
        found = list[_Stray]()
        while (stray := self._next_stray) is not None and stray.row <= last:
            found.append(stray)
            self._next_stray = next(self._stray, None)
        return found

    def _stray_faults(self, stray: list[_Stray]) -> pl.DataFrame:
        names = dict(enumerate(self._names))
        faults = [
            (row, names.get(position), cell[:MOST_SHOWN], f"{names.get(position, 'a cell')} {reason}")
            for row, position, cell, reason in stray
        ]
        return pl.DataFrame(faults, schema=FAULT_SCHEMA, orient="row")

    def _as_written(self, rows: pl.DataFrame, stray: list[_Stray]) -> pl.DataFrame:
        """Return rows with the cells whose quotes are at fault as they are written: the parser drops some quotes."""
        for position in {cell.position for cell in stray} & {*range(len(self._names))}:
            own = {cell.row: cell.cell for cell in stray if cell.position == position}
            name = pl.col(self._names[position])
            rows = rows.with_columns(
                pl.col(ROW).replace_strict(own, default=name, return_dtype=pl.String).alias(name.meta.output_name())
            )
        return rows

    def _ragged_faults(self) -> pl.DataFrame:
        wanted = len(self._names)
        faults = [
            (number, None, text, f"the row has {cells} cells, but the header {wanted}")
            for number, cells, text in self._ragged
        ]
        return pl.DataFrame(faults, schema=FAULT_SCHEMA, orient="row")


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
            _, cells = next(records(io.StringIO(text, newline=""), delimiter))
            yield row, [cell_text(cell) for cell in cells]

    return names, rows()
