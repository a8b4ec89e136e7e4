"""Upsert: many resources be as frames say, column-wise, one commit a table; what the frames lack may be closed.

Several types at once are validated before anything is written, committed root first, and what was withdrawn is closed
children first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Literal

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import InvalidInputError, name_some
from vxdata.lake.batch import Batch, first_commit_id, is_committed
from vxdata.lake.change import Changes, Known, lineage_of
from vxdata.lake.commit import Plan, Planner, Premises, Stamp
from vxdata.lake.delete import close_descendants, plan_closings, refuse_left_behind, refuse_parents
from vxdata.lake.frames import REASON, Wanted
from vxdata.lake.lake import BaseFirst, Lake, SteadyView
from vxdata.lake.lookup import live_descendants, read_known
from vxdata.lake.planning import NO_LINEAGES, changes_on, parents_of, premises_of, refuse_orphans, refuse_rejected
from vxdata.lake.run import remembered, run_commit
from vxdata.lake.snapshot import Snapshot


@dataclass(frozen=True)
class UpsertReport:
    """What an upsert did.

    Attributes:
        created: resources that were made (or made again).
        updated: resources that got a new version.
        unchanged: resources that were already as the frame says.
        deleted: resources that were closed because the frame lacks them.
        rejected: the rows that could not be written: identifier, parent_identifier, the frame's columns, and reason
            (rejected_because, if a field is called reason).
        commit_id: the commit's id in the audit log; None if nothing was written.
        already_committed: whether the batch was in this table before; then nothing was done, the counts are 0, and
            commit_id is that of the run that did it.
    """

    created: int
    updated: int
    unchanged: int
    deleted: int
    rejected: pl.DataFrame = field(repr=False, compare=False)
    commit_id: str | None = None
    already_committed: bool = False


@dataclass(frozen=True)
class UpsertOptions:
    """How an upsert treats what the frame lacks, the past, and rows that are invalid.

    Attributes:
        missing: "delete" closes the current resources, in the datasources that the frame names, that it lacks.
        datasources: the datasources to look for such resources in, instead of those that the frame names.
        cascade: whether such a resource may take its live descendants with it.
        valid_from: the instant of the new versions; None for now.
        on_invalid: "fail" writes nothing if a row is invalid, "skip" writes the others.
    """

    missing: Literal["keep", "delete"] = "keep"
    datasources: tuple[str, ...] | None = None
    cascade: bool = False
    valid_from: datetime | None = None
    on_invalid: Literal["fail", "skip"] = "fail"


Progress = Callable[[TableSpec, UpsertReport], None]
"""Told after each commit what has been done in a table so far."""


def upsert(
    lake: Lake,
    wanted: Mapping[TableSpec, Wanted],
    options: UpsertOptions,
    stamp: Stamp,
    progress: Progress = lambda spec, report: None,
) -> dict[TableSpec, UpsertReport]:
    """Make resources of one or more types be as frames say; see `Namespace.upsert`.

    What is left of a batch whose job ended halfway is committed under the id of the run that began it.

    Args:
        lake: the lake.
        wanted: the wanted states of each type, root first.
        options: how to treat what the frames lack, the past, and invalid rows.
        stamp: who and why; all commits share its id.
        progress: told after each commit.

    Raises:
        InvalidInputError: an invalid row (with on_invalid="fail"), or what is to be closed has live children.
        ConflictError: a parent was deleted, or a child came, at the same time.
    """
    if stamp.batch_id is not None:
        lake.prepare_write(needs_lake=False)
        begun = first_commit_id(lake, wanted, Batch(stamp.batch_id))
        stamp = replace(stamp, commit_id=begun or stamp.commit_id)
    filled, planners, _ = _validated(lake, wanted, options, stamp)
    lake.begin_write()
    reports = {}
    for spec, planner in planners.items():
        reports[spec] = _commit(lake, spec, planner, options, stamp)
        progress(spec, reports[spec])
    if options.missing == "delete":
        for spec in (spec for spec in list(wanted)[-2::-1] if spec in filled):
            closed = _commit(lake, spec, _closer(lake, wanted[spec], options, stamp), options, stamp)
            reports[spec] = _with_closed(reports[spec], closed)
            progress(spec, reports[spec])
    return reports


def _with_closed(changed: UpsertReport, closed: UpsertReport) -> UpsertReport:
    return replace(
        changed,
        deleted=closed.deleted,
        commit_id=changed.commit_id or closed.commit_id,
        already_committed=changed.already_committed and closed.already_committed,
    )


def _parts(stamp: Stamp, closes_later: bool) -> tuple[str, ...]:
    """Return the parts of the stamp's batch that the first commit to a table completes: both, if no second follows."""
    if stamp.batch_id is None:
        return ()
    batch = Batch(stamp.batch_id)
    return (batch.changes,) if closes_later else (batch.changes, batch.closings)


def plan_upsert(
    lake: Lake, wanted: Mapping[TableSpec, Wanted], options: UpsertOptions, stamp: Stamp
) -> dict[TableSpec, UpsertReport]:
    """Return what `upsert` would do now; nothing is written, and no lake is made.

    Raises:
        InvalidInputError: what `upsert` would raise before it writes.
    """
    filled, _, plans = _validated(lake, wanted, options, stamp)
    closed = {list(wanted)[-1].namespace: plans[list(wanted)[-1]].doomed}
    for spec in list(wanted)[-2::-1] if options.missing == "delete" else ():
        if spec in filled:  # children first, so that a parent may go whose children go
            planner = _upserter(lake, wanted[spec], options, NO_LINEAGES, stamp, (), closed)
            closed[spec.namespace] = planner(lake.snapshot(spec)).report.doomed
    none = pl.Series(dtype=pl.String)
    return {
        spec: _told(replace(planned, doomed=closed.get(spec.namespace, none)), None) for spec, planned in plans.items()
    }


def _validated(
    lake: Lake, wanted: Mapping[TableSpec, Wanted], options: UpsertOptions, stamp: Stamp
) -> "tuple[set[TableSpec], dict[TableSpec, Planner], dict[TableSpec, _Upserted]]":
    """Plan an upsert of all types before anything is written.

    Returns:
        The types that have rows already (in the others there is nothing to close), and for each type its planner and
        what it plans now.
    """
    lake.prepare_write(needs_lake=False)
    _refuse_future(lake, options.valid_from)
    keep, last = replace(options, missing="keep"), list(wanted)[-1]
    promised, planners, plans = NO_LINEAGES, {}, {}
    filled = {spec for spec in wanted if lake.snapshot(spec).files.height}
    for spec, states in wanted.items():
        # nothing that comes later hangs on the resources of the last type: one commit changes and closes them
        closes_later = options.missing == "delete" and spec != last and spec in filled
        own = options if spec == last else keep
        planners[spec] = _upserter(lake, states, own, promised, stamp, _parts(stamp, closes_later))
        plans[spec] = planners[spec](lake.snapshot(spec)).report
        promised = pl.concat([promised, lineage_of(plans[spec].changes.created)]) if spec != last else promised
    return filled, planners, plans


def _commit(lake: Lake, spec: TableSpec, planner: Planner, options: UpsertOptions, stamp: Stamp) -> UpsertReport:
    """Commit to one table, with the closing of descendants before it and the looks across tables after it."""
    if options.cascade and options.missing == "delete":
        doomed = _report(planner(lake.table(spec).ensure())).doomed
        close_descendants(lake, spec, doomed, options.valid_from or lake.patience.now(), stamp)
    done = run_commit(lake, spec, planner, stamp)
    upserted = _report(done.plan)
    refuse_orphans(lake, upserted.seen, spec, upserted.changes.created)
    if len(upserted.doomed):
        refuse_left_behind(lake, spec, upserted.doomed)
    return _told(upserted, upserted.first_commit_id if done.version is None else stamp.commit_id)


def _told(upserted: "_Upserted", commit_id: str | None) -> UpsertReport:
    return UpsertReport(
        created=upserted.changes.created.height,
        updated=upserted.changes.updated.height,
        unchanged=upserted.changes.unchanged,
        deleted=len(upserted.doomed),
        rejected=_with_reason(upserted.changes.rejected),
        commit_id=commit_id,
        already_committed=upserted.is_repeat,
    )


def _report(plan: Plan) -> "_Upserted":
    upserted: _Upserted = plan.report
    return upserted


def _with_reason(rejected: pl.DataFrame) -> pl.DataFrame:
    """Name the column of reasons; a payload may have a field of that name."""
    return rejected.rename({REASON: "reason" if "reason" not in rejected.columns else "rejected_because"})


@dataclass(frozen=True)
class _Upserted:
    """What a planned upsert does.

    Attributes:
        changes: what it creates and updates.
        doomed: the identifiers that it closes.
        seen: the state that it was planned on.
        is_repeat: whether its batch is in the table already.
        first_commit_id: then, the id of the run that committed it, if it is remembered.
    """

    changes: Changes
    doomed: pl.Series
    seen: SteadyView
    is_repeat: bool = False
    first_commit_id: str | None = None


def _upserter(
    lake: Lake,
    wanted: Wanted,
    options: UpsertOptions,
    promised: pl.DataFrame,
    stamp: Stamp,
    parts: tuple[str, ...],
    gone: Mapping[str, pl.Series] = MappingProxyType({}),
) -> Planner:
    """Return the planner of one table.

    Args:
        lake: the lake.
        wanted: the wanted states.
        options: how to treat what the frame lacks, the past, and invalid rows.
        promised: the lineages of parents that the same operation makes.
        stamp: who and why.
        parts: the parts of a batch that its commit completes.
        gone: by namespace, what the same operation closes before: no children that are left.
    """

    def plan(base: Snapshot) -> Plan:
        spec, view = base.spec, SteadyView(BaseFirst(base, lake))
        if parts and is_committed(base, parts[0]):
            return _repeat(lake, base, wanted, stamp)
        explicit, planned = options.valid_from is not None, options.valid_from or lake.patience.now()
        known = read_known(base, wanted.rows["identifier"], wanted.given)
        has_new = known.current.height < wanted.rows.height
        parents = pl.concat([promised, parents_of(view, wanted, promised)]) if has_new else NO_LINEAGES
        changes = changes_on(base, wanted, known, parents, planned, explicit, stamp)
        delete = options.missing == "delete"
        doomed = _lacking(base, wanted, known, changes, options) if delete else changes.created.clear()
        closing = plan_closings(spec, doomed, planned, explicit, stamp.commit_id)
        changes = replace(changes, rejected=pl.concat([changes.rejected, closing.rejected], how="diagonal"))
        if options.on_invalid == "fail":
            refuse_rejected(spec, changes.rejected)
        closed = closing.rows["identifier"]
        if not options.cascade:
            refuse_parents(view, spec, closed, gone)
        rows = pl.concat([changes.created, changes.updated, closing.rows])
        return Plan(rows, premises_of(wanted, closed), _Upserted(changes, closed, view), parts)

    return remembered(plan)


def _closer(lake: Lake, wanted: Wanted, options: UpsertOptions, stamp: Stamp) -> Planner:
    """Plan the closings alone: what the frame holds was written before, and may have been changed by others since."""
    parts = () if stamp.batch_id is None else (Batch(stamp.batch_id).closings,)

    def plan(base: Snapshot) -> Plan:
        spec, view = base.spec, SteadyView(BaseFirst(base, lake))
        if parts and is_committed(base, parts[0]):
            return _repeat(lake, base, wanted, stamp)
        explicit, planned = options.valid_from is not None, options.valid_from or lake.patience.now()
        known = read_known(base, wanted.rows["identifier"], ())
        nothing = _no_changes(base, wanted)
        doomed = _lacking(base, wanted, known, nothing, options)
        closing = plan_closings(spec, doomed, planned, explicit, stamp.commit_id)
        if options.on_invalid == "fail":
            refuse_rejected(spec, closing.rejected)
        closed = closing.rows["identifier"]
        if not options.cascade:
            refuse_parents(view, spec, closed)
        return Plan(closing.rows, premises_of(wanted, closed), _Upserted(nothing, closed, view), parts)

    return remembered(plan)


def _repeat(lake: Lake, base: Snapshot, wanted: Wanted, stamp: Stamp) -> Plan:
    """Plan nothing: the batch is in the table."""
    nothing = _no_changes(base, wanted)
    first = first_commit_id(lake, [base.spec], Batch(stamp.batch_id or ""))
    seen = SteadyView(BaseFirst(base, lake))
    no_one = nothing.created["identifier"]
    return Plan(nothing.created, Premises(no_one), _Upserted(nothing, no_one, seen, True, first))


def _no_changes(base: Snapshot, wanted: Wanted) -> Changes:
    nothing = base.collect(base.rows.head(0))
    return Changes(nothing, nothing, 0, wanted.rejected.clear())


def _lacking(base: Snapshot, wanted: Wanted, known: Known, changes: Changes, options: UpsertOptions) -> pl.DataFrame:
    """Return the current rows, in the datasources that the frame (or the caller) names, that the frame lacks."""
    if options.datasources is None:
        named = pl.concat([known.current["datasource_id"], changes.created["datasource_id"]]).unique()
    else:
        named = pl.Series(options.datasources, dtype=pl.String)
    if named.is_empty():
        return changes.created.clear()
    rows = base.current(pl.col("datasource_id").is_in(named.implode()))
    held = wanted.mentioned.alias("identifier").to_frame().lazy()
    lacking = base.collect(rows.join(held, on="identifier", how="anti"))
    if options.cascade and base.spec.type_name in base.spec.payload.parent_types:
        below = live_descendants(base, lacking["identifier"])
        lacking = pl.concat([lacking, below]).unique("identifier", maintain_order=True)
    _refuse_contradiction(wanted, known, lacking["identifier"])
    return lacking


def _refuse_contradiction(wanted: Wanted, known: Known, doomed: pl.Series) -> None:
    """Refuse a frame that holds a resource of the same table whose parent it lacks, with missing="delete"."""
    edges = ["identifier", "parent_identifier"]
    held = pl.concat([wanted.rows.select(edges), known.current.select(edges)]).filter(
        pl.col("identifier").is_in(doomed.implode()) | pl.col("parent_identifier").is_in(doomed.implode())
    )
    if held.height:
        raise InvalidInputError(
            f"the frame holds {name_some(held['identifier'].unique().sort(), 5)} but lacks an ancestor, which "
            "missing='delete' would close. Put the ancestor into the frame, or leave its descendants out."
        )


def _refuse_future(lake: Lake, valid_from: datetime | None) -> None:
    if valid_from is not None and valid_from > lake.patience.now():
        raise InvalidInputError(
            f"valid_from={valid_from.isoformat()} lies in the future; history is loaded with past instants."
        )
