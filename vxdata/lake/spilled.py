"""Planned rows that exceed memory: kept in files of this machine until their commit writes them to the lake."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.lake.datafile import FILE_ROWS, SORT_COLUMNS
from vxdata.lake.scratch import read_kept


@dataclass(frozen=True)
class SpilledRows:
    """Physical rows of one table in temporary files.

    Attributes:
        slices: the rows, by ascending and disjoint ranges of identifiers.
        counts: how many resources they create, update and delete.
    """

    slices: tuple[pl.LazyFrame, ...]
    counts: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not any(self.counts.values())

    def parts(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Return the rows of each data file, with its partition: as if all slices were one frame."""
        held = self._partitions()
        for datasource_id in held[PARTITION_COLUMN].unique().sort():
            here = held.filter(pl.col(PARTITION_COLUMN) == datasource_id)["slice"].sort()
            for part in _full(_of_partition(self.slices[position], datasource_id) for position in here):
                yield datasource_id, part

    def _partitions(self) -> pl.DataFrame:
        """Return which slices have rows of which partition."""
        found = (
            read_kept(rows.select(pl.col(PARTITION_COLUMN).unique())).with_columns(slice=pl.lit(position, pl.Int64))
            for position, rows in enumerate(self.slices)
        )
        return pl.concat(found)


def _of_partition(rows: pl.LazyFrame, datasource_id: str) -> pl.DataFrame:
    mine = rows.filter(pl.col(PARTITION_COLUMN) == pl.lit(datasource_id)).drop(PARTITION_COLUMN)
    return read_kept(mine).sort(SORT_COLUMNS)


def _full(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Cut frames, one after another, into frames of a full file and a last one."""
    rest: list[pl.DataFrame] = []
    for frame in frames:
        rest.append(frame)
        while sum(part.height for part in rest) >= FILE_ROWS:
            together = pl.concat(rest)
            yield together.head(FILE_ROWS)
            rest = [together.slice(FILE_ROWS)]
    if any(part.height for part in rest):
        yield pl.concat(rest)
