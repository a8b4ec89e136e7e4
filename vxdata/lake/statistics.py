"""Delta statistics of a data file: row count, null counts, minima and maxima of the scalar columns.

They are bounds, never values: payload strings are cut at 64 characters (the maximum rounded up), instants are widened
to milliseconds, and a column whose bounds JSON cannot hold (infinities) gets none. The protocol's own string columns
keep their full length, because identifiers often share long beginnings.

Source: Delta protocol, "Per-file Statistics"; design of record, section 5 (files).
"""

import json
import math
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from vxdata.schemas.registry import STANDARD_COLUMNS

TEXT_BOUND = 64
"""So many characters of a payload's text stand in statistics at most."""

_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_BOUNDED = (pl.String, pl.Int64, pl.Float64, pl.Date, pl.Datetime, pl.Decimal)


def file_statistics(frame: pl.DataFrame) -> str:
    """Return the `stats` text of an add action for a file with these rows.

    Args:
        frame: the rows as written, without the partition column.
    """
    bounded = [name for name, dtype in frame.schema.items() if isinstance(dtype, _BOUNDED)]
    low, high = (row_of(frame, bounded, f) for f in (pl.Expr.min, pl.Expr.max))
    counted = [name for name, dtype in frame.schema.items() if not isinstance(dtype, pl.Struct)]
    bounds = {name: _bounds(name, low[name], high[name]) for name in bounded}
    return json.dumps(
        {
            "numRecords": frame.height,
            "minValues": {name: b[0] for name, b in bounds.items() if b is not None},
            "maxValues": {name: b[1] for name, b in bounds.items() if b is not None and b[1] is not None},
            "nullCount": row_of(frame, counted, pl.Expr.null_count),
        },
        ensure_ascii=False,
    )


def row_of(frame: pl.DataFrame, columns: Iterable[str], aggregate: Any) -> dict[str, Any]:
    """Return one aggregate of several columns as a mapping."""
    names = list(columns)
    return frame.select(aggregate(pl.col(name)) for name in names).row(0, named=True) if names else {}


def _bounds(name: str, low: Any, high: Any) -> tuple[Any, Any] | None:
    """Return the JSON values of a column's bounds; None where it has none."""
    if low is None or (isinstance(low, float) and not (math.isfinite(low) and math.isfinite(high))):
        return None
    if isinstance(low, str):
        return (low, high) if name in STANDARD_COLUMNS else (low[:TEXT_BOUND], _cut_up(high))
    if isinstance(low, datetime):
        return _milliseconds(low), _milliseconds_up(high)
    if isinstance(low, date):
        return low.isoformat(), high.isoformat()
    if isinstance(low, Decimal):
        bounds = float(low), float(high)
        return bounds if (Decimal(bounds[0]), Decimal(bounds[1])) == (low, high) else None
    return low, high


def _milliseconds(instant: datetime) -> str:
    return instant.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _milliseconds_up(instant: datetime) -> str | None:
    try:
        return _milliseconds(instant + timedelta(microseconds=-instant.microsecond % 1000))
    except OverflowError:  # the last millisecond of year 9999
        return None


def _cut_up(text: str) -> str | None:
    """Return a short text that is not less than the given one; None if there is none."""
    if len(text) <= TEXT_BOUND:
        return text
    for end in range(TEXT_BOUND, 0, -1):
        following = ord(text[end - 1]) + 1
        following = _SURROGATES.stop if following in _SURROGATES else following
        if following <= _LAST_CODE_POINT:
            return text[: end - 1] + chr(following)
    return None
