"""Parquet: columns that have types of their own, read in batches of whole row groups."""

from collections.abc import Iterator

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.sources.records import (
    REJECT_COLUMNS,
    ROW,
    Batch,
    SourceFile,
    faults_at,
    ignored_columns,
    no_faults,
)

BATCH_ROWS = 2_000_000
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The first day of the year 1 and the last one of the year 9999, counted from 1970-01-01."""
_PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def read_parquet(file: SourceFile) -> Iterator[Batch]:
    """Read a file in batches.

    Raises:
        InvalidInputError: it is damaged, or no Parquet file.
    """
    try:
        scan = pl.scan_parquet(file.path, glob=False, hive_partitioning=False)
        height = scan.select(pl.len()).collect().item()
        for start in range(0, max(height, 1), BATCH_ROWS):
            rows = scan.slice(start, BATCH_ROWS).collect(engine="in-memory")
            places = pl.int_range(start + 1, start + 1 + rows.height, eager=True).alias(ROW)
            if ROW in rows.columns:
                raise InvalidInputError(f"{file.name}: no type has a field {ROW!r}.")
            yield _checked(rows.insert_column(0, places))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(f"{file.name} cannot be read as Parquet: {words}. Copy or write it again.") from error


def _checked(rows: pl.DataFrame) -> Batch:
    """Return rows as a batch; an instant that is none of the calendar's, and a NUL byte, are faults of their rows."""
    ignored, faults = ignored_columns(rows.columns), [no_faults()]
    for name in rows.columns[1:]:
        values = rows[name]
        if name in REJECT_COLUMNS or name in ignored:
            continue
        if isinstance(values.dtype, (pl.Datetime, pl.Date)):
            is_outside = _is_outside(values)
            if is_outside.any():
                faults.append(_outside(rows, is_outside, values))
                rows = rows.with_columns(values.zip_with(~is_outside, pl.Series([None], dtype=values.dtype)))
        else:
            faults.append(faults_at(rows, _has_nul(values), name, f"{name} holds a NUL byte"))
    return Batch(rows, pl.concat(faults), ignored=ignored)


def _is_outside(values: pl.Series) -> pl.Series:
    """Return which instants are none of the years 1 to 9999: to convert one may fail for the whole column."""
    per_day = _PER_DAY[values.dtype.time_unit] if isinstance(values.dtype, pl.Datetime) else 1
    days = values.to_physical().cast(pl.Int64) // per_day
    return ~days.is_between(_FIRST_DAY, _LAST_DAY).fill_null(True)


def _outside(rows: pl.DataFrame, is_outside: pl.Series, values: pl.Series) -> pl.DataFrame:
    unit = values.dtype.time_unit if isinstance(values.dtype, pl.Datetime) else "days"
    count = values.filter(is_outside).to_physical().cast(pl.String)
    return rows.filter(is_outside).select(
        ROW,
        pl.lit(values.name).alias("field"),
        (count + f" {unit} since 1970-01-01").alias("value"),
        pl.lit(f"{values.name} is no instant of the years 1 to 9999").alias("reason"),
    )


def _has_nul(values: pl.Series) -> pl.Series:
    is_nul = pl.element().str.contains("\0", literal=True)
    match values.dtype:
        case pl.String():
            found = values.str.contains("\0", literal=True)
        case pl.List(inner=pl.String()):
            found = values.list.eval(is_nul).list.any()
        case _:
            found = pl.repeat(False, len(values), eager=True)
    return found.fill_null(False)
