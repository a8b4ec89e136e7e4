"""Literals: a Python value as a column's type sees it, or an error that says what fits."""

import math
import re
from collections.abc import Collection, Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.schemas.instant import is_no_time, to_instant

_MOST_DIGITS = 38
_MOST_BITS = 1_000
"""Longer numbers are not written out; Python refuses to from some thousand digits on."""

_INT64 = range(-(2**63), 2**63)
_EXACT_FLOATS = range(-(2**53), 2**53 + 1)
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
    if type(value).__module__ == "numpy":
        value = _of_numpy(value)
    if value is None or is_no_time(value):  # numpy's NaT has become None
        raise InvalidInputError(f"F.{column}: NaT equals nothing; NaT is stored as null, so write .is_null().")
    match dtype:
        case pl.String() if isinstance(value, str):
            return _text(column, value)
        case pl.Boolean() if isinstance(value, bool):
            return value
        case pl.Int64() | pl.Float64() if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _number(column, dtype, value)
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


def _of_numpy(value: Any) -> Any:
    """Return a scalar, as quantiles and means are, as Python has it; an array stays one, and so does a duration."""
    import numpy as np

    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.timedelta64) else value


class Literals(tuple[Any, ...]):
    """Literals that are hashed and sorted once: a plan asks for both more than once, and 80,000 texts take 20 ms."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Literals, (tuple(self),)  # a hash of texts holds in one process only

    @cached_property
    def _ordered(self) -> dict[str, pl.Series]:
        return {}

    def ordered(self, dtype: pl.DataType) -> pl.Series:
        """Return them sorted, as a series of a type that holds them; a float out of the reach of decimals is left out.

        Args:
            dtype: as `common_type` tells it.
        """
        key = str(dtype)
        if key not in self._ordered:
            self._ordered[key] = _to_series(self, dtype).sort(multithreaded=False)
        return self._ordered[key]


def _to_series(values: Iterable[Any], dtype: pl.DataType) -> pl.Series:
    match dtype:
        case pl.Decimal():
            exact = pl.Series([value for value in values if isinstance(value, Decimal)], dtype=dtype)
            return exact.drop_nulls()  # what does not fit became null, and equals no value of the column
        case pl.Float64():
            return pl.Series([float(value) for value in values], dtype=dtype)
    return pl.Series(values, dtype=dtype)


def common_type(values: Collection[Any], dtype: pl.DataType) -> pl.DataType:
    """Return the type in which a column compares with literals: an int and a float as floats, decimals exactly."""
    if isinstance(dtype, pl.Decimal):
        return wide_decimal(dtype, [value for value in values if isinstance(value, Decimal)])
    if isinstance(dtype, pl.Int64) and any(isinstance(value, float) for value in values):
        return pl.Float64()
    return dtype


def wide_decimal(dtype: pl.DataType, values: Iterable[Decimal]) -> pl.Decimal:
    """Return a decimal type that holds both the column's values and the literals exactly."""
    scale = dtype.scale if isinstance(dtype, pl.Decimal) else 0
    return pl.Decimal(_MOST_DIGITS, max([scale, *(-int(value.as_tuple().exponent) for value in values)]))


def to_literals(column: str, dtype: pl.DataType, values: Collection[Any]) -> Literals:
    """Return values as the column's type sees them, each once; None among them is left out.

    Beside others so is a float that no int or decimal equals: a column that is compared as floats for its sake would
    equal its neighbours, too. A long list of plain texts or ints is vetted as a whole: value by value 80,000 of them
    take 40 ms.

    Raises:
        InvalidInputError: a value is of a type that this column never equals.
    """
    types = set(map(type, values))
    given = [value for value in values if value is not None] if NoneType in types else values
    if _is_plain(dtype, given, types - {NoneType}):
        return Literals(dict.fromkeys(given))
    literals = Literals(dict.fromkeys(to_literal(column, dtype, value) for value in given))
    exact = (value for value in literals if not isinstance(value, float))
    return (isinstance(dtype, (pl.Int64, pl.Decimal)) and Literals(exact)) or literals


def _is_plain(dtype: pl.DataType, values: Collection[Any], types: set[type]) -> bool:
    """Whether nothing has to be checked or changed value by value, of values of these types."""
    if isinstance(dtype, pl.String) and types == {str}:
        text = "".join(values)
        return text.isascii() or not _SURROGATE.search(text)
    exact = _EXACT_FLOATS if isinstance(dtype, pl.Float64) else _INT64
    is_number = isinstance(dtype, (pl.Int64, pl.Float64)) and types == {int}
    return is_number and min(values) in exact and max(values) in exact


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
    """Return a text that UTF-8 holds."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"F.{column}: {value!r} holds half a character (a lone surrogate).") from None
    return value


def _decimal(column: str, dtype: pl.Decimal, value: Any) -> Decimal | float:
    """Return the exact number, or a float where it is out of the reach of all decimal columns."""
    found = Decimal(str(value) if isinstance(value, float) else value)
    if found.is_nan():
        raise InvalidInputError(f"F.{column}: NaN equals nothing; write .is_null().")
    if found.is_infinite():
        return float(found)
    exponent = int(found.as_tuple().exponent)
    whole = max(len(found.as_tuple().digits) + exponent, (dtype.precision or _MOST_DIGITS) - dtype.scale)
    return found if whole + max(-exponent, dtype.scale) <= _MOST_DIGITS else float(found)


def _number(column: str, dtype: pl.DataType, value: float) -> float:
    """Return a number that compares with the column exactly: an int with ints, a float with floats, if there is one."""
    if isinstance(value, float) and math.isnan(value):
        raise InvalidInputError(f"F.{column}: NaN equals nothing; NaN is stored as null, so write .is_null().")
    if isinstance(dtype, pl.Int64):
        return _beside_ints(column, value)
    if isinstance(value, float) or value in _EXACT_FLOATS:
        return value
    try:
        return float(value)
    except OverflowError:
        raise InvalidInputError(f"F.{column}: {shown_number(value)} is beyond all floats.") from None


def _beside_ints(column: str, value: float) -> float:
    """Return an int for a whole number; an infinity for a float beyond all ints, which compares as it does."""
    if isinstance(value, float):
        if not math.isfinite(value) or not value.is_integer():
            return value
        whole = int(value)
        return whole if whole in _INT64 else math.copysign(math.inf, value)
    if value not in _INT64:
        raise InvalidInputError(
            f"F.{column}: {shown_number(value)} does not fit into 64 bits, as the field's values do; float('inf') is "
            "larger than all of them."
        )
    return value


def shown_number(value: int) -> str:
    """Return a whole number for a message; of one that is too long, how long it is."""
    return str(value) if value.bit_length() < _MOST_BITS else f"a number of {value.bit_length():,} bits"


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
