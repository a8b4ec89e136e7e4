"""Upsert: many resources be as frames say, column-wise, one commit a table; what the frames lack may be closed.

Several types at once are validated before anything is written, committed root first, and what was withdrawn is closed
children first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec, descendant_specs
from vxdata.errors import InvalidInputError, name_some
from vxdata.lake.batch import Batch, first_commit_id
from vxdata.lake.delete import close_descendants, refuse_left_behind
from vxdata.lake.frames import REASON
from vxdata.lake.intent import Plan, Planner, Stamp
from vxdata.lake.lacking import UpsertOptions
from vxdata.lake.lake import Lake
from vxdata.lake.lookup import among, live_descendants
from vxdata.lake.planning import refuse_orphans
from vxdata.lake.run import run_commit
from vxdata.lake.scratch import Scratch, read_kept
from vxdata.lake.slices import Slices
from vxdata.lake.unregistered import refuse_unregistered
from vxdata.lake.upsert_plan import Before, Promised, Upserted, closer, upserter


@dataclass(frozen=True)
class UpsertReport:
    """What an upsert did.

    Attributes:
        created: resources that were made (or made again).
        updated: resources that got a new version.
        unchanged: resources that were already as the frame says.
        deleted: resources of this type that were closed because the frame lacks them.
        cascaded: by namespace, the resources of other types that were closed with those (with cascade=True).
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
    cascaded: Mapping[str, int] = field(default_factory=dict)


Progress = Callable[[TableSpec, UpsertReport], None]
"""Told after each commit what has been done in a table so far."""


def upsert(
    lake: Lake,
    wanted: Mapping[TableSpec, Slices],
    options: UpsertOptions,
    stamp: Stamp,
    scratch: Scratch,
    progress: Progress = lambda spec, report: None,
) -> dict[TableSpec, UpsertReport]:
    """Make resources of one or more types be as frames say; see `Namespace.upsert`.

    What is left of a batch whose job ended halfway is committed under the id of the run that began it.

    Args:
        lake: the lake.
        wanted: the wanted states of each type, root first.
        options: how to treat what the frames lack, the past, and invalid rows.
        stamp: who and why; all commits share its id.
        scratch: where planned rows are kept that exceed memory.
        progress: told after each commit.

    Raises:
        InvalidInputError: an invalid row (with on_invalid="fail"), or what is to be closed has live children, or may
            have some in a table whose type is not registered here.
        ConflictError: a parent was deleted, or a child came, at the same time.
    """
    lake.prepare_write(needs_lake=False)
    if stamp.batch_id is not None:
        begun = first_commit_id(lake, wanted, Batch(stamp.batch_id))
        stamp = replace(stamp, commit_id=begun or stamp.commit_id)
    foreseen = _validated(lake, wanted, options, stamp, scratch)
    lake.begin_write()
    reports = {}
    for spec, planner in foreseen.planners.items():
        reports[spec] = _commit(lake, spec, planner, options, stamp)
        progress(spec, reports[spec])
    for spec in foreseen.closed:
        closed = _commit(lake, spec, closer(lake, wanted[spec], options, stamp, scratch), options, stamp)
        reports[spec] = _with_closed(reports[spec], closed)
        progress(spec, reports[spec])
    return reports


def _with_closed(changed: UpsertReport, closed: UpsertReport) -> UpsertReport:
    return replace(
        changed,
        deleted=closed.deleted,
        cascaded=closed.cascaded,
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
    lake: Lake, wanted: Mapping[TableSpec, Slices], options: UpsertOptions, stamp: Stamp, scratch: Scratch
) -> dict[TableSpec, UpsertReport]:
    """Return what `upsert` would do now; nothing is written, and no lake is made.

    Raises:
        InvalidInputError: what `upsert` would raise before it writes.
    """
    lake.prepare_write(needs_lake=False)
    foreseen = _validated(lake, wanted, options, stamp, scratch)
    cascaded = _foreseen_cascades(lake, foreseen) if options.cascade else {}
    return {
        spec: _told(replace(planned, doomed=foreseen.doomed(spec)), None, cascaded.get(spec, {}))
        for spec, planned in foreseen.plans.items()
    }


def _foreseen_cascades(lake: Lake, foreseen: "_Foreseen") -> dict[TableSpec, dict[str, int]]:
    """Count what a cascade takes of other types, children first: what was closed before is not counted again."""
    closed = {spec.namespace: [foreseen.doomed(spec)] for spec in foreseen.plans}
    counts: dict[TableSpec, dict[str, int]] = {}
    for spec in reversed(list(foreseen.plans)):
        doomed = foreseen.doomed(spec)
        for below in descendant_specs(spec.type_name) if len(doomed) else ():
            if below != spec:
                before = closed.setdefault(below.namespace, [])
                found = live_descendants(lake.snapshot(below), doomed)["identifier"]
                new = found.filter(~found.is_in(pl.concat([found.clear(), *before]).implode()))
                before.append(new)
                counts.setdefault(spec, {})[below.namespace] = len(new)
    return {spec: {name: count for name, count in of.items() if count} for spec, of in counts.items()}


@dataclass(frozen=True)
class _Foreseen:
    """What an upsert of several types will do, as far as it can be known before anything is written.

    Attributes:
        planners: the planner of each type's first commit, root first.
        plans: what they plan now.
        closed: what a second commit to a type will close, children first, as far as it is planned; others need none.
    """

    planners: Mapping[TableSpec, Planner]
    plans: Mapping[TableSpec, Upserted]
    closed: Mapping[TableSpec, pl.Series]

    def doomed(self, spec: TableSpec) -> pl.Series:
        """Return what of a type is closed because its frame lacks it."""
        return self.closed.get(spec, self.plans[spec].doomed)

    def before(self, spec: TableSpec) -> Before:
        """Return what is done before a type's second commit."""
        planned = {above.namespace: plan.doomed for above, plan in self.plans.items()}
        return Before(
            gone=planned | {below.namespace: closed for below, closed in self.closed.items()},
            coming={above.namespace: plan.made for above, plan in self.plans.items()},
            datasources={spec.namespace: self.plans[spec].datasources()},
        )


def _validated(
    lake: Lake, wanted: Mapping[TableSpec, Slices], options: UpsertOptions, stamp: Stamp, scratch: Scratch
) -> _Foreseen:
    """Plan an upsert of all types before anything is written, the closing of what the frames lack included."""
    _refuse_future(lake, options.valid_from)
    keep, last = replace(options, missing="keep"), list(wanted)[-1]
    planners: dict[TableSpec, Planner] = {}
    plans: dict[TableSpec, Upserted] = {}
    filled = {spec for spec in wanted if lake.snapshot(spec).files.height}  # elsewhere there is nothing to close
    for spec, states in wanted.items():
        # nothing that comes later hangs on the resources of the last type: one commit changes and closes them
        closes_later = options.missing == "delete" and spec != last and spec in filled
        own = options if spec == last else keep
        parts = _parts(stamp, closes_later)
        planners[spec] = upserter(lake, states, own, _promised(spec, plans), stamp, parts, scratch)
        plans[spec] = planners[spec](lake.snapshot(spec)).report
    foreseen = _Foreseen(planners, plans, {})
    for spec in list(wanted)[-2::-1] if options.missing == "delete" else ():
        if spec in filled:
            planner = closer(lake, wanted[spec], options, stamp, scratch, foreseen.before(spec))
            doomed = planner(lake.snapshot(spec)).report.doomed
            foreseen = replace(foreseen, closed={**foreseen.closed, spec: doomed})
    if any(len(doomed) for doomed in (*foreseen.closed.values(), *(plan.doomed for plan in plans.values()))):
        refuse_unregistered(lake.store, "missing='delete'")
    if options.cascade:
        _refuse_held_descendants(lake, wanted, foreseen)
    return foreseen


def _refuse_held_descendants(lake: Lake, wanted: Mapping[TableSpec, Slices], foreseen: _Foreseen) -> None:
    """Refuse frames that hold what descends from something that they lack: a cascade would close it with that."""
    for spec in foreseen.plans:
        doomed = foreseen.doomed(spec)
        below = [s for s in descendant_specs(spec.type_name) if s in wanted and s != spec] if len(doomed) else []
        for child in below:
            lost = live_descendants(lake.snapshot(child), doomed)["identifier"].implode()
            mentioned = (wanted[child].mentioned(within) for within in wanted[child].ranges)
            new = (
                piece.select("identifier", "ancestors").explode("ancestors") for piece in foreseen.plans[child].lineages
            )
            held = pl.concat(
                [
                    *(names.filter(names.is_in(lost)) for names in mentioned),
                    *(read_kept(among(lines, doomed, "ancestors"))["identifier"] for lines in new),
                ]
            )
            if len(held):
                raise InvalidInputError(
                    f"the frames hold {name_some(held.unique().sort(), 5)} but lack an ancestor of the namespace "
                    f"{spec.namespace}, which missing='delete' would close. Put the ancestor into its frame, or leave "
                    "its descendants out."
                )


def _promised(spec: TableSpec, plans: Mapping[TableSpec, Upserted]) -> Promised:
    """Return the lineages of the new resources that may be parents of a type."""
    parents = [planned for above, planned in plans.items() if above.type_name in spec.payload.parent_types]
    return tuple(piece for planned in parents for piece in planned.lineages)


def _commit(lake: Lake, spec: TableSpec, planner: Planner, options: UpsertOptions, stamp: Stamp) -> UpsertReport:
    """Commit to one table, with the closing of descendants before it and the looks across tables after it."""
    cascaded: dict[str, int] = {}
    if options.cascade and options.missing == "delete":
        doomed = _report(planner(lake.table(spec).ensure())).doomed
        cascaded = close_descendants(lake, spec, doomed, options.valid_from or lake.patience.now(), stamp)
    done = run_commit(lake, spec, planner, stamp)
    upserted = _report(done.plan)
    refuse_orphans(lake, upserted.seen, upserted.placed())
    if len(upserted.doomed):
        refuse_left_behind(lake, spec, upserted.doomed)
    return _told(upserted, upserted.first_commit_id if done.version is None else stamp.commit_id, cascaded)


def _told(upserted: Upserted, commit_id: str | None, cascaded: Mapping[str, int]) -> UpsertReport:
    return UpsertReport(
        **upserted.counts,
        unchanged=upserted.unchanged,
        rejected=_with_reason(upserted.rejected),
        commit_id=commit_id,
        already_committed=upserted.is_repeat,
        cascaded=cascaded,
    )


def _report(plan: Plan) -> Upserted:
    upserted: Upserted = plan.report
    return upserted


def _with_reason(rejected: pl.DataFrame) -> pl.DataFrame:
    """Name the column of reasons; a payload may have a field of that name."""
    return rejected.rename({REASON: "reason" if "reason" not in rejected.columns else "rejected_because"})


def _refuse_future(lake: Lake, valid_from: datetime | None) -> None:
    if valid_from is not None and valid_from > lake.patience.now():
        raise InvalidInputError(
            f"valid_from={valid_from.isoformat()} lies in the future; history is loaded with past instants."
        )
