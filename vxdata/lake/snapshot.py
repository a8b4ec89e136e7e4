"""A snapshot: one version of one table as a frozen value, and the lazy scans over its files.

A `DeltaTable` handle moves when it is refreshed, so nothing that a user holds may depend on one. The snapshot keeps the
list of live files and their statistics; Polars skips files by them (decision 001).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN, TableSpec
from vxdata.lake import scd2
from vxdata.lake.faults import translated
from vxdata.lake.store import Store

NO_TABLE = -1
"""The version of a table that does not exist yet."""

ClosingsReader = Callable[["Snapshot"], pl.DataFrame]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One version of one table.

    Attributes:
        spec: the table's spec.
        store: where it lies.
        version: the Delta version; -1 if the table does not exist yet.
        table_id: the Delta table's own id, which tells it from another one made at the same place.
        columns: the physical columns and their types, those unknown to this SDK included.
        files: the live files: key, size, num_records, datasource_id, null_count, min, max.
        read_closings: returns the closings of the whole table, from the cache of closings per file.
    """

    spec: TableSpec
    store: Store
    version: int
    table_id: str
    columns: dict[str, pl.DataType]
    files: pl.DataFrame
    read_closings: ClosingsReader = field(repr=False)

    def file_url(self, key: str) -> str:
        """Return the address of a data file."""
        return self.store.url(f"{self.spec.namespace}/{key}")

    @cached_property
    def all_columns(self) -> dict[str, pl.DataType]:
        """The columns of a scan: those of the spec, and the physical ones that it does not know."""
        return {**self.spec.columns, **self.columns}

    @cached_property
    def statistics(self) -> pl.DataFrame:
        """The statistics of the live files, as Polars skips files by them."""
        return polars_statistics(self.files, self.all_columns)

    @cached_property
    def rows(self) -> pl.LazyFrame:
        """All physical rows, lazily; columns that the table lacks are null."""
        return self.rows_of(self.files)

    def rows_of(self, files: pl.DataFrame, path_column: str | None = None) -> pl.LazyFrame:
        """Return the physical rows of some of the live files, lazily.

        Args:
            files: rows of `files`.
            path_column: the name of a further column that holds the address of each row's file.
        """
        if files.is_empty():
            return pl.LazyFrame(schema=self.all_columns)
        return pl.scan_parquet(
            [self.file_url(key) for key in files["key"]],
            schema=self.all_columns,
            hive_schema={PARTITION_COLUMN: pl.String()},
            hive_partitioning=True,
            glob=False,
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths=path_column,
            _table_statistics=polars_statistics(files, self.all_columns),
            _source_sizes=files["size"].to_list(),
            **self.store.scan_options(),
        )

    @cached_property
    def closings(self) -> pl.LazyFrame | None:
        """The closings of the whole table; None if there are none, so that no join is needed."""
        found = self.read_closings(self)
        return None if found.is_empty() else found.lazy()

    @cached_property
    def closing_files(self) -> pl.DataFrame:
        """The files that may hold closings, by their null counts: none of a compacted table's files."""
        if "closes" not in self.files["null_count"].struct.fields:
            return self.files
        nulls = pl.col("null_count").struct.field("closes")
        return self.files.filter((nulls.fill_null(0) < pl.col("num_records")).fill_null(True))

    def current(self, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return the current versions that a filter keeps; the filter goes down to the files."""
        return scd2.current(self._filtered(where), self.closings)

    def as_of(self, instant: datetime, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return the versions seen at an instant that a filter keeps; the filter sees the physical `valid_to`."""
        return scd2.as_of(self._filtered(where), self.closings, instant)

    def versions(self, instant: datetime | None = None, where: pl.Expr | None = None) -> pl.LazyFrame:
        """Return all versions with their ends that a filter keeps; the filter sees the physical `valid_to`."""
        return scd2.versions(self._filtered(where), self.closings, instant)

    def _filtered(self, where: pl.Expr | None) -> pl.LazyFrame:
        return self.rows if where is None else self.rows.filter(where)

    def history_of(self, identifiers: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Return every physical row of some identifiers: their versions, closings and tombstones, in one scan."""
        wanted = pl.Series(identifiers, dtype=pl.String)
        keep = (
            pl.col("identifier").is_in(wanted.implode()) if len(wanted) > 1 else pl.col("identifier") == wanted.item()
        )
        return self.collect(self.rows.filter(keep))

    def current_of(self, identifiers: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Return the current physical rows of a few identifiers, in one scan that needs no other closings."""
        wanted = pl.Series(identifiers, dtype=pl.String)
        keep = (
            pl.col("identifier").is_in(wanted.implode()) if len(wanted) > 1 else pl.col("identifier") == wanted.item()
        )
        open_or_closing = pl.col("valid_to").is_null() | pl.col("closes").is_not_null()
        rows = self.collect(self.rows.filter(open_or_closing, keep)).lazy()
        return scd2.current(rows, scd2.closings_of(rows)).collect()

    def collect(self, plan: pl.LazyFrame) -> pl.DataFrame:
        """Collect a plan over this table, with the store's errors translated."""
        with translated(self.store.uri, f"read {self.spec.namespace} of"):
            return plan.collect()


def polars_statistics(files: pl.DataFrame, columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return the files' statistics as Polars skips files by them: `len`, and `_nc`, `_min`, `_max` for each column."""
    out = {"len": files["num_records"]}
    null_count, low, high = (files[name].struct for name in ("null_count", "min", "max"))
    for name, dtype in columns.items():
        if name in null_count.fields and not isinstance(dtype, pl.Struct):
            bounded = name in low.fields
            nothing = pl.Series([None], dtype=dtype).new_from_index(0, files.height)
            out[f"{name}_nc"] = null_count.field(name).cast(pl.UInt32)
            out[f"{name}_min"] = low.field(name) if bounded else nothing
            out[f"{name}_max"] = high.field(name) if bounded else nothing
    return pl.DataFrame(out)
