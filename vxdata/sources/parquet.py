"""Parquet: columns that have types of their own, read in batches of whole row groups."""

from collections.abc import Iterator

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.sources.records import ROW, Batch, SourceFile, ignored_columns, no_faults

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
            yield Batch(rows.insert_column(0, places), no_faults(), ignored=ignored_columns(rows.columns))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInputError(f"{file.name} cannot be read as Parquet: {words}. Copy or write it again.") from error
