"""NDJSON: one JSON object a line, read strictly in pieces; a piece with a fault is read line by line to name it.

A row is a line. A field that a line lacks while another line of its type has it is null there.
"""

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl
from polars.datatypes import DataType

from vxdata.catalog.table import DERIVED_COLUMNS, TableSpec
from vxdata.errors import InvalidInputError
from vxdata.schemas.columns import to_arrow_type
from vxdata.sources.cells import has_nul, holds, is_utf8, once, parse_json
from vxdata.sources.records import (
    FAULT_SCHEMA,
    MOST_SHOWN,
    ROW,
    Batch,
    ReadingRules,
    SourceFile,
    ignored_columns,
    no_faults,
    resource_columns,
    stray_columns,
)

PIECE_BYTES = 64 << 20
_FIRST_LINES = 1_000
_HEAD = ("identifier", "parent_identifier", "license")


def read_ndjson(file: SourceFile, rules: ReadingRules) -> Iterator[Batch]:
    """Read a file in pieces of whole lines.

    Raises:
        InvalidInputError: it is empty, one JSON document, written in UTF-16 or UTF-32, or a key belongs to no type
            (unless such rows are skipped).
    """
    line = 1
    for piece in _pieces(file.path):
        piece = piece.removeprefix(b"\xef\xbb\xbf") if line == 1 else piece
        if line == 1 and (piece.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in piece[:4]):
            raise InvalidInputError(
                f"{file.name} is not written in UTF-8, but UTF-16 or UTF-32; save it as UTF-8 "
                "(iconv -f utf-16 -t utf-8 FILE makes it)."
            )
        if line == 1 and piece.lstrip()[:1] == b"[":
            raise InvalidInputError(
                f"{file.name}: it is one JSON array; NDJSON has one object a line (jq -c '.[]' FILE makes it)."
            )
        count = piece.count(b"\n") + (not piece.endswith(b"\n"))
        whole = _strictly(piece, line, count, rules)
        yield from _line_by_line(file, piece, line, rules) if whole is None else (whole,)
        line += count
    if line == 1:
        raise InvalidInputError(f"{file.name} is empty.")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece + stream.readline() if not piece.endswith(b"\n") else piece


def _strictly(piece: bytes, first: int, count: int, rules: ReadingRules) -> Batch | None:
    """Read a piece in which everything is as it should be; None if something is not."""
    if not is_utf8(piece) or _may_hold_nul(piece):
        return None
    known, seen = _columns(rules), _first_keys(piece)
    rows = _parse(piece, {name: dtype for name, dtype in known.items() if name in seen})
    if rows is None:  # most pieces have the same keys in all lines; else all keys have to be expected
        rows = _parse(piece, known)
    if rows is None or rows.height != count:  # blank lines: rows would be counted wrongly
        return None
    empty = [name for name in rows.columns if name not in seen and rows[name].null_count() == rows.height]
    if not all(_is_absent(piece, name) for name in empty):  # of a null nobody can tell whether it was written
        every = _all_keys(piece)
        if every is None:
            return None
        seen = every
    rows = rows.drop(name for name in empty if name not in seen)
    if "identifier" not in rows.columns or _is_unclear(rows, rules) or any(map(_has_infinite, rows)):
        return None
    places = pl.int_range(first, first + count, eager=True).alias(ROW)
    return Batch(rows.insert_column(0, places), no_faults(), ignored=ignored_columns(rows.columns))


def _may_hold_nul(piece: bytes) -> bool:
    return b"\0" in piece or (b"\\" in piece and rb"\u0000" in piece)


def _has_infinite(values: pl.Series) -> bool:
    """Whether a number may be one that does not fit: the parser makes it infinite."""
    match values.dtype:
        case pl.Float64():
            return bool(values.is_infinite().any())
        case pl.List():
            return _has_infinite(values.explode())
        case pl.Struct():
            return any(map(_has_infinite, values.struct.unnest()))
    return False


def _first_keys(piece: bytes) -> set[str]:
    """Return the keys of the first lines."""
    keys: set[str] = set()
    with suppress(ValueError):
        for line in islice(io.BytesIO(piece), _FIRST_LINES):
            keys.update(_object(line))
    return keys


def _all_keys(piece: bytes) -> set[str] | None:
    """Return the keys of all lines; None if one of them cannot be read."""
    try:
        return {key for line in io.BytesIO(piece) for key in _object(line)}
    except ValueError:
        return None


def _parse(piece: bytes, columns: dict[str, DataType]) -> pl.DataFrame | None:
    """Parse a piece that has these keys only, each of its type."""
    import pyarrow as pa
    import pyarrow.json as pj

    schema = pa.schema([(name, to_arrow_type(dtype)) for name, dtype in columns.items()])
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        table = pj.read_json(io.BytesIO(piece), pj.ReadOptions(block_size=_block(piece)), options)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    rows = pl.from_arrow(table)
    return rows if isinstance(rows, pl.DataFrame) else None


def _is_unclear(rows: pl.DataFrame, rules: ReadingRules) -> bool:
    """Whether a key that several types have may be absent from all lines of one of them, and null in none."""
    words = rows["identifier"].str.split("/").list.first()
    if words.n_unique() == 1:
        return False
    filled = rows.select(words.alias(ROW), (pl.all().is_not_null())).group_by(ROW).agg(pl.all().any())
    specs = {spec.type_name: spec for spec in rules.specs}
    for of_type in filled.iter_rows(named=True):
        fields = specs[of_type[ROW]].fields if of_type[ROW] in specs else {}
        if any(not of_type[name] for name in rows.columns if name in _HEAD[1:] or name in fields):
            return True
    return False


def _block(piece: bytes) -> int:
    """Return a size of blocks that holds the longest line: a parser that needs more gives up."""
    longest, start = 0, 0
    while start < len(piece) and (end := piece.find(b"\n", start + (1 << 20))) >= 0:
        longest, start = max(longest, end - start), end
    return max(longest, len(piece) - start, 1 << 22) + 1


def _is_absent(piece: bytes, name: str) -> bool:
    return f'"{name}"'.encode() not in piece and rb"\u" not in piece


def _columns(rules: ReadingRules) -> dict[str, DataType]:
    """Return the JSON type of each field that has the same one in all types; dates are text."""
    found: dict[str, set[DataType]] = {name: {pl.String()} for name in (*_HEAD, *sorted(DERIVED_COLUMNS))}
    found["ancestors"] = {pl.List(pl.String())}
    for name, dtype in chain.from_iterable(spec.fields.items() for spec in rules.specs):
        found.setdefault(name, set()).add(_json_type(dtype))
    return {name: only for name, (only, *others) in found.items() if not others and not _holds_bytes(only)}


def _holds_bytes(dtype: Any) -> bool:
    """Whether bytes are nested in a type: the parser would take their text as it stands."""
    match dtype:
        case pl.List():
            return _holds_bytes(dtype.inner)
        case pl.Struct():
            return any(_holds_bytes(leaf.dtype) for leaf in dtype.fields)
    return isinstance(dtype, pl.Binary)


def _json_type(dtype: DataType) -> DataType:
    return pl.String() if isinstance(dtype, (pl.Datetime, pl.Date, pl.Decimal, pl.Binary)) else dtype


# ---- the piece that has a fault

_Fault = tuple[int, str | None, str | None, str]
_Row = tuple[int, dict[str, Any]]


def _line_by_line(file: SourceFile, piece: bytes, first: int, rules: ReadingRules) -> Iterator[Batch]:
    """Read a piece as one batch of each type, so that each has the keys of its own lines."""
    broken: list[_Fault] = []
    types: dict[str, list[_Row]] = {}
    for number, line in enumerate(piece.split(b"\n"), first):
        if line.strip():
            try:
                row = _object(line)
                types.setdefault(str(row.get("identifier")).partition("/")[0], []).append((number, row))
            except ValueError as error:
                text = line[:MOST_SHOWN].decode(errors="replace")
                broken.append((number, None, text, f"the line is no JSON object: {error}"))
    specs = {spec.type_name: spec for spec in rules.specs}
    for word, rows in types.items():
        yield _batch_of(file, rows, specs.get(word), rules)
    nothing = pl.DataFrame(schema={ROW: pl.Int64(), "identifier": pl.String()})
    yield Batch(nothing, pl.DataFrame(broken, schema=FAULT_SCHEMA, orient="row"))


def _batch_of(file: SourceFile, rows: list[_Row], spec: TableSpec | None, rules: ReadingRules) -> Batch:
    faults: list[_Fault] = []
    keys = dict.fromkeys(["identifier", *(key for _, row in rows for key in row)])
    stray = _stray(file, keys, rules)
    for number, row in rows:
        own = stray.keys() & row.keys() if stray else ()
        faults += [(number, name, _shown(row[name]), stray[name]) for name in sorted(own)]
    columns = [pl.Series(ROW, [number for number, _ in rows], dtype=pl.Int64)]
    for name in resource_columns(file, [name for name in keys if name not in stray], rules):
        if spec is None and name not in _HEAD:
            continue  # rows of no type are rejected for that alone: nobody knows what their fields should hold
        wanted = _dtype(name, spec)
        columns.append(pl.Series(name, [_checked(row, name, wanted, faults) for row in rows], dtype=wanted))
    wrong = pl.DataFrame(faults, schema=FAULT_SCHEMA, orient="row")
    return Batch(pl.DataFrame(columns), wrong, ignored=ignored_columns(keys))


def _stray(file: SourceFile, keys: Iterable[str], rules: ReadingRules) -> dict[str, str]:
    """Return the keys that belong to no type, where those are faults of rows, each with that as a sentence.

    Raises:
        InvalidInputError: a key has the name that numbers of rows have here, and rows are not skipped.
    """
    number = {ROW: f"no type has a field {ROW!r}."} if ROW in keys else {}
    if number and not rules.skips:
        raise InvalidInputError(f"{file.name}: {number[ROW]}")
    return number | stray_columns(keys, rules) if rules.skips else {}


def _object(line: bytes) -> dict[str, Any]:
    found = parse_json(line.decode(), once)
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}")
    return found


def _dtype(name: str, spec: TableSpec | None) -> DataType:
    """Return the JSON type of a field; that of a field that the type does not have is of no account."""
    return pl.String() if spec is None or name not in spec.fields else _json_type(spec.fields[name])


def _checked(place: _Row, name: str, wanted: DataType, faults: list[_Fault]) -> Any:
    number, row = place
    value = row.get(name)
    if holds(value, wanted):
        return value
    reason = "holds a NUL byte" if has_nul(value) else f"is no {_WORD.get(wanted, str(wanted))}"
    faults.append((number, name, _shown(value), f"{name} {reason}"))
    return None


def _shown(value: Any) -> str:
    """Return a value for a report."""
    try:
        text = str(value) if isinstance(value, Decimal) else json.dumps(value, default=str)
    except RecursionError:
        text = f"a {type(value).__name__}"
    return text[:MOST_SHOWN]


_WORD: dict[Any, str] = {
    pl.String: "text",
    pl.Float64: "number of 64 bits",
    pl.Int64: "whole number of 64 bits",
    pl.Boolean: "true or false",
}
