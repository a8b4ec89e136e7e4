"""The text of cells as typed values: what a CSV file, or a person at the command line, writes as text.

Nothing is guessed. A form that could mean two things (``03/04/2024``, ``1.234`` beside decimal commas) is no value
until the caller names it. Column-wise; a cell that is not null and whose value is null cannot be read.

Source: ISO 8601; DICOM PS3.5, section 6.2 (DA, DT).
"""

import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.schemas.columns import INSTANT


@dataclass(frozen=True)
class TextRules:
    """How the text of cells is read.

    Attributes:
        decimal_comma: numbers are written ``3,5``; a point in one is then refused, since it may group thousands.
        date_formats: the forms of dates and times, as `strptime` takes them, instead of those that are certain.
        nulls: words that stand for null, beside an empty cell.
    """

    decimal_comma: bool = False
    date_formats: tuple[str, ...] = ()
    nulls: tuple[str, ...] = ()


def parse_cells(cells: pl.Series, wanted: pl.DataType, rules: TextRules) -> pl.Series:
    """Return the values of text cells; a cell that cannot be read has the value null.

    Args:
        cells: text; null where a cell is empty. A quoted empty cell, ``""``, is empty text, and null for other types.
        wanted: the type of the column.
        rules: how text is read.

    Raises:
        InvalidInputError: the type has no form as text.
    """
    match wanted:
        case pl.String():
            return cells
        case pl.Float64():
            return _floats(_stripped(cells), rules)
        case pl.Int64():
            return _integers(_stripped(cells), rules)
        case pl.Binary():
            return _stripped(cells).str.decode("base64", strict=False)
        case pl.Boolean():
            words = _stripped(cells).str.to_lowercase()
            return words.replace_strict(_WORDS, default=None, return_dtype=pl.Boolean)
        case pl.Datetime():
            return _instants(_stripped(cells), rules.date_formats)
        case pl.Date():
            instants = _instants(_stripped(cells), rules.date_formats)
            days = instants.dt.truncate("1d")
            return _where(instants == days, days).cast(pl.Date)
        case pl.Decimal():
            return _decimals(_stripped(cells), wanted, rules)
        case pl.List() | pl.Struct():
            return _documents(_stripped(cells), wanted)
    raise InvalidInputError(f"{cells.name!r}: a column of {wanted} has no form as text; load it from Parquet.")


def is_unread(cells: pl.Series, values: pl.Series) -> pl.Series:
    """Return which cells hold something that could not be read."""
    if cells.dtype == pl.String and values.dtype != pl.String:
        return values.is_null() & (cells.str.strip_chars() != "").fill_null(False)
    return values.is_null() & cells.is_not_null()


def expectation(wanted: pl.DataType, rules: TextRules) -> str:
    """Return what a cell of a column has to be, for the reason why one is refused."""
    match wanted:
        case pl.Float64() | pl.Decimal() if rules.decimal_comma:
            return "is no number with a decimal comma (a point is refused, since it may group thousands)"
        case pl.Float64():
            return "is no number; if its comma is a decimal one, say so (--decimal-comma)"
        case pl.Int64():
            return "is no whole number of 64 bits"
        case pl.Boolean():
            return f"is neither true nor false; {', '.join(_WORDS)} are read"
        case pl.Datetime() | pl.Date() if rules.date_formats:
            return f"is no date of the years 1 to 9999 of the form {' or '.join(map(repr, rules.date_formats))}"
        case pl.Datetime() | pl.Date():
            return (
                "is no date that is certain, of the years 1 to 9999: ISO 8601, YYYYMMDD and DD.MM.YYYY are read; name "
                "another form (--date-format '%d/%m/%Y')"
            )
        case pl.Decimal():
            return f"is no number with {wanted.scale} decimal places at most"
        case pl.Binary():
            return "is no base64, as bytes are written in text"
    return f"is no JSON for {wanted}"


_WORDS = {
    **dict.fromkeys(("true", "yes", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "f", "n", "0"), False),
}
_POINT = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NO_NUMBER = r"^(?:(?i)nan|[+-]?inf(?:inity)?)$"


def _stripped(cells: pl.Series) -> pl.Series:
    return cells.str.strip_chars()


def _where(holds: pl.Series, values: pl.Series) -> pl.Series:
    """Return the values where something holds, else null."""
    if holds.all():
        return values
    return values.zip_with(holds.fill_null(False), pl.Series([None], dtype=values.dtype))


def _with_point(cells: pl.Series, rules: TextRules) -> pl.Series:
    """Return numbers with a decimal point; null where a cell mixes both."""
    if not rules.decimal_comma:
        return cells
    return _where(~cells.str.contains(".", literal=True), cells.str.replace(",", ".", literal=True))


def _floats(cells: pl.Series, rules: TextRules) -> pl.Series:
    text = _with_point(cells, rules)
    values, is_number = text.cast(pl.Float64, strict=False), text.str.contains(_POINT)
    return _where((is_number & values.is_finite()) | text.str.contains(_NO_NUMBER), values)


def _integers(cells: pl.Series, rules: TextRules) -> pl.Series:
    """Read whole numbers; ``3.0`` is one, as tools write them that keep whole numbers with nulls as floats."""
    text = _with_point(cells, rules)
    is_whole = text.str.contains(r"^[+-]?[0-9]+(?:\.0*)?$")
    return _where(is_whole, text.str.replace(r"\.0*$", "")).cast(pl.Int64, strict=False)


def _decimals(cells: pl.Series, wanted: pl.Decimal, rules: TextRules) -> pl.Series:
    text = _with_point(cells, rules)
    fits = text.str.contains(rf"^[+-]?[0-9]+(?:\.[0-9]{{0,{wanted.scale}}}0*)?$")
    return _where(fits, text).cast(wanted, strict=False)


_CERTAIN = (
    (r"^\d{4}-\d\d-\d\d$", "%Y-%m-%d"),
    (r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)$", "%Y-%m-%dT%H:%M:%S%.f%#z"),
    (r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[0-5]\d(?:\.\d{1,9})?$", "%Y-%m-%dT%H:%M:%S%.f"),
    (r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d$", "%Y-%m-%dT%H:%M"),
    (r"^\d{8}$", "%Y%m%d"),
    (r"^\d{12}[0-5]\d(?:\.\d{1,6})?$", "%Y%m%d%H%M%S%.f"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4}$", "%d.%m.%Y"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4} \d\d:\d\d:[0-5]\d$", "%d.%m.%Y %H:%M:%S"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4} \d\d:\d\d$", "%d.%m.%Y %H:%M"),
)
"""Forms that can mean one thing only."""
_SECOND_60 = r"\d:60(?:\D|$)"
"""A leap second, which the parser reads as the next minute."""
_TWO_DIGITS = {"%y", "%D", "%x"}
"""What names a year without its century."""


def _instants(cells: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    forms = tuple((r"\d{4}" if "%Y" in form else "", form) for form in formats) or _CERTAIN
    found = pl.Series(cells.name, [None], dtype=INSTANT).new_from_index(0, len(cells))
    for pattern, form in forms:
        is_next = (found.is_null() & cells.str.contains(pattern)).fill_null(False)
        if is_next.any():
            if formats:
                is_next &= ~cells.str.contains(_SECOND_60).fill_null(False)
            text = cells.zip_with(is_next, pl.Series([None], dtype=pl.String))
            parsed = _to_instants(text.str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T") if "T" in form else text, form)
            if _TWO_DIGITS.intersection(re.findall("%.", form)):  # 69 is 2069 to this parser, and 1969 to others
                parsed = _where(parsed <= datetime.now(UTC) + timedelta(days=1), parsed)
            found = parsed if is_next.all() else found.zip_with(~is_next, parsed)
    return _where(found.dt.year().is_between(1, 9999).fill_null(False), found)


def _to_instants(text: pl.Series, form: str) -> pl.Series:
    try:
        return text.str.strptime(INSTANT, form, strict=False)
    except pl.exceptions.PolarsError as error:
        raise InvalidInputError(f"{form!r} is no form of dates: {str(error).splitlines()[0]}") from error


def check_date_form(form: str) -> str:
    """Return a form of dates if it names year, month and day, and is one.

    Raises:
        InvalidInputError: it does not.
    """
    sample = datetime(2023, 11, 22, 13, 14, 15, 123456, UTC)
    text, read = sample.strftime(form.replace("%.f", ".%f")), form.replace("%.f", ".%f").replace("%f", "%6f")
    read = read.replace(".%6f", "%.f")  # Python's %f is a fraction of any length; chrono's counts nanoseconds
    found = _to_instants(pl.Series([text]), read).item()
    if found is None or found.date() != sample.date() or ("f" in read and found.microsecond != sample.microsecond):
        raise InvalidInputError(f"date format {form!r}: year, month and day are expected, such as '%d/%m/%Y'.")
    return read


def _documents(cells: pl.Series, wanted: pl.DataType) -> pl.Series:
    return pl.Series(cells.name, [_document(cell, wanted) for cell in cells], dtype=wanted)


def _document(cell: str | None, wanted: pl.DataType) -> Any:
    if cell is None:
        return None
    try:
        value = parse_json(cell)
        return value if holds(value, wanted) else None
    except ValueError:
        return None


def is_utf8(text: bytes) -> bool:
    """Whether all of a text is UTF-8: ten times as fast as to decode it."""
    import pyarrow as pa

    ends = pa.py_buffer(struct.pack("=qq", 0, len(text)))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(text)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def parse_json(text: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value of a JSON document; a number that fits into no 64 bits is a Decimal, which no column holds.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook, parse_float=_float, parse_int=_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of some keys and values, each key once; for `parse_json`.

    Raises:
        ValueError: a key occurs twice.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice")
        found[key] = value
    return found


def _float(text: str) -> float | Decimal:
    value = float(text)
    return value if math.isfinite(value) else Decimal(text)


def _int(text: str) -> int | Decimal:
    return int(text) if len(text) <= sys.float_info.max_10_exp + 2 else Decimal(text)


_LARGEST = int(sys.float_info.max)


def holds(value: Any, wanted: pl.DataType) -> bool:
    """Whether a value of a JSON document is one of a column's type; nothing is converted, and null is one of any."""
    if value is None:
        return True
    match wanted:
        case pl.List():
            return isinstance(value, list) and all(holds(item, _instance(wanted.inner)) for item in value)
        case pl.Struct():
            known = {field.name: _instance(field.dtype) for field in wanted.fields}
            return isinstance(value, dict) and all(k in known and holds(v, known[k]) for k, v in value.items())
        case pl.Float64():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and (isinstance(value, float) or abs(value) <= _LARGEST)
        case pl.Int64():
            return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        case pl.Boolean():
            return isinstance(value, bool)
    return isinstance(value, str) and isinstance(wanted, pl.String) and _is_unicode(value) and not has_nul(value)


def has_nul(value: Any) -> bool:
    """Whether a text in a value of a JSON document holds a NUL byte, which no other reader of a lake expects."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text if "\0" in text:
                return True
            case list() as items:
                rest += items
            case dict() as fields:
                rest += fields.values()
    return False


def _is_unicode(value: str) -> bool:
    """Whether a text has an encoding: JSON can write half of a surrogate pair, which has none."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _instance(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found
