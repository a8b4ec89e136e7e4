"""Frames larger than memory: written to sorted files as they are read, and judged slice by slice of identifiers.

A slice is a range of identifiers, so that all rows of one identifier meet in one slice, and what is planned of the
slices, one after another, is what would be planned of the whole. A frame that fits into memory is one slice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN, TableSpec
from vxdata.lake.frames import REASON, Typed, Wanted, readable, to_typed, vet
from vxdata.lake.scratch import Scratch, read_kept
from vxdata.lake.snapshot import Snapshot


@dataclass(frozen=True)
class SlicePolicy:
    """How much of a frame is in memory at once.

    Attributes:
        held_bytes: a frame of more is sliced.
        slice_bytes: of the rows of a slice; to plan it takes several times as much.
        run_bytes: of the rows that are sorted at once.
        row_bytes: what the columns that VxData derives add to each row.
        sample_rows: the bounds of the slices are right to so many rows of each run.
        batch_rows: how many rows are read at once.
        table_rows: of a table, so many rows are looked through at once for what a frame lacks.
    """

    held_bytes: int = 1536 << 20
    slice_bytes: int = 256 << 20
    run_bytes: int = 256 << 20
    row_bytes: int = 500
    sample_rows: int = 1_000
    batch_rows: int = 20_000
    table_rows: int = 1_000_000

    def weight(self, rows: pl.DataFrame) -> int:
        """Return the bytes that rows count as."""
        return int(rows.estimated_size()) + rows.height * self.row_bytes


POLICY = SlicePolicy()


@dataclass(frozen=True)
class Range:
    """A range of identifiers.

    Attributes:
        start: its first one; None for all before the end, rows without an identifier included.
        end: the first one after it; None for no end.
    """

    start: str | None = None
    end: str | None = None

    def holds(self) -> pl.Expr:
        """Return whether a row's identifier is in the range."""
        identifier = pl.col("identifier")
        if self.start is None:
            return pl.lit(True) if self.end is None else (identifier < pl.lit(self.end)) | identifier.is_null()
        return identifier >= pl.lit(self.start) if self.end is None else (
            (identifier >= pl.lit(self.start)) & (identifier < pl.lit(self.end))
        )  # fmt: skip


@dataclass(frozen=True)
class Slices:
    """Wanted states of resources of one type, slice by slice.

    Attributes:
        spec: the table.
        typed: the columns that the frame sets, and their types.
        ranges: disjoint, ascending, and together all identifiers.
        held: the wanted states, where they are one slice.
        runs: where they are more: the rows in files, each sorted by identifier.
        others: identifiers that the frame mentions, though it has no rows of them.
    """

    spec: TableSpec
    typed: Typed
    ranges: tuple[Range, ...] = (Range(),)
    held: Wanted | None = None
    runs: tuple[pl.LazyFrame, ...] = ()
    others: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))

    @property
    def given(self) -> tuple[str, ...]:
        """The columns that the frame sets: license and payload fields."""
        return self.typed.given

    @property
    def nothing_rejected(self) -> pl.DataFrame:
        """A frame of rejected rows without any."""
        return pl.DataFrame(schema={**self.typed.rows.collect_schema(), REASON: pl.String()})

    @property
    def identifiers(self) -> pl.LazyFrame | None:
        """The identifiers of all slices, in files; None where they are held in memory."""
        return pl.concat([run.select("identifier") for run in self.runs]) if self.runs else None

    def read(self, within: Range) -> Wanted:
        """Return the wanted states of one slice."""
        if self.held is not None:
            return self.held
        rows = [read_kept(run.filter(within.holds())) for run in self.runs]  # one by one: of each only a part is kept
        return vet(self.spec, pl.concat(rows), self.typed)

    def mentioned(self, within: Range) -> pl.Series:
        """Return every identifier of one slice, rejected ones included."""
        others = self.others.alias("identifier").to_frame().lazy()
        if self.held is not None:
            return pl.concat([self.held.mentioned, others.collect().to_series()])
        named = pl.concat([*(run.select("identifier") for run in self.runs), others]).filter(within.holds())
        return read_kept(named.drop_nulls().unique()).to_series()


def to_slices(
    spec: TableSpec, frame: pl.DataFrame | pl.LazyFrame, scratch: Scratch, others: Iterable[str] = ()
) -> Slices:
    """Match a frame to a table, in memory if it fits.

    A type that nests in itself is not sliced: the parents of a slice's rows may stand anywhere in the frame.

    Args:
        spec: the table.
        frame: as `to_wanted` takes it; it is read once.
        scratch: where the rows are kept that exceed memory.
        others: identifiers that the frame mentions, though it has no rows of them.

    Raises:
        InvalidInputError: an unknown column, a column of a wrong type, no identifiers, or a frame that cannot be read.
        StorageError: the temporary folder is full.
    """
    typed, also = to_typed(spec, frame), pl.Series("identifier", others, dtype=pl.String)
    gathered = _Gathered(scratch, may_spill=spec.type_name not in spec.payload.parent_types)
    # not collect_batches, to which a panic of Polars is the end of the rows
    readable(spec, lambda: typed.rows.sink_batches(gathered.add, chunk_size=POLICY.batch_rows))
    if not gathered.runs:
        rows = pl.concat([pl.DataFrame(schema=typed.rows.collect_schema()), *gathered.rows])
        return Slices(spec, typed, held=vet(spec, rows, typed), others=also)
    runs = gathered.all_runs()
    return Slices(spec, typed, _ranges(runs, gathered.weight), runs=tuple(run.rows for run in runs), others=also)


def ranges_of(base: Snapshot, datasources: pl.Series) -> tuple[Range, ...]:
    """Return ranges of identifiers that hold about as many rows of some partitions as are looked through at once."""
    here = base.files.filter(pl.col(PARTITION_COLUMN).is_in(datasources.implode()))
    rows = int(here["num_records"].sum())
    if rows <= POLICY.table_rows:
        return (Range(),)
    sample = base.collect(base.rows_of(here).select(pl.col("identifier").gather_every(POLICY.sample_rows))).to_series()
    return _cut(sample, max(1, POLICY.table_rows // POLICY.sample_rows))


@dataclass(frozen=True)
class _Run:
    """A sorted file of rows: lazily, their number, and some of their identifiers in even distances."""

    rows: pl.LazyFrame
    height: int
    sample: pl.Series


def _kept(rows: pl.DataFrame, scratch: Scratch) -> _Run:
    ordered = rows.sort("identifier")
    return _Run(scratch.keep(ordered), rows.height, ordered["identifier"].gather_every(POLICY.sample_rows))


@dataclass
class _Gathered:
    """The rows of a frame as they are read: in memory, and once they exceed it, in sorted files.

    Attributes:
        scratch: where the files are kept.
        may_spill: whether there may be files.
        rows: what is in memory.
        runs: what is in files.
        weight: the bytes that all rows count as.
        waiting: the bytes of the rows in memory.
    """

    scratch: Scratch
    may_spill: bool
    rows: list[pl.DataFrame] = field(default_factory=list)
    runs: list[_Run] = field(default_factory=list)
    weight: int = 0
    waiting: int = 0

    def add(self, batch: pl.DataFrame) -> None:
        """Take some more rows."""
        self.rows.append(batch)
        self.weight += POLICY.weight(batch)
        self.waiting += POLICY.weight(batch)
        if self.may_spill and self.weight > POLICY.held_bytes and self.waiting > POLICY.run_bytes:
            self._spill()

    def _spill(self) -> None:
        """Write what is in memory to files of as many rows as are sorted at once."""
        group: list[pl.DataFrame] = []
        weight = 0
        while self.rows:
            group.append(self.rows.pop(0))
            weight += POLICY.weight(group[-1])
            if weight > POLICY.run_bytes or not self.rows:
                self.runs.append(_kept(pl.concat(group), self.scratch))
                group, weight = [], 0
        self.waiting = 0

    def all_runs(self) -> list[_Run]:
        """Return all rows in files."""
        if self.rows:
            self._spill()
        return self.runs


def _ranges(runs: list[_Run], weight: int) -> tuple[Range, ...]:
    """Return ranges of identifiers that hold about as many rows each as a slice may have."""
    rows = sum(run.height for run in runs)
    step = max(1, rows * POLICY.slice_bytes // (weight * POLICY.sample_rows))
    return _cut(pl.concat([run.sample for run in runs]), step)


def _cut(sample: pl.Series, step: int) -> tuple[Range, ...]:
    """Return ranges that hold so many identifiers of a sample each."""
    ordered = sample.drop_nulls().sort()
    cuts = [None, *ordered.gather_every(step, offset=step).unique().sort().to_list(), None]
    return tuple(Range(start, end) for start, end in pairwise(cuts))
