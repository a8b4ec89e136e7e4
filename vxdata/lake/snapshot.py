"""A snapshot: one version of one table as a frozen value, and the lazy scans over its files.

A `DeltaTable` handle moves when it is refreshed, so nothing that a user holds may depend on one. The snapshot keeps the
list of live files and their statistics; Polars skips files by them (decision 001).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors

from vxdata.catalog.table import PARTITION_COLUMN, TableSpec
from vxdata.lake import scd2
from vxdata.lake.faults import translated
from vxdata.lake.store import Store

NO_TABLE = -1
"""The version of a table that does not exist yet."""

ClosingsReader = Callable[["Snapshot", pl.DataFrame], pl.DataFrame]
TransactionReader = Callable[["Snapshot", str], int | None]


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
        read_closings: returns the closings in some of the files, from the cache of closings per file.
        read_transaction: returns the version that an application's newest transaction notes; asks the store.
    """

    spec: TableSpec
    store: Store
    version: int
    table_id: str
    columns: dict[str, pl.DataType]
    files: pl.DataFrame
    read_closings: ClosingsReader = field(repr=False)
    read_transaction: TransactionReader = field(repr=False, default=lambda snapshot, app_id: None)

    def file_url(self, key: str) -> str:
        """Return the address of a data file."""
        return self.store.url(f"{self.spec.namespace}/{key}")

    @cached_property
    def all_columns(self) -> dict[str, pl.DataType]:
        """The columns of a scan: those of the spec, and the physical ones that it does not know."""
        return {**self.spec.columns, **self.columns}

    @cached_property
    def statistics(self) -> pl.DataFrame:
        """The statistics of the live files, those of the partition column included: see `polars_statistics`."""
        datasource = self.files[PARTITION_COLUMN]
        bounds = [datasource.alias(f"{PARTITION_COLUMN}_{end}") for end in ("min", "max")]
        return self._scanned_statistics.with_columns(*bounds, pl.lit(0, pl.UInt32).alias(f"{PARTITION_COLUMN}_nc"))

    @cached_property
    def _scanned_statistics(self) -> pl.DataFrame:
        """What a scan carries of all live files; a partition's value it takes from the folder's name."""
        return polars_statistics(self.files, self.all_columns)

    @cached_property
    def columns_with_statistics(self) -> dict[str, pl.DataType]:
        """The columns whose bounds and null counts are known."""
        known = set(self.statistics.columns)
        return {name: dtype for name, dtype in self.all_columns.items() if f"{name}_nc" in known}

    @cached_property
    def without_past(self) -> "Snapshot":
        """The same version without the files that hold nothing but ended versions: the current state needs no other."""
        kept = self.files.filter(~_is_past(self.files))
        return self if kept.height == self.files.height else replace(self, files=kept)

    def has_no_null(self, column: str) -> bool:
        """Whether it is known that no row of the live files has a null in a column."""
        nulls = self.statistics.get_column(f"{column}_nc", default=None)
        return column != "valid_to" and nulls is not None and bool((nulls == 0).fill_null(False).all())

    def files_that(self, may_hold: pl.Expr) -> pl.DataFrame:
        """Return what a plan asks of the live files for whose statistics an expression is true, or unknown."""
        if self.files.is_empty():
            return self._planned_files
        kept = self.statistics.select(may_hold.fill_null(True).alias("may_hold")).to_series()
        return self._planned_files.filter(kept)

    @cached_property
    def _planned_files(self) -> pl.DataFrame:
        """What a plan asks of the live files: to filter the statistics of all columns takes longer than all the rest.

        `is_open` says that no row of a file has an end of its own or is a tombstone (which closes something).
        """
        bounds = [_with_identifier(self.files[column]) for column in ("min", "max")]
        return self.files.drop("null_count", "min", "max").with_columns(*bounds, _is_open(self.files).alias("is_open"))

    @cached_property
    def rows(self) -> pl.LazyFrame:
        """All physical rows, lazily; columns that the table lacks are null."""
        return self.rows_of(self.files)

    def rows_of(self, files: pl.DataFrame, path_column: str | None = None, root: Path | None = None) -> pl.LazyFrame:
        """Return the physical rows of some of the live files, lazily.

        A scan of all files carries their statistics, so that Polars skips files; chosen files were chosen by them.

        Args:
            files: rows of `files`, or others of the same columns key and size.
            path_column: the name of a further column that holds the address of each row's file.
            root: a local folder with copies of the files, to read in their place. They are to be written anew, so a
                column that the table lacks is refused: the log, which has no checksum, may have lost its name.
        """
        if files.is_empty():
            return pl.LazyFrame(schema={**self.all_columns, **({path_column: pl.String()} if path_column else {})})
        rows = pl.scan_parquet(
            [self.file_url(key) if root is None else str(root / key) for key in files["key"]],
            schema=self.all_columns if root is None else self.columns,
            hive_schema={PARTITION_COLUMN: pl.String()},
            hive_partitioning=True,
            glob=False,
            missing_columns="insert",
            extra_columns="ignore" if root is None else "raise",
            include_file_paths=path_column,
            _table_statistics=self._scanned_statistics if files is self.files else None,
            _source_sizes=files["size"].to_list(),
            _row_count=_row_count(files),
            **(self.store.scan_options() if root is None else {}),
        )
        if root is None:
            return rows
        new = (pl.lit(None, dtype).alias(n) for n, dtype in self.all_columns.items() if n not in self.columns)
        return rows.with_columns(new).select(*self.all_columns, *([path_column] if path_column else ()))

    @cached_property
    def closings(self) -> pl.LazyFrame | None:
        """The closings of the whole table; None if there are none, so that no join is needed."""
        found = self.read_closings(self, self.closing_files)
        return None if found.is_empty() else found.lazy()

    def closings_for(self, files: pl.DataFrame) -> pl.LazyFrame | None:
        """Return the closings that may name a row of some live files; None if there are none.

        A closing lies in its target's partition, because a live resource's parent never changes, and has its target's
        identifier. So a query of a few files neither reads nor joins what was closed elsewhere.
        """
        if files.height == self.files.height or self.closing_files.is_empty():
            return self.closings
        low, high = _identifier_bounds(files)
        start, end = low.min() if low.null_count() == 0 else None, high.max() if high.null_count() == 0 else None
        first, last = _identifier_bounds(self.closing_files)
        is_here = self.closing_files[PARTITION_COLUMN].is_in(files[PARTITION_COLUMN].unique().implode())
        near = self.closing_files.filter(is_here & _reaches(first, last, start, end))
        found = self.read_closings(self, near)
        found = found.filter(_reaches(found["identifier"], found["identifier"], start, end))
        return None if found.is_empty() else found.lazy()

    @cached_property
    def closing_files(self) -> pl.DataFrame:
        """The files that may hold closings, by their null counts: none of a compacted table's files."""
        if "closes" not in self.files["null_count"].struct.fields:
            return self.files
        nulls = pl.col("null_count").struct.field("closes")
        return self.files.filter((nulls.fill_null(0) < pl.col("num_records")).fill_null(True))

    def current(self, where: pl.Expr | None = None, files: pl.DataFrame | None = None) -> pl.LazyFrame:
        """Return the current versions that a filter keeps; the filter goes down to the files.

        Args:
            where: the filter.
            files: the only files that may hold such rows, as `files_that` tells them; None for all.
        """
        are_open = bool((self._planned_files if files is None else files)["is_open"].all())
        return scd2.current(self._filtered(where, files), self._closings(files), are_open=are_open)

    def as_of(self, instant: datetime, where: pl.Expr | None = None, files: pl.DataFrame | None = None) -> pl.LazyFrame:
        """Return the versions seen at an instant that a filter keeps; the filter sees the physical `valid_to`."""
        return scd2.as_of(self._filtered(where, files), self._closings(files), instant)

    def versions(
        self, instant: datetime | None = None, where: pl.Expr | None = None, files: pl.DataFrame | None = None
    ) -> pl.LazyFrame:
        """Return all versions with their ends that a filter keeps; the filter sees the physical `valid_to`."""
        return scd2.versions(self._filtered(where, files), self._closings(files), instant)

    def _closings(self, files: pl.DataFrame | None) -> pl.LazyFrame | None:
        return self.closings if files is None else self.closings_for(files)

    def _filtered(self, where: pl.Expr | None, files: pl.DataFrame | None) -> pl.LazyFrame:
        is_all = files is None or files.height == self.files.height
        rows = self.rows if is_all or files is None else self.rows_of(files)
        return rows if where is None else rows.filter(where)

    def history_of(self, identifiers: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Return every physical row of some identifiers: their versions, closings and tombstones, in one scan."""
        names = pl.Series(identifiers, dtype=pl.String)
        return self.collect(self.rows_of(self._files_with(names)).filter(_is_one_of(names)))

    def current_of(self, identifiers: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Return the current physical rows of a few identifiers, in one scan that needs no other closings."""
        names = pl.Series(identifiers, dtype=pl.String)
        open_or_closing = pl.col("valid_to").is_null() | pl.col("closes").is_not_null()
        rows = self.rows_of(self.without_past._files_with(names)).filter(open_or_closing, _is_one_of(names))
        found = self.collect(rows).lazy()
        return scd2.current(found, scd2.closings_of(found)).collect()

    def _files_with(self, identifiers: pl.Series) -> pl.DataFrame:
        """Return the files that may hold rows of some identifiers, by the bounds of these alone.

        The statistics of all columns, which a scan carries, are made once for each version: after each write, that is.
        """
        if identifiers.is_empty():
            return self.files.clear()
        ordered = identifiers.sort()
        low, high = _identifier_bounds(self.files)
        following = ordered.search_sorted(low.fill_null("")).cast(pl.UInt32)
        is_past_all = following == len(ordered)
        nearest = ordered.gather(following.set(is_past_all, 0))
        return self.files.filter((~is_past_all & (nearest <= high)) | high.is_null() | low.is_null())

    def collect(self, plan: pl.LazyFrame) -> pl.DataFrame:
        """Collect a plan over this table, with the store's errors translated."""
        with translated(self.store.uri, f"read {self.spec.namespace} of"):
            return plan.collect()


def _is_one_of(identifiers: pl.Series) -> pl.Expr:
    """Files and row groups are skipped by the values of a plain list, not by those of a series."""
    if len(identifiers) == 1:
        return pl.col("identifier") == pl.lit(identifiers.item(), pl.String)
    return pl.col("identifier").is_in(identifiers.to_list())


def _identifier_bounds(files: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return bounds of the identifiers in each file; null where nothing is known."""
    unknown = pl.Series([None], dtype=pl.String).new_from_index(0, files.height)
    both = (files[name].struct for name in ("min", "max"))
    low, high = (bounds.field("identifier") if "identifier" in bounds.fields else unknown for bounds in both)
    return low, high


def _row_count(files: pl.DataFrame) -> tuple[int, int] | None:
    """Return how many rows files hold, and how many of these are deleted: a scan plans joins by it; None if unknown."""
    rows = files.get_column("num_records", default=None)
    return None if rows is None or rows.null_count() else (int(rows.sum()), 0)


def _with_identifier(bounds: pl.Series) -> pl.Series:
    """Return bounds of all columns as those of the identifier alone."""
    if "identifier" not in bounds.struct.fields:
        return bounds
    return bounds.struct.field("identifier").to_frame().to_struct(bounds.name)


def _is_open(files: pl.DataFrame) -> pl.Series:
    """Return which files hold neither ends nor tombstones, by their null counts."""
    nulls, rows = files["null_count"].struct, files["num_records"]
    if not {"closes", "valid_to", "is_deleted"} <= set(nulls.fields):
        return pl.repeat(False, files.height, eager=True)
    has_no_end = (nulls.field("closes") == rows) & (nulls.field("valid_to") == rows)
    return (has_no_end & (nulls.field("is_deleted") == 0)).fill_null(False)


def _is_past(files: pl.DataFrame) -> pl.Series:
    """Return which files hold neither a version without an end of its own nor a closing, by their null counts."""
    nulls, rows = files["null_count"].struct, files["num_records"]
    if not {"closes", "valid_to"} <= set(nulls.fields):
        return pl.repeat(False, files.height, eager=True)
    return ((nulls.field("valid_to") == 0) & (nulls.field("closes") == rows)).fill_null(False)


def _reaches(low: pl.Series, high: pl.Series, start: Any, end: Any) -> pl.Series:
    """Return whether intervals overlap with another one; an unknown bound excludes nothing."""
    reaches = pl.Series([True]).new_from_index(0, len(low))
    if end is not None:
        reaches &= (low <= end).fill_null(True)
    if start is not None:
        reaches &= (high >= start).fill_null(True)
    return reaches


def polars_statistics(files: pl.DataFrame, columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return the files' statistics as Polars skips files by them: `len`, and `_nc`, `_min`, `_max` for each column."""
    null_count, low, high = (files[name].struct.unnest() for name in ("null_count", "min", "max"))
    counted = {name: t for name, t in columns.items() if name in null_count.columns and not isinstance(t, pl.Struct)}
    bounded = [name for name in counted if name in low.columns and name in high.columns]
    nothing = pl.DataFrame(schema={n: t for n, t in counted.items() if n not in bounded}).clear(files.height)
    known = {
        "nc": null_count.cast(pl.UInt32),
        "min": low[bounded].hstack(nothing),
        "max": _widened(high[bounded]).hstack(nothing),
    }
    named = {f"{name}_{end}": frame[name] for name in counted for end, frame in known.items()}
    return pl.DataFrame({"len": files["num_records"], **named})


def _widened(high: pl.DataFrame) -> pl.DataFrame:
    """Return maxima of instants one millisecond later: the Delta protocol lets writers cut them to milliseconds."""
    return high.with_columns(selectors.datetime() + timedelta(milliseconds=1))
