"""Folding some files of one partition: read span by span, folded by the rules of `scd2`, written as full files.

Memory is bounded: small files are held at once (their rows are limited by the policy), full ones are read by range, and
two files at most wait to be written. Files are held against their checksums before they are trusted.
"""

import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN
from vxdata.lake import scd2
from vxdata.lake.datafile import FILE_ROWS, SORT_COLUMNS, DataFile, checked_folder, to_plain_arrow, write_data_file
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.spans import Span, plan_spans

_SPAN_ROWS = 100_000
_SAMPLE_ROWS = 1_000
_WRITERS = 2
_CLOSING = ("identifier", "closes", "valid_from", "commit_id")


@dataclass(frozen=True)
class Chosen:
    """The files of one partition that are rewritten, and what has to be known of the others.

    Attributes:
        files: what is rewritten, as `file_facts` tells it.
        closing: the other files of the partition that hold closings.
        kept: the ranges of the full files of current versions that stay where they are.
        gone: identifier, closes: closings that name a version which no live file holds.
        file_rows: rows of a full file.
    """

    files: pl.DataFrame
    closing: pl.DataFrame
    kept: list[tuple[str, str]]
    gone: pl.DataFrame
    file_rows: int = FILE_ROWS


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


def fold_files(base: Snapshot, chosen: Chosen) -> Written:
    """Write the files that stand for some files of one partition.

    Raises:
        StorageError: a file is damaged or missing.
    """
    with tempfile.TemporaryDirectory(prefix="vxdata-") as folder:
        keys = pl.concat([chosen.files["key"], chosen.closing["key"]])
        root = checked_folder(base.store, base.spec.namespace, keys, Path(folder))
        reader = _Reader(base, chosen, root)
        rows = closings = 0
        with _Writer(base, str(chosen.files[PARTITION_COLUMN][0]), chosen.file_rows) as writer:
            for span in reader.spans():
                found = reader.read(span)
                rows, closings = rows + found.height, closings + found["closes"].count()
                writer.add(reader.folded(span, found), span)
    return Written(writer.files, rows, closings - writer.closings)


class _Reader:
    """Reads the chosen files span by span."""

    def __init__(self, base: Snapshot, chosen: Chosen, root: Path) -> None:
        self._base, self._chosen, self._root = base, chosen, root
        is_full = pl.col("rows") >= chosen.file_rows // 2
        self._full = chosen.files.filter(is_full)
        self._small = self._rows(chosen.files.filter(~is_full)).collect()

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

    def read(self, span: Span) -> pl.DataFrame:
        """Return the rows of a span."""
        full = self._rows(_reached(span, self._full)).filter(span.holds()).collect()
        return pl.concat([self._small.filter(span.holds()), full])

    def folded(self, span: Span, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that stand for those of a span, sorted."""
        others = self._rows(_reached(span, self._chosen.closing)).filter(span.holds())
        closings = pl.concat(
            part.filter(pl.col("closes").is_not_null()).select(_CLOSING).collect() for part in (rows.lazy(), others)
        )
        # the rules change only rows whose identifier has a closing, which most have not
        is_closed = rows["identifier"].is_in(closings["identifier"].unique().implode())
        folded = scd2.fold(rows.filter(is_closed).lazy(), closings.lazy(), self._chosen.gone.lazy())
        columns = list(self._base.columns)
        return pl.concat([rows.filter(~is_closed).select(columns), folded.select(columns).collect()]).sort(SORT_COLUMNS)


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


def _detached(rows: pl.DataFrame, is_kept: pl.Series) -> pl.DataFrame:
    """Return some of the rows; a few are copied, because a text that waits keeps the memory of its whole column."""
    kept = rows if is_kept.all() else rows.filter(is_kept)
    if 2 * kept.height > rows.height:
        return kept
    return pl.DataFrame(to_plain_arrow(kept, kept.schema), schema=kept.schema)


class _Writer:
    """Gathers folded rows into files: current versions, closed ones, and what lies in the range of kept files.

    Attributes:
        files: what was written.
        closings: how many closings are left in it.
    """

    def __init__(self, base: Snapshot, datasource_id: str, file_rows: int) -> None:
        self._base, self._datasource_id, self._file_rows = base, datasource_id, file_rows
        self._current, self._between, self._closed = (_Waiting(file_rows) for _ in range(3))
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._under_way: deque[Future[DataFile]] = deque()
        self.files: list[DataFile] = []
        self.closings = 0

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

    def add(self, rows: pl.DataFrame, span: Span) -> None:
        """Take the folded rows of a span; spans come in their order."""
        if span.is_kept:
            self._cut()
        self.closings += rows["closes"].count()
        is_open = rows["valid_to"].is_null()
        current = self._between if span.is_kept else self._current
        self._write(current.add(_detached(rows, is_open)) + self._closed.add(_detached(rows, ~is_open)))

    def _cut(self) -> None:
        """End the file of current versions here; too few rows for one go to those in the range of kept files."""
        is_small = self._current.height < self._file_rows // 2
        for part in self._current.take():
            self._write(self._between.add(part) if is_small else [part])

    def _write(self, parts: list[pl.DataFrame]) -> None:
        for part in parts:
            if len(self._under_way) == _WRITERS:  # so that only a few parts are in memory twice
                self.files.append(self._under_way.popleft().result())
            rows, namespace = part.drop(PARTITION_COLUMN).rechunk(), self._base.spec.namespace
            self._under_way.append(
                self._pool.submit(write_data_file, self._base.store, namespace, self._datasource_id, rows)
            )
