"""Upsert: many resources be as frames say, column-wise, one commit a table; what the frames lack may be closed.

Several types at once are validated before anything is written, committed root first, and what was withdrawn is closed
children first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import InvalidInputError
from vxdata.lake.batch import Batch, first_commit_id, is_committed
from vxdata.lake.change import Changes, lineage_of
from vxdata.lake.commit import Plan, Planner, Premises, Stamp
from vxdata.lake.delete import close_descendants, plan_closings, refuse_left_behind, refuse_parents
from vxdata.lake.frames import REASON, Wanted
from vxdata.lake.lacking import UpsertOptions, lacking
from vxdata.lake.lake import BaseFirst, Lake, SteadyView
from vxdata.lake.lookup import read_known
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
    lake.prepare_write(needs_lake=False)
    if stamp.batch_id is not None:
        begun = first_commit_id(lake, wanted, Batch(stamp.batch_id))
        stamp = replace(stamp, commit_id=begun or stamp.commit_id)
    foreseen = _validated(lake, wanted, options, stamp)
    lake.begin_write()
    reports = {}
    for spec, planner in foreseen.planners.items():
        reports[spec] = _commit(lake, spec, planner, options, stamp)
        progress(spec, reports[spec])
    for spec in foreseen.closed:
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
    lake.prepare_write(needs_lake=False)
    foreseen = _validated(lake, wanted, options, stamp)
    return {
        spec: _told(replace(planned, doomed=foreseen.closed.get(spec, planned.doomed)), None)
        for spec, planned in foreseen.plans.items()
    }


@dataclass(frozen=True)
class _Foreseen:
    """What an upsert of several types will do, as far as it can be known before anything is written.

    Attributes:
        planners: the planner of each type's first commit, root first.
        plans: what they plan now.
        closed: what a second commit to a type will close, children first, as far as it is planned; others need none.
    """

    planners: Mapping[TableSpec, Planner]
    plans: "Mapping[TableSpec, _Upserted]"
    closed: Mapping[TableSpec, pl.Series]

    @property
    def gone(self) -> dict[str, pl.Series]:
        """What is closed before, by namespace: no children that are left."""
        planned = {spec.namespace: plan.doomed for spec, plan in self.plans.items()}
        return planned | {spec.namespace: closed for spec, closed in self.closed.items()}

    @property
    def coming(self) -> dict[str, pl.DataFrame]:
        """What is created before, by namespace: children, though they are not live yet."""
        return {spec.namespace: plan.changes.created for spec, plan in self.plans.items()}


def _validated(lake: Lake, wanted: Mapping[TableSpec, Wanted], options: UpsertOptions, stamp: Stamp) -> _Foreseen:
    """Plan an upsert of all types before anything is written, the closing of what the frames lack included."""
    _refuse_future(lake, options.valid_from)
    keep, last = replace(options, missing="keep"), list(wanted)[-1]
    promised, planners, plans = NO_LINEAGES, {}, {}
    filled = {spec for spec in wanted if lake.snapshot(spec).files.height}  # elsewhere there is nothing to close
    for spec, states in wanted.items():
        # nothing that comes later hangs on the resources of the last type: one commit changes and closes them
        closes_later = options.missing == "delete" and spec != last and spec in filled
        own = options if spec == last else keep
        planners[spec] = _upserter(lake, states, own, promised, stamp, _parts(stamp, closes_later))
        plans[spec] = planners[spec](lake.snapshot(spec)).report
        promised = pl.concat([promised, lineage_of(plans[spec].changes.created)]) if spec != last else promised
    foreseen = _Foreseen(planners, plans, {})
    for spec in list(wanted)[-2::-1] if options.missing == "delete" else ():
        if spec in filled:
            planner = _closer(lake, wanted[spec], options, stamp, foreseen)
            doomed = planner(lake.snapshot(spec)).report.doomed
            foreseen = replace(foreseen, closed={**foreseen.closed, spec: doomed})
    return foreseen


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
) -> Planner:
    """Return the planner of one table.

    Args:
        lake: the lake.
        wanted: the wanted states.
        options: how to treat what the frame lacks, the past, and invalid rows.
        promised: the lineages of parents that the same operation makes.
        stamp: who and why.
        parts: the parts of a batch that its commit completes.
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
        doomed = lacking(base, wanted, known, changes.created, options) if delete else changes.created.clear()
        closing = plan_closings(spec, doomed, planned, explicit, stamp.commit_id)
        changes = replace(changes, rejected=pl.concat([changes.rejected, closing.rejected], how="diagonal"))
        if options.on_invalid == "fail":
            refuse_rejected(spec, changes.rejected)
        closed = closing.rows["identifier"]
        if not options.cascade:
            refuse_parents(view, spec, closed)
        rows = pl.concat([changes.created, changes.updated, closing.rows])
        return Plan(rows, premises_of(wanted, closed), _Upserted(changes, closed, view), parts)

    return remembered(plan)


def _closer(
    lake: Lake, wanted: Wanted, options: UpsertOptions, stamp: Stamp, foreseen: _Foreseen | None = None
) -> Planner:
    """Plan the closings alone: what the frame holds was written before, and may have been changed by others since.

    Before anything is written, the same planner tells what can be known of it, from what is foreseen.
    """
    parts = () if stamp.batch_id is None else (Batch(stamp.batch_id).closings,)

    def plan(base: Snapshot) -> Plan:
        spec, view = base.spec, SteadyView(BaseFirst(base, lake))
        if parts and is_committed(base, parts[0]):
            return _repeat(lake, base, wanted, stamp)
        explicit, planned = options.valid_from is not None, options.valid_from or lake.patience.now()
        known = read_known(base, wanted.rows["identifier"], ())
        nothing = _no_changes(base, wanted)
        before = foreseen or _Foreseen({}, {}, {})
        doomed = lacking(base, wanted, known, before.coming.get(spec.namespace, nothing.created), options)
        closing = plan_closings(spec, doomed, planned, explicit, stamp.commit_id)
        if options.on_invalid == "fail":
            refuse_rejected(spec, closing.rejected)
        closed = closing.rows["identifier"]
        if not options.cascade:
            refuse_parents(view, spec, closed, before.gone, before.coming)
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


def _refuse_future(lake: Lake, valid_from: datetime | None) -> None:
    if valid_from is not None and valid_from > lake.patience.now():
        raise InvalidInputError(
            f"valid_from={valid_from.isoformat()} lies in the future; history is loaded with past instants."
        )
