"""Folding some files of one partition: read span by span, folded by the rules of `scd2`, written as full files.

Memory is bounded: small files are held at once (their rows are limited by the policy), full ones are read by range, and
two files at most wait to be written. Files are held against their checksums before they are trusted.
"""

import io
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.lake import scd2
from vxdata.lake.datafile import FILE_ROWS, SORT_COLUMNS, CheckedFiles, DataFile, write_data_file
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.spans import Span, plan_spans
from vxdata.schemas.registry import STANDARD_COLUMNS

if TYPE_CHECKING:
    from pyarrow.parquet import RowGroupMetaData

_SPAN_ROWS = 100_000
_SAMPLE_ROWS = 1_000
_WRITERS = 2
_CLOSING = ("identifier", "closes", "valid_from", "commit_id")


HELD_IN = ":key"
"""The column of rows that are held already: their file."""


def is_full(file_rows: int) -> pl.Expr:
    """Whether a file counts as full: it is read by range, and stays one file."""
    return pl.col("rows") >= file_rows // 2


@dataclass(frozen=True)
class Chosen:
    """The files of one partition that are rewritten, and what has to be known of the others.

    Attributes:
        files: what is rewritten, as `file_facts` tells it.
        closing: the other files of the partition that hold closings.
        kept: the ranges of the full files of current versions that stay where they are.
        gone: identifier, closes: closings that name a version which no live file holds.
        file_rows: rows of a full file.
        held: rows of small files among them that were read already, with the key of each one's file (`HELD_IN`).
    """

    files: pl.DataFrame
    closing: pl.DataFrame
    kept: list[tuple[str, str]]
    gone: pl.DataFrame
    file_rows: int = FILE_ROWS
    held: pl.DataFrame | None = None


@dataclass(frozen=True)
class Written:
    """The files that stand for the chosen ones, and what was done on the way.

    Attributes:
        files: written, and in no log yet.
        rows: how many rows were read.
        folded: how many closings became the ends of the versions that they close.
    """

    files: list[DataFile]
    rows: int
    folded: int


def fold_files(base: Snapshot, chosen: Chosen, checked: CheckedFiles) -> Written:
    """Write the files that stand for some files of one partition.

    Raises:
        StorageError: a file is damaged or missing.
    """
    reader = _Reader(base, chosen, checked.root(pl.concat([chosen.files["key"], chosen.closing["key"]])))
    rows = folded = 0
    with _Writer(base, str(chosen.files[PARTITION_COLUMN][0]), chosen.file_rows) as writer:
        for span in reader.spans():
            part = reader.folded(span)
            rows, folded = rows + part.rows, folded + part.folded
            writer.add(part, span)
    return Written(writer.files, rows, folded)


@dataclass(frozen=True)
class _Part:
    """What stands for the rows of a span.

    Attributes:
        current: versions without an end of their own, and tombstones; sorted.
        closed: versions with one; sorted.
        rows: how many rows were read.
        folded: how many closings became the ends of the versions that they close.
    """

    current: pl.DataFrame
    closed: pl.DataFrame
    rows: int
    folded: int


class _Reader:
    """Reads the chosen files span by span."""

    def __init__(self, base: Snapshot, chosen: Chosen, root: Path) -> None:
        self._base, self._chosen, self._root = base, chosen, root
        self._full, small = (
            chosen.files.filter(is_full(chosen.file_rows)),
            chosen.files.filter(~is_full(chosen.file_rows)),
        )
        if chosen.held is None:
            self._small = self._rows(small).collect()
        else:
            rest = self._rows(small.filter(~pl.col("key").is_in(chosen.held[HELD_IN].unique().implode())))
            self._small = pl.concat([chosen.held.drop(HELD_IN), rest.collect()])
        empty = _columns_without_values([root / key for key in self._full["key"]], self._small, base)
        self._columns = [name for name in base.columns if name not in empty]

    def _rows(self, facts: pl.DataFrame) -> pl.LazyFrame:
        files = self._base.files.filter(pl.col("key").is_in(facts["key"].implode()))
        return self._base.rows_of(files, root=self._root)

    def spans(self) -> list[Span]:
        """Return the spans to go through."""
        sample = self._small["identifier"].gather_every(_SAMPLE_ROWS).to_list()
        for key in self._full["key"]:  # one file after another: all identifiers at once may be too many
            identifiers = self._rows(self._full.filter(pl.col("key") == key)).select("identifier").collect()
            sample += identifiers.to_series().gather_every(_SAMPLE_ROWS).to_list()
        return plan_spans(pl.Series(sample, dtype=pl.String), _SPAN_ROWS // _SAMPLE_ROWS, self._chosen.kept)

    def folded(self, span: Span) -> _Part:
        """Return what stands for the rows of a span; columns that hold no value are left out.

        Only rows of an identifier that has a closing, or a row in a small file, are looked at; the others of the full
        files stay as they lie.
        """
        columns = self._columns
        full = self._rows(_reached(span, self._full)).filter(span.holds()).select(columns).collect()
        small = self._small.filter(span.holds()).select(columns)
        others = self._rows(_reached(span, self._chosen.closing)).filter(span.holds())
        own, other = (
            part.filter(pl.col("closes").is_not_null()).select(_CLOSING).collect()
            for part in (pl.concat([full, small]).lazy(), others)
        )
        closings = pl.concat([own, other])
        named = pl.concat([small["identifier"], closings["identifier"]]).unique()
        is_moved = full["identifier"].is_in(named.implode())
        moved = pl.concat([full.filter(is_moved), small]).lazy()
        folded = (
            scd2.fold(moved, closings.lazy(), self._chosen.gone.lazy()).select(columns).sort(SORT_COLUMNS).collect()
        )
        rows, order = pl.concat([full, folded], rechunk=True), _order(full, is_moved, folded)
        is_open = rows["valid_to"].is_null().gather(order)
        left = folded["closes"].count()
        return _Part(
            rows[order.filter(is_open)], rows[order.filter(~is_open)], full.height + small.height, own.height - left
        )


def _columns_without_values(files: Iterable[Path], small: pl.DataFrame, base: Snapshot) -> set[str]:
    """Return payload columns that are null in some rows and in all rows of some files: nobody need read and sort them.

    The files' own footers tell, which their checksums cover; a line of the log that is damaged must not cost a value.
    """
    import pyarrow.parquet as pq

    asked = base.columns.keys() - set(STANDARD_COLUMNS)
    empty = {name for name in asked if not base.columns[name].is_nested() and not small[name].count()}
    for path in files:
        footer = pq.read_metadata(path)
        groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
        places = {footer.schema.column(n).path: n for n in range(footer.num_columns)}
        empty -= {name for name in empty & places.keys() if not all(_is_null(g, places[name]) for g in groups)}
    return empty


def _is_null(group: "RowGroupMetaData", column: int) -> bool:
    known = group.column(column).statistics
    return known is not None and known.has_null_count and known.null_count == group.num_rows


def _order(full: pl.DataFrame, is_moved: pl.Series, folded: pl.DataFrame) -> pl.Series:
    """Return how the rows of full files that were not moved, and the folded ones behind them, lie when sorted."""
    kept = pl.int_range(full.height, eager=True).filter(~is_moved)
    added = pl.int_range(full.height, full.height + folded.height, eager=True)
    if not _is_sorted(full):  # several files that lie over each other
        rows = pl.concat([full.select(SORT_COLUMNS)[kept], folded.select(SORT_COLUMNS)])
        return pl.concat([kept, added]).gather(rows.select(pl.arg_sort_by(SORT_COLUMNS)).to_series())
    before = full["identifier"].search_sorted(folded["identifier"]).cast(pl.Int64)  # no kept row has these identifiers
    kept_rows = pl.DataFrame({"place": 2 * kept + 1, "row": kept})
    return kept_rows.merge_sorted(pl.DataFrame({"place": 2 * before, "row": added}), "place")["row"]


def _is_sorted(rows: pl.DataFrame) -> bool:
    same = rows["identifier"] == rows["identifier"].shift()
    return rows["identifier"].is_sorted() and not (same & (rows["valid_from"] < rows["valid_from"].shift())).any()


def _reached(span: Span, facts: pl.DataFrame) -> pl.DataFrame:
    reached = [span.overlaps(low, high) for low, high in facts.select("low", "high").iter_rows()]
    return facts.filter(pl.Series(reached, dtype=pl.Boolean))


class _Waiting:
    """Rows that wait for enough others to fill a file."""

    def __init__(self, file_rows: int) -> None:
        self._parts: list[pl.DataFrame] = []
        self._file_rows = file_rows
        self.height = 0

    def add(self, rows: pl.DataFrame) -> list[pl.DataFrame]:
        """Take rows; return the full files that came together. Half a file's worth stays: no last one is small."""
        self._parts.append(rows)
        self.height += rows.height
        full = []
        while self.height >= self._file_rows + -(-self._file_rows // 2):
            together = pl.concat(self._parts)
            full.append(together.head(self._file_rows))
            self._parts, self.height = [together.slice(self._file_rows)], self.height - self._file_rows
        return full

    def take(self) -> list[pl.DataFrame]:
        """Return what is left as one file, or as two of one size."""
        parts, self._parts, height, self.height = self._parts, [], self.height, 0
        if not height:
            return []
        together = pl.concat(parts)
        size = height if height <= self._file_rows else -(-height // 2)
        return [together.slice(start, size) for start in range(0, height, size)]


def _detached(rows: pl.DataFrame, of: int) -> pl.DataFrame:
    """Return rows that were gathered from so many; a few are copied, because a text keeps its whole column's memory."""
    if 2 * rows.height > of:
        return rows
    with io.BytesIO() as copy:
        rows.write_ipc_stream(copy, compat_level=pl.CompatLevel.oldest())  # a newer one would keep that memory, too
        copy.seek(0)
        return pl.read_ipc_stream(copy)


class _Writer:
    """Gathers folded rows into files: current versions, closed ones, and what lies in the range of kept files.

    Attributes:
        files: what was written.
    """

    def __init__(self, base: Snapshot, datasource_id: str, file_rows: int) -> None:
        self._base, self._datasource_id, self._file_rows = base, datasource_id, file_rows
        self._current, self._between, self._closed = (_Waiting(file_rows) for _ in range(3))
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._under_way: deque[Future[DataFile]] = deque()
        self.files: list[DataFile] = []

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._cut()
                self._write(self._between.take() + self._closed.take())
                self.files += [future.result() for future in self._under_way]
        finally:
            self._pool.shutdown()

    def add(self, part: _Part, span: Span) -> None:
        """Take what stands for the rows of a span; spans come in their order."""
        if span.is_kept:
            self._cut()
        current, of = self._between if span.is_kept else self._current, part.current.height + part.closed.height
        self._write(current.add(_detached(part.current, of)) + self._closed.add(_detached(part.closed, of)))

    def _cut(self) -> None:
        """End the file of current versions here; too few rows for one go to those in the range of kept files."""
        is_small = self._current.height < self._file_rows // 2
        for part in self._current.take():
            self._write(self._between.add(part) if is_small else [part])

    def _write(self, parts: list[pl.DataFrame]) -> None:
        for part in parts:
            if len(self._under_way) == _WRITERS:  # so that only a few parts are in memory twice
                self.files.append(self._under_way.popleft().result())
            rows, namespace = self._completed(part).drop(PARTITION_COLUMN), self._base.spec.namespace
            self._under_way.append(
                self._pool.submit(write_data_file, self._base.store, namespace, self._datasource_id, rows)
            )

    def _completed(self, part: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the columns that were left out because they hold no value."""
        columns = self._base.columns.items()
        return part.select(c if c in part.columns else pl.lit(None, dtype).alias(c) for c, dtype in columns)
