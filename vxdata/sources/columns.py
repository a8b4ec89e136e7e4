"""Columns of files in the types of a table: a value that has no place there is named, and nothing is guessed."""

from collections.abc import Callable

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import InvalidInputError
from vxdata.schemas.columns import INSTANT
from vxdata.schemas.fits import fits
from vxdata.schemas.instant import END, FIRST
from vxdata.sources.cells import TextRules, expectation, parse_cells


def typed_column(
    file: str, spec: TableSpec, cells: pl.Series, wanted: pl.DataType, parse: bool, text: TextRules
) -> tuple[pl.Series, str]:
    """Return the values of a column, and what a cell has to be whose value is null though it is not.

    Args:
        file: its name, for messages.
        spec: the table.
        cells: the column as the file has it.
        wanted: the table's type.
        parse: whether text stands for values of other types, as in a CSV file.
        text: how the text of cells is read.

    Raises:
        InvalidInputError: its type fits none of the table, or it holds what cannot be read at all.
    """
    if cells.dtype == pl.String and (parse or isinstance(wanted, (pl.Datetime, pl.Date, pl.Decimal, pl.Binary))):
        values = parse_cells(cells, wanted, text)
        return (values, expectation(wanted, text)) if wanted != pl.String else (values, "")
    if wanted == pl.Int64() and cells.dtype.is_float():
        return _readable(file, spec, cells, wanted, _whole_numbers), "is no whole number of 64 bits"
    if wanted == pl.String() and cells.dtype == pl.Binary:
        return to_text(cells), "is no text in UTF-8"
    if not fits(cells.dtype, wanted):
        raise InvalidInputError(
            f"{file}: the column {cells.name!r} is of {cells.dtype}, but {spec.namespace}.{cells.name} of {wanted}. "
            "Write it with that type; nothing is guessed from another one."
        )
    match wanted:
        case pl.Datetime():
            return _readable(file, spec, cells, wanted, _instants), "is no instant of the years 1 to 9999"
        case pl.Int64():
            return cells.cast(wanted, strict=False), "is no whole number of 64 bits"
        case pl.List() | pl.Struct():
            return _readable(file, spec, cells, wanted, lambda nested: nested.cast(wanted)), ""
    return _readable(file, spec, cells, wanted, lambda plain: plain.cast(wanted, strict=False)), f"is no {wanted}"


def to_text(cells: pl.Series) -> pl.Series:
    """Return cells as text; bytes that are no UTF-8 are null."""
    if cells.dtype != pl.Binary:
        return cells.cast(pl.String, strict=False)
    try:
        return cells.cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series(cells.name, map(_decoded, cells), dtype=pl.String)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def are_of_calendar(values: pl.Series) -> bool:
    """Whether dates and times all lie in the years 1 to 9999."""
    return _in_range(values).null_count() == values.null_count()


def shown_instants(values: pl.Series) -> pl.Series:
    """Return dates and times as text; those beyond the years 1 to 9999 as the number that they are stored as."""
    unit = values.dtype.time_unit if isinstance(values.dtype, pl.Datetime) else "days"
    stored = values.to_physical().cast(pl.String) + f" {unit} since 1970-01-01"
    return _in_range(values).cast(values.dtype).cast(pl.String).fill_null(stored)


def _whole_numbers(cells: pl.Series) -> pl.Series:
    whole = cells.cast(pl.Int64, strict=False)
    is_whole = (whole.cast(cells.dtype) == cells).fill_null(False)
    return whole.zip_with(is_whole, pl.Series([None], dtype=pl.Int64))


def _instants(cells: pl.Series) -> pl.Series:
    values = _in_range(cells)
    is_naive = isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None
    return values.dt.replace_time_zone("UTC") if is_naive else values.cast(INSTANT)


def _in_range(values: pl.Series) -> pl.Series:
    """Return dates and times in microseconds; null where they lie beyond the years 1 to 9999."""
    zone = values.dtype.time_zone if isinstance(values.dtype, pl.Datetime) else None
    found = values.cast(pl.Datetime("us", zone), strict=False)
    count = found.to_physical()
    is_right = ((count >= FIRST) & (count < END)).fill_null(False)
    return found if is_right.all() else found.zip_with(is_right, pl.Series([None], dtype=found.dtype))


def _readable(
    file: str, spec: TableSpec, cells: pl.Series, wanted: pl.DataType, read: Callable[[pl.Series], pl.Series]
) -> pl.Series:
    """Return what reading a column gives.

    Raises:
        InvalidInputError: it cannot be read.
    """
    try:
        return read(cells)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(
            f"{file}: the column {cells.name!r} of {cells.dtype} cannot be read as {spec.namespace}.{cells.name}, "
            f"{wanted}: {words}"
        ) from error
