"""Which types of a frame's columns stand for a table's type as they are; nothing is guessed from text."""

from typing import Any

import polars as pl


def fits(dtype: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether the values of a type are values of a table's type."""
    if dtype == wanted or isinstance(dtype, pl.Null):
        return True
    match wanted:
        case pl.Float64():
            return dtype.is_numeric()
        case pl.Int64():
            return dtype.is_integer()
        case pl.String():
            return isinstance(dtype, (pl.Categorical, pl.Enum))
        case pl.Datetime():
            return isinstance(dtype, (pl.Datetime, pl.Date))
        case pl.Decimal():
            return dtype.is_integer() or dtype.is_decimal()
        case pl.List():
            return isinstance(dtype, (pl.List, pl.Array)) and fits(instance(dtype.inner), instance(wanted.inner))
        case pl.Struct():
            return isinstance(dtype, pl.Struct) and _fields_fit(dtype, wanted)
    return False


def _fields_fit(dtype: pl.Struct, wanted: pl.Struct) -> bool:
    known = {field.name: instance(field.dtype) for field in wanted.fields}
    return all(field.name in known and fits(instance(field.dtype), known[field.name]) for field in dtype.fields)


def instance(dtype: Any) -> pl.DataType:
    """Return an inner type as an instance; Polars types them as class or instance."""
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found
