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
    """Return rows as a batch; a NUL byte is a fault of its row."""
    ignored = ignored_columns(rows.columns)
    texts = [name for name in rows.columns[1:] if name not in REJECT_COLUMNS and name not in ignored]
    faults = [faults_at(rows, _has_nul(rows[name]), name, f"{name} holds a NUL byte") for name in texts]
    return Batch(rows, pl.concat([no_faults(), *faults]), ignored=ignored)


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
