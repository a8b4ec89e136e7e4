"""Restore: what one delete closed, a resource and its descendants, comes back with its last content.

The delete is known by its commit id, which the tombstone carries, and after a fold the `closed_by` of the last version.
Parents come back before children. A restore that was cut off is finished by running it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from vxdata.catalog.table import TableSpec, descendant_specs
from vxdata.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from vxdata.lake import scd2
from vxdata.lake.audit import all_records
from vxdata.lake.change import lineage_of, revived_rows
from vxdata.lake.effects import deletions_of, lifetimes
from vxdata.lake.intent import Plan, Planner, Premises, Stamp
from vxdata.lake.lake import BaseFirst, Lake, SteadyView
from vxdata.lake.lookup import read_current, read_lineages, read_versions, rows_among, touched_by
from vxdata.lake.past import describe_missing
from vxdata.lake.planning import refuse_orphans
from vxdata.lake.run import remembered, run_commit
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.unregistered import refuse_unregistered


@dataclass(frozen=True)
class RestoreReport:
    """What a restore brought back, or would bring back.

    Attributes:
        restored: how many resources, by namespace, root first; the resource itself included.
        left_out: what the delete closed and the restore left as it is: namespace, identifier, reason.
        commit_id: the operation's id in the audit log; None for a dry run.
    """

    restored: dict[str, int]
    left_out: pl.DataFrame = field(repr=False, compare=False)
    commit_id: str | None


@dataclass(frozen=True)
class _Deletion:
    """The delete that is undone: what it closed first, its commit, and the restores of it that were cut off."""

    root: str
    commit_id: str
    restored_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Revived:
    """What a planned restore brings back in a table, what it leaves out, and what children may hang on."""

    left_out: pl.DataFrame
    lineages: pl.DataFrame
    seen: SteadyView


def restore(lake: Lake, spec: TableSpec, identifier: str, dry_run: bool, stamp: Stamp) -> RestoreReport:
    """Bring back a deleted resource, with those descendants that the same delete closed, or say what would come back.

    Raises:
        AlreadyExistsError: the resource is live.
        NotFoundError: it never existed, or its parent is not live.
        InvalidInputError: there is a table whose type is not registered here.
        ConflictError: a parent was deleted at the same time.
    """
    lake.prepare_write(needs_lake=True)
    refuse_unregistered(lake.store, f"restore {identifier!r}")
    deletion = _find_deletion(lake, spec, identifier)
    restored_by = deletion.restored_by[0] if deletion.restored_by else stamp.commit_id
    stamp = replace(stamp, undoes=deletion.commit_id, commit_id=restored_by)
    above = _parent_of(lake, spec, deletion)
    planners = _planners(lake, spec, deletion, above, stamp)
    if deletion.restored_by and all(plan.rows.is_empty() for _, plan in planners.values()):
        raise _is_live(identifier)
    if dry_run:
        return _report({below: plan for below, (_, plan) in planners.items()}, None)
    lake.begin_write()
    done: dict[TableSpec, Plan] = {}
    is_as_foreseen = True
    for below, (foreseeing, foreseen) in planners.items():
        planner = foreseeing if is_as_foreseen else _reviver(lake, deletion, above, stamp)
        done[below] = plan = run_commit(lake, below, planner, stamp).plan
        is_as_foreseen &= plan is foreseen
        above = pl.concat([above, plan.report.lineages])
    for plan in done.values():
        refuse_orphans(lake, plan.report.seen, [plan.rows])
    return _report(done, stamp.commit_id)


def _report(plans: Mapping[TableSpec, Plan], commit_id: str | None) -> RestoreReport:
    return RestoreReport(
        {below.namespace: plan.rows.height for below, plan in plans.items() if plan.rows.height},
        pl.concat(plan.report.left_out for plan in plans.values()),
        commit_id,
    )


def _planners(
    lake: Lake, spec: TableSpec, deletion: _Deletion, above: pl.DataFrame, stamp: Stamp
) -> Mapping[TableSpec, tuple[Planner, Plan]]:
    """Plan all tables before anything is written, root first: children hang on what is brought back above them."""
    planners: dict[TableSpec, tuple[Planner, Plan]] = {}
    for below in [spec, *(s for s in descendant_specs(spec.type_name) if s != spec)]:
        if below == spec or lake.snapshot(below).files.height:
            planner = _reviver(lake, deletion, above, stamp)
            planners[below] = (planner, planner(lake.snapshot(below)))
            above = pl.concat([above, planners[below][1].report.lineages])
    return planners


def _reviver(lake: Lake, deletion: _Deletion, above: pl.DataFrame, stamp: Stamp) -> Planner:
    planned = lake.patience.now()

    def plan(base: Snapshot) -> Plan:
        touched = touched_by(base, deletion.commit_id)
        rows = rows_among(base, touched)
        closed = base.collect(deletions_of(lifetimes(rows), deletion.commit_id, deletion.root))
        ours = pl.col("begun_by").is_in([*deletion.restored_by, stamp.commit_id])
        is_back, is_gone = pl.col("is_live") & ours, ~pl.col("is_live") & pl.col("is_last")
        if deletion.root in closed.filter(pl.col("is_live") & ~ours)["identifier"]:
            raise _is_live(deletion.root)
        back = lineage_of(read_current(base, closed.filter(is_back)["identifier"]))
        versions = read_versions(base, rows, closed.filter(is_gone).select("identifier", valid_from="before"))
        last = base.collect(scd2.last_instants(rows))
        parents = pl.concat([above, back])
        revived, orphans = revived_rows(base.spec, versions, last, parents, planned, stamp.commit_id)
        left_out = pl.concat([_left_out(base, closed.filter(~is_back & ~is_gone)), _parentless(base, orphans)])
        seen = SteadyView(BaseFirst(base, lake))
        return Plan(revived, _premises(revived), _Revived(left_out, pl.concat([lineage_of(revived), back]), seen))

    return remembered(plan)


def _premises(revived: pl.DataFrame) -> Premises:
    return Premises(pl.concat([revived["identifier"], revived["parent_identifier"].drop_nulls()]).unique())


def _left_out(base: Snapshot, closed: pl.DataFrame) -> pl.DataFrame:
    again, since = (
        pl.lit("was created again since, by commit "),
        pl.lit("was created again and deleted since, by commit "),
    )
    reason = pl.when("is_live").then(again).otherwise(since) + pl.col("changed_by").fill_null("unknown")
    return closed.select(pl.lit(base.spec.namespace).alias("namespace"), "identifier", reason.alias("reason"))


def _parentless(base: Snapshot, orphans: pl.DataFrame) -> pl.DataFrame:
    reason = pl.format("its parent {} was left out", "parent_identifier").alias("reason")
    return orphans.select(pl.lit(base.spec.namespace).alias("namespace"), "identifier", reason)


def _find_deletion(lake: Lake, spec: TableSpec, identifier: str) -> _Deletion:
    """Find the delete that closed a resource last; of a live one, the delete that a restore of it has undone."""
    base = lake.snapshot(spec)
    lives = base.collect(lifetimes(rows_among(base, pl.Series([identifier], dtype=pl.String))))
    if lives.is_empty():
        raise NotFoundError(f"{identifier!r} does not exist, and never did.")
    newest = lives.row(-1, named=True)
    if newest["end"] is None:
        return _find_undone(lake, spec, identifier, lives.filter(pl.col("created_at") == newest["created_at"]))
    if newest["ended_by"] is None:
        raise InvalidInputError(f"{identifier!r}: the commit that deleted it has no id; create the resource again.")
    return _Deletion(identifier, newest["ended_by"])


def _find_undone(lake: Lake, spec: TableSpec, identifier: str, incarnation: pl.DataFrame) -> _Deletion:
    restored_by = incarnation["commit_id"][0]
    for record in all_records(lake, [spec]):
        if record.get("commit_id") == restored_by and record.get("operation") == "restore":
            return _Deletion(identifier, record["undoes"], (restored_by,))
    raise _is_live(identifier)


def _is_live(identifier: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"{identifier!r} is live: there is nothing to restore. Its history is there to look at.")


def _parent_of(lake: Lake, spec: TableSpec, deletion: _Deletion) -> pl.DataFrame:
    """Return the lineage of the root's parent, if it has one.

    Raises:
        NotFoundError: the parent is not live.
    """
    base = lake.snapshot(spec)
    rows = base.collect(rows_among(base, pl.Series([deletion.root], dtype=pl.String)).filter(~pl.col("is_deleted")))
    parent = rows.sort("valid_from")["parent_identifier"].tail(1).drop_nulls()
    found = read_lineages(lake, parent)
    if parent.len() and found.is_empty():
        raise NotFoundError(
            f"{deletion.root!r} cannot be restored: its parent {describe_missing(lake, parent)}. Restore the parent "
            "first."
        )
    return found
