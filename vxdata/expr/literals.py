"""Literals: a Python value as a column's type sees it, or an error that says what fits."""

import math
import re
from collections.abc import Collection
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.schemas.instant import to_instant

_MOST_DIGITS = 38
_INT64 = range(-(2**63), 2**63)
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_literal(column: str, dtype: pl.DataType, value: Any) -> Any:
    """Return a value as the column's type sees it.

    Args:
        column: the column's name, for the message.
        dtype: its type.
        value: the caller's value, not None.

    Raises:
        InvalidInputError: the value is of a type that this column never equals.
    """
    if isinstance(value, Enum):
        value = value.value
    match dtype:
        case pl.String() if isinstance(value, str):
            return _text(column, value)
        case pl.Boolean() if isinstance(value, bool):
            return value
        case pl.Int64() | pl.Float64() if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _number(column, value)
        case pl.Decimal() if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            return _decimal(column, dtype, value)
        case pl.Datetime() if isinstance(value, (str, date)):
            return _instant(column, value)
        case pl.Date() if isinstance(value, (str, date)) and not isinstance(value, datetime):
            return _date(column, value)
        case pl.Binary() if isinstance(value, bytes):
            return value
    raise InvalidInputError(
        f"F.{column} is {_WORDS.get(type(dtype), str(dtype))}: {value!r} ({type(value).__name__}) does not compare "
        "with it."
    )


def to_literals(column: str, dtype: pl.DataType, values: Collection[Any]) -> list[Any]:
    """Return values as the column's type sees them, each once; None among them is left out.

    A long list of plain texts or ints is vetted as a whole: value by value 80,000 of them take 40 ms.

    Raises:
        InvalidInputError: a value is of a type that this column never equals.
    """
    given = [value for value in values if value is not None]
    plain = _is_plain(dtype, given)
    return list(dict.fromkeys(given if plain else (to_literal(column, dtype, value) for value in given)))


def _is_plain(dtype: pl.DataType, values: Collection[Any]) -> bool:
    """Whether nothing has to be checked or changed value by value."""
    types = set(map(type, values))
    if isinstance(dtype, pl.String) and types == {str}:
        text = "".join(values)
        return text.isascii() or not _SURROGATE.search(text)
    return (
        isinstance(dtype, (pl.Int64, pl.Float64)) and types == {int} and min(values) in _INT64 and max(values) in _INT64
    )


_WORDS: dict[Any, str] = {
    pl.String: "a text",
    pl.Boolean: "a bool",
    pl.Int64: "an int",
    pl.Float64: "a float",
    pl.Datetime: "an instant (an ISO string, a date or a datetime)",
    pl.Date: "a date",
    pl.List: "a list (use .contains or .contains_any)",
    pl.Struct: "a nested model (use .is_null or .is_not_null, and Polars for the rest)",
}


def _text(column: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"F.{column}: {value!r} holds half a character (a lone surrogate).") from None
    return value


def _decimal(column: str, dtype: pl.Decimal, value: Any) -> Decimal | float:
    """Return the exact number, or a float where it is out of the reach of all decimal columns."""
    found = Decimal(str(value))
    if found.is_nan():
        raise InvalidInputError(f"F.{column}: NaN equals nothing; write .is_null().")
    if found.is_infinite():
        return float(found)
    exponent = int(found.as_tuple().exponent)
    whole = max(len(found.as_tuple().digits) + exponent, (dtype.precision or _MOST_DIGITS) - dtype.scale)
    return found if whole + max(-exponent, dtype.scale) <= _MOST_DIGITS else float(found)


def _number(column: str, value: float) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            raise InvalidInputError(f"F.{column}: NaN equals nothing; NaN is stored as null, so write .is_null().")
        return value
    if isinstance(value, int) and value not in _INT64:
        raise InvalidInputError(f"F.{column}: {value} does not fit into 64 bits.")
    return value


def _instant(column: str, value: str | date) -> datetime:
    try:
        found: datetime = to_instant(value)
    except ValueError:
        raise InvalidInputError(
            f"F.{column}: {value!r} is no instant; an ISO string such as '2024-01-31' or '2024-01-31T12:00:00+01:00' "
            "is expected."
        ) from None
    return found


def _date(column: str, value: str | date) -> date:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise InvalidInputError(f"F.{column}: {value!r} is no date; 'YYYY-MM-DD' is expected.") from None
