"""Rejected rows of NDJSON and Parquet files as JSON objects that can be mended and loaded again."""

import base64
import json
import math
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from vxdata.catalog.table import TableSpec, all_specs
from vxdata.schemas.fits import instance
from vxdata.sources.cells import once, parse_json
from vxdata.sources.columns import are_of_calendar, shown_instants
from vxdata.sources.records import COLUMNS, SourceFile

_LINE = "_line"
_DROPPED = ("_file", "_row", "_field", "_reason")
_Columns = Mapping[TableSpec, frozenset[str]]


def read_objects(file: SourceFile, wanted: Collection[int], columns: _Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read some rows of a file as JSON objects.

    A line that is no object, or that names a key twice, comes as it stands, as ``_line``.

    Args:
        file: NDJSON or Parquet.
        wanted: the places of the rows.
        columns: what each type in the file sets: a key that a line lacks is null if another line has it, so that its
            row names them all (`COLUMNS`).
    """
    if not wanted:
        return
    if file.form == "parquet":
        yield from _records(file, wanted)
        return
    with file.path.open("rb") as stream:
        for row, line in enumerate(stream, start=1):
            if row in wanted:
                yield row, _content(line, columns)


def to_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of NDJSON."""
    return json.dumps(row, default=str) + "\n"


def _content(line: bytes, columns: _Columns) -> dict[str, Any]:
    try:
        found = parse_json(line.removeprefix(b"\xef\xbb\xbf").decode(), once)
    except ValueError:
        found = None
    if not isinstance(found, dict) or _has_decimal(found):  # a number beyond 64 bits, for which JSON has no other word
        return {_LINE: line.decode(errors="replace").rstrip("\r\n")}
    content = {name: value for name, value in found.items() if name not in _DROPPED}
    said = _columns_of(content, columns)
    if COLUMNS in content or said <= content.keys():
        return content
    return {COLUMNS: " ".join(sorted(said)), **content}


def _has_decimal(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Decimal) or any(map(_has_decimal, inner))


def _columns_of(content: Mapping[str, Any], columns: _Columns) -> frozenset[str]:
    """Return the columns that a row's type sets in its file; of a file of one type, those of that type."""
    word = str(content.get("identifier")).partition("/")[0]
    by_word = {spec.type_name: names for spec, names in columns.items()}
    only = next(iter(by_word.values())) if len(by_word) == 1 else frozenset[str]()
    return by_word.get(word, only)


# ---- records of Parquet


def _records(file: SourceFile, wanted: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    scan = pl.scan_parquet(file.path, glob=False, hive_partitioning=False).with_row_index(":row", 1)
    rows = scan.filter(pl.col(":row").is_in([*wanted])).collect()
    specs = {spec.type_name: spec for spec in all_specs()}
    for record in pl.DataFrame([_plain(column) for column in rows]).iter_rows(named=True):
        spec = specs.get(str(_text_or_bytes(record.get("identifier"))).partition("/")[0])
        fields: Mapping[str, pl.DataType] = {} if spec is None else spec.fields
        yield record.pop(":row"), {name: _as_json(value, fields.get(name)) for name, value in record.items()}


def _plain(column: pl.Series) -> pl.Series:
    """Return a column whose values Python holds: of instants, those that are none of its own as text."""
    if not isinstance(column.dtype, (pl.Datetime, pl.Date)):
        return column
    if not are_of_calendar(column):
        return shown_instants(column)
    is_zoned = isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None
    return column.dt.convert_time_zone("UTC") if is_zoned else column  # another zone's years may be others


def _text_or_bytes(value: Any) -> Any:
    """Return the text that bytes are in UTF-8; others stay what no field takes, so that they are rejected again."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": value.hex()}


def _as_json(value: Any, wanted: pl.DataType | None) -> Any:
    """Return a value in the JSON form of its field's type, so that it can be loaded from there."""
    match value, wanted:
        case bytes(), pl.Binary():
            return base64.b64encode(value).decode()
        case bytes(), _:
            return _text_or_bytes(value)
        case float(), _ if math.isnan(value):
            return None
        case float(), pl.Int64() if value.is_integer():
            return int(value)
        case Decimal(), pl.Float64():
            return float(value)
        case list(), pl.List():
            return [_as_json(item, instance(wanted.inner)) for item in value]
        case dict(), pl.Struct():
            inner = {field.name: instance(field.dtype) for field in wanted.fields}
            return {name: _as_json(item, inner.get(name)) for name, item in value.items()}
        case ((datetime() | date()), _):
            return value.isoformat()
    return value
