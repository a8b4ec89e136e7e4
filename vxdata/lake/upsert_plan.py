"""What an upsert does to one table: planned slice by slice, joined into one plan for one commit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from vxdata.errors import InvalidInputError, sentence
from vxdata.lake.batch import Batch, first_commit_id, is_committed
from vxdata.lake.change import LINEAGE_SCHEMA
from vxdata.lake.delete import plan_closings, refuse_parents
from vxdata.lake.frames import REASON, Wanted
from vxdata.lake.intent import Plan, Planner, Premises, Stamp
from vxdata.lake.lacking import UpsertOptions, lacking
from vxdata.lake.lake import BaseFirst, Lake, SteadyView
from vxdata.lake.lookup import read_known
from vxdata.lake.planning import NO_LINEAGES, changes_on, parents_of, premises_of, refuse_many_rejected, refuse_rejected
from vxdata.lake.run import remembered
from vxdata.lake.scratch import Scratch, read_kept
from vxdata.lake.slices import Range, Slices, ranges_of
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.spilled import SpilledRows

_EDGES = ["identifier", "parent_identifier"]
Promised = tuple[pl.LazyFrame, ...]
"""The lineages of what the same operation makes, piece by piece."""


@dataclass(frozen=True)
class Upserted:
    """What a planned upsert does.

    Attributes:
        created: how many resources it makes, or makes again.
        updated: how many get a new version.
        unchanged: how many are already as the frame says.
        rejected: the rows that cannot be written.
        doomed: the identifiers that it closes.
        rows: the physical rows that it appends, slice by slice.
        seen: the state that it was planned on.
        is_repeat: whether its batch is in the table already.
        first_commit_id: then, the id of the run that committed it, if it is remembered.
    """

    created: int
    updated: int
    unchanged: int
    rejected: pl.DataFrame
    doomed: pl.Series
    rows: tuple[pl.LazyFrame, ...]
    seen: SteadyView
    is_repeat: bool = False
    first_commit_id: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many resources it creates, updates and deletes."""
        return {"created": self.created, "updated": self.updated, "deleted": len(self.doomed)}

    @property
    def made(self) -> tuple[pl.LazyFrame, ...]:
        """The physical rows of the new resources, slice by slice."""
        return tuple(part.filter(pl.col("closes").is_null()) for part in self.rows)

    @property
    def lineages(self) -> Promised:
        """The lineages of the new resources."""
        return tuple(part.select(*LINEAGE_SCHEMA) for part in self.made)

    def placed(self) -> Iterator[pl.DataFrame]:
        """Return the new resources, slice by slice: identifier, parent_identifier, ancestors."""
        return (read_kept(part.select(*_EDGES, "ancestors")) for part in self.made)

    def datasources(self) -> pl.Series:
        """Return the datasources of the new resources."""
        found = [read_kept(part.select(pl.col("datasource_id").unique())).to_series() for part in self.made]
        return pl.concat([pl.Series(dtype=pl.String), *found]).unique()


@dataclass(frozen=True)
class Before:
    """What the same operation does before, by namespace, where it is not done yet.

    Attributes:
        gone: the identifiers that it closes: no children that are left.
        coming: the physical rows of the resources that it makes, piece by piece: children, though not live yet.
        datasources: those of the resources that it makes: the frame names them.
    """

    gone: Mapping[str, pl.Series] = field(default_factory=dict)
    coming: Mapping[str, tuple[pl.LazyFrame, ...]] = field(default_factory=dict)
    datasources: Mapping[str, pl.Series] = field(default_factory=dict)


NOTHING_BEFORE = Before()


@dataclass(frozen=True)
class _Judged:
    """What one slice of wanted states changes.

    Attributes:
        rows: the physical rows, in memory or in a file.
        created: how many resources they create.
        updated: how many they update.
        unchanged: how many are there already.
        rejected: the rows that cannot be written.
        datasources: those that the slice names.
        edges: identifier and parent_identifier of what the frame holds, of a type that nests in itself.
    """

    rows: pl.LazyFrame
    created: int
    updated: int
    unchanged: int
    rejected: pl.DataFrame
    datasources: pl.Series
    edges: pl.DataFrame


@dataclass(frozen=True)
class _Closed:
    """What the wanted states lack in a range of identifiers, and so is closed."""

    within: Range
    rows: pl.LazyFrame
    identifiers: pl.Series
    rejected: pl.DataFrame


@dataclass(frozen=True)
class _Task:
    """An upsert of one table on one base."""

    base: Snapshot
    view: SteadyView
    slices: Slices
    options: UpsertOptions
    stamp: Stamp
    scratch: Scratch
    planned: datetime

    @property
    def explicit(self) -> bool:
        """Whether the caller named the instant."""
        return self.options.valid_from is not None

    def keep(self, rows: pl.DataFrame, pieces: int) -> pl.LazyFrame:
        """Return planned rows, one of so many pieces, lazily: those of the only one stay in memory."""
        if pieces == 1 or rows.is_empty():
            return rows.lazy()
        return self.scratch.keep(rows.sort("datasource_id"))

    def closing_ranges(self, named: pl.Series) -> tuple[Range, ...]:
        """Return the ranges of identifiers in which is looked, one after another, for what the frame lacks.

        Args:
            named: the datasources in which is looked.
        """
        nests = self.base.spec.type_name in self.base.spec.payload.parent_types
        return self.slices.ranges if self.slices.held is None or nests else ranges_of(self.base, named)


def upserter(
    lake: Lake,
    slices: Slices,
    options: UpsertOptions,
    promised: Promised,
    stamp: Stamp,
    parts: tuple[str, ...],
    scratch: Scratch,
) -> Planner:
    """Return the planner of one table.

    Args:
        lake: the lake.
        slices: the wanted states.
        options: how to treat what the frame lacks, the past, and invalid rows.
        promised: the lineages of parents that the same operation makes.
        stamp: who and why.
        parts: the parts of a batch that its commit completes.
        scratch: where planned rows are kept that exceed memory.
    """

    def judge(task: _Task, wanted: Wanted) -> _Judged:
        return _changed(task, wanted, promised)

    return _planner(lake, slices, options, stamp, parts, scratch, judge)


def closer(
    lake: Lake, slices: Slices, options: UpsertOptions, stamp: Stamp, scratch: Scratch, before: Before = NOTHING_BEFORE
) -> Planner:
    """Plan the closings alone: what the frame holds was written before, and may have been changed by others since.

    Before anything is written, the same planner tells what can be known of it, from what is done before.
    """
    parts = () if stamp.batch_id is None else (Batch(stamp.batch_id).closings,)
    return _planner(lake, slices, options, stamp, parts, scratch, _unchanged, before)


def _planner(
    lake: Lake,
    slices: Slices,
    options: UpsertOptions,
    stamp: Stamp,
    parts: tuple[str, ...],
    scratch: Scratch,
    judge: Callable[[_Task, Wanted], _Judged],
    before: Before = NOTHING_BEFORE,
) -> Planner:
    def plan(base: Snapshot) -> Plan:
        view = SteadyView(BaseFirst(base, lake))
        if parts and is_committed(base, parts[0]):
            return _repeat(lake, base, slices, stamp)
        task = _Task(base, view, slices, options, stamp, scratch, options.valid_from or lake.patience.now())
        judged: list[_Judged] = []
        for within in slices.ranges:
            wanted = slices.read(within)
            if options.missing == "delete" and options.on_invalid == "skip":
                _refuse_nameless(base, wanted)
            judged.append(judge(task, wanted))
            if slices.held is None:
                refuse_many_rejected(base.spec, [part.rejected for part in judged])
        closed = _closings(task, judged, before) if options.missing == "delete" else []
        upserted = _joined(task, judged, closed)
        if options.on_invalid == "fail":
            refuse_rejected(base.spec, upserted.rejected)
        if not options.cascade:
            refuse_parents(view, base.spec, upserted.doomed, before.gone, before.coming)
        return _as_plan(task, upserted, parts)

    return remembered(plan)


def _refuse_nameless(base: Snapshot, wanted: Wanted) -> None:
    """Refuse to close what a frame lacks if nobody can tell what its invalid rows are about."""
    if wanted.nameless.height:
        reason = sentence(wanted.nameless[REASON][0])
        raise InvalidInputError(
            f"a row of {base.spec.namespace}: {reason} Its resource cannot be told, so missing='delete' would close "
            "it though it is not missing. Mend such rows, or write without missing='delete'."
        )


def _changed(task: _Task, wanted: Wanted, promised: Promised) -> _Judged:
    """Return what one slice creates and updates."""
    known = read_known(task.base, wanted.rows["identifier"], wanted.given)
    has_new = known.current.height < wanted.rows.height
    parents = parents_of(task.view, wanted, promised) if has_new else NO_LINEAGES
    changes = changes_on(task.base, wanted, known, parents, task.planned, task.explicit, task.stamp)
    rows = pl.concat([changes.created, changes.updated])
    named = pl.concat([_named(task, wanted, known.current), changes.created["datasource_id"]]).unique()
    created, updated = changes.created.height, changes.updated.height
    edges = _edges(task, wanted, known.current)
    return _Judged(
        task.keep(rows, len(task.slices.ranges)), created, updated, changes.unchanged, changes.rejected, named, edges
    )


def _unchanged(task: _Task, wanted: Wanted) -> _Judged:
    """Return what one slice names, and that nothing of it is written."""
    known = read_known(task.base, wanted.rows["identifier"], ())
    nothing, named = _nothing(task.base), _named(task, wanted, known.current).unique()
    edges = _edges(task, wanted, known.current)
    return _Judged(nothing.lazy(), 0, 0, 0, task.slices.nothing_rejected, named, edges)


def _named(task: _Task, wanted: Wanted, current: pl.DataFrame) -> pl.Series:
    """Return the datasources of what is live where the frame says; of what lives under another parent it names none.

    Who closes nothing, or says in which datasources, asks for none.
    """
    if task.options.missing == "keep" or task.options.datasources is not None:
        return pl.Series(dtype=pl.String)
    said = wanted.rows.select("identifier", said="parent_identifier")
    elsewhere = (pl.col("said") != pl.col("parent_identifier")).fill_null(False)
    return current.join(said, on="identifier").filter(~elsewhere)["datasource_id"]


def _edges(task: _Task, wanted: Wanted, current: pl.DataFrame) -> pl.DataFrame:
    nests = task.base.spec.type_name in task.base.spec.payload.parent_types
    held = pl.concat([wanted.rows.select(_EDGES), current.select(_EDGES)])
    return held if nests else held.clear()


def _closings(task: _Task, judged: list[_Judged], before: Before) -> list[_Closed]:
    """Plan, slice by slice, the closings of what the frame lacks in the datasources that it (or the caller) names."""
    if task.options.datasources is None:
        made = before.datasources.get(task.base.spec.namespace, pl.Series(dtype=pl.String))
        named = pl.concat([made, *(part.datasources for part in judged)]).unique()
    else:
        named = pl.Series(task.options.datasources, dtype=pl.String)
    edges, ranges = pl.concat([part.edges for part in judged]), task.closing_ranges(named)
    closed: list[_Closed] = []
    for within in ranges:
        doomed = lacking(task.base, within, task.slices.mentioned(within), named, edges, task.options)
        planned = plan_closings(task.base.spec, doomed, task.planned, task.explicit, task.stamp.commit_id)
        kept = task.keep(planned.rows, len(ranges))
        closed.append(_Closed(within, kept, planned.rows["identifier"], planned.rejected))
    return closed


def _joined(task: _Task, judged: list[_Judged], closed: list[_Closed]) -> Upserted:
    """Join what the slices do."""
    none = pl.Series(dtype=pl.String)
    doomed = pl.concat([none, *(part.identifiers for part in closed)])
    rejected = [*(part.rejected for part in judged), *(part.rejected for part in closed)]
    rows = [part.rows for part in judged]
    if len(closed) > len(judged):
        (changed,) = rows
        rows = [pl.concat([changed.filter(part.within.holds()), part.rows]) for part in closed]
    elif closed:
        rows = [pl.concat([one, part.rows]) for one, part in zip(rows, closed, strict=True)]
    return Upserted(
        created=sum(part.created for part in judged),
        updated=sum(part.updated for part in judged),
        unchanged=sum(part.unchanged for part in judged),
        rejected=pl.concat(rejected, how="diagonal"),
        doomed=doomed,
        rows=tuple(rows),
        seen=task.view,
    )


def _as_plan(task: _Task, upserted: Upserted, parts: tuple[str, ...]) -> Plan:
    closed, held = upserted.doomed, task.slices.held
    premises = Premises(closed, closed, task.slices.identifiers) if held is None else premises_of(held, closed)
    if len(upserted.rows) == 1:
        return Plan(upserted.rows[0].collect(), premises, upserted, parts)
    spilled = SpilledRows(upserted.rows, upserted.counts)
    return Plan(_nothing(task.base), premises, upserted, parts, spilled)


def _repeat(lake: Lake, base: Snapshot, slices: Slices, stamp: Stamp) -> Plan:
    """Plan nothing: the batch is in the table."""
    nothing, no_one = _nothing(base), pl.Series(dtype=pl.String)
    first = first_commit_id(lake, [base.spec], Batch(stamp.batch_id or ""))
    seen = SteadyView(BaseFirst(base, lake))
    done = Upserted(0, 0, 0, slices.nothing_rejected, no_one, (nothing.lazy(),), seen, True, first)
    return Plan(nothing, Premises(no_one), done)


def _nothing(base: Snapshot) -> pl.DataFrame:
    return base.collect(base.rows.head(0))
