"""Revert: one operation, in all its tables, is undone as new versions.

What it created is deleted (children before parents), what it updated gets a version with the values before, what it
deleted comes back (parents first). Nothing is written unless all of it is as the operation left it. A revert that was
cut off is finished by running it again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec, all_specs
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.lake import scd2
from vxdata.lake.audit import all_records
from vxdata.lake.change import lineage_of, revived_rows
from vxdata.lake.delete import plan_closings, refuse_left_behind
from vxdata.lake.effects import CHANGED, CREATED, DELETED, OPEN, UPDATED, effects_of, lifetimes
from vxdata.lake.intent import Plan, Planner, Premises, Stamp
from vxdata.lake.lake import BaseFirst, Lake, SteadyView
from vxdata.lake.lookup import among, live_children, read_lineages, read_versions, rows_among, touched_by
from vxdata.lake.planning import NO_LINEAGES, refuse_orphans
from vxdata.lake.run import remembered, run_commit
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.unregistered import refuse_unregistered
from vxdata.schemas.registry import STANDARD_COLUMNS

_KINDS = (CREATED, UPDATED, DELETED)


@dataclass(frozen=True)
class RevertReport:
    """What a revert did, or would do.

    Attributes:
        created: how many resources came back, by namespace.
        updated: how many got their values of before.
        deleted: how many were closed, because the operation had made them.
        refused: what stands in the way: namespace, identifier, reason; empty if the revert was done.
        commit_id: the revert's id in the audit log; None for a dry run.
    """

    created: dict[str, int]
    updated: dict[str, int]
    deleted: dict[str, int]
    refused: pl.DataFrame = field(repr=False, compare=False)
    commit_id: str | None = None


@dataclass(frozen=True)
class _Target:
    """The operation to undo.

    Attributes:
        commit_id: its id.
        specs: its tables, root first.
        undone_by: the reverts of it so far, newest first, that are not undone themselves.
        undone: all commits that are undone, and the reverts that undo them.
    """

    commit_id: str
    specs: tuple[TableSpec, ...]
    undone_by: tuple[str, ...]
    undone: Mapping[str, str]


@dataclass(frozen=True)
class _Found:
    """What the operation did to each resource of a table (see `effects_of`), and all physical rows of these."""

    effects: pl.DataFrame
    rows: pl.LazyFrame

    def open(self, kind: str) -> pl.DataFrame:
        """Return what is as the operation left it."""
        return self.effects.filter(pl.col("state") == OPEN, pl.col("kind") == kind)


_Finder = Callable[[Snapshot], _Found]


@dataclass(frozen=True)
class _Undone:
    """What a planned commit of a revert does: how many rows of each kind, and what stands in its way."""

    counts: Mapping[str, int]
    refused: pl.DataFrame
    seen: SteadyView


def revert(lake: Lake, commit_id: str, dry_run: bool, stamp: Stamp) -> RevertReport:
    """Undo one operation; see `Commits.revert`.

    Raises:
        NotFoundError: no commit has this id.
        InvalidInputError: it changed nothing, it was reverted already, what it wrote was changed since, or erased, or
            there is a table whose type is not registered here.
    """
    lake.prepare_write(needs_lake=True)
    refuse_unregistered(lake.store, f"revert {commit_id!r}")
    target = _find_target(lake, commit_id)
    if target.undone_by:
        stamp = replace(stamp, commit_id=target.undone_by[0])
    stamp = replace(stamp, undoes=commit_id)
    find = _finder(target, stamp)
    revivers = _revivers(lake, target, find, stamp)
    doomed = {spec: find(lake.snapshot(spec)).open(CREATED)["identifier"] for spec in target.specs}
    removers = {spec: _remover(lake, find, doomed, stamp) for spec in reversed(target.specs)}
    plans = [(spec, planner(lake.snapshot(spec))) for part in (revivers, removers) for spec, planner in part.items()]
    planned = _report(plans, None)
    if dry_run:
        return planned
    _refuse(commit_id, planned.refused)
    if target.undone_by and all(plan.rows.is_empty() for _, plan in plans):
        raise InvalidInputError(f"{commit_id!r} was reverted already, by {target.undone_by[0]!r}.")
    if all(plan.rows.is_empty() for _, plan in plans):
        raise InvalidInputError(f"{commit_id!r}: nothing of what it changed is left; it was erased.")
    lake.begin_write()
    done = [(spec, _commit(lake, spec, _strict(planner, commit_id), stamp)) for spec, planner in revivers.items()]
    done += [(spec, _commit(lake, spec, _strict(planner, commit_id), stamp)) for spec, planner in removers.items()]
    return _report(done, stamp.commit_id)


def _commit(lake: Lake, spec: TableSpec, planner: Planner, stamp: Stamp) -> Plan:
    """Commit to one table, with the looks across tables after it."""
    plan = run_commit(lake, spec, planner, stamp).plan
    refuse_orphans(lake, plan.report.seen, [plan.rows.filter(pl.col("closes").is_null())])
    if plan.premises.childless.len():
        refuse_left_behind(lake, spec, plan.premises.childless)
    return plan


def _find_target(lake: Lake, commit_id: str) -> _Target:
    """Find the tables of an operation in the audit log, and who reverted it."""
    records = list(all_records(lake, all_specs()))
    its = [record for record in records if record.get("commit_id") == commit_id]
    if not its:
        raise NotFoundError(f"no commit has the id {commit_id!r}; client.commits.list() shows them.")
    changed = {record["namespace"] for record in its if any((record.get("counts") or {}).get(kind) for kind in _KINDS)}
    if not changed:
        raise InvalidInputError(f"{commit_id!r} ({its[0].get('operation')}) changed no resource: nothing to revert.")
    specs = tuple(spec for spec in all_specs() if spec.namespace in changed)
    reverts = {r["commit_id"]: r["undoes"] for r in records if r.get("operation") == "revert" and r.get("undoes")}
    valid = {revert: undone for revert, undone in reverts.items() if not _is_undone(revert, reverts)}
    undone_by = tuple(revert for revert, undone in valid.items() if undone == commit_id)
    return _Target(commit_id, specs, undone_by, {undone: revert for revert, undone in valid.items()})


def _is_undone(commit_id: str, reverts: Mapping[str, str]) -> bool:
    """Whether a commit was reverted, by a revert that is not undone itself."""
    return any(undone == commit_id and not _is_undone(revert, reverts) for revert, undone in reverts.items())


def _finder(target: _Target, stamp: Stamp) -> _Finder:
    """Return what finds, once for each version of a table, what the operation did there."""
    known: dict[tuple[str, int], _Found] = {}

    def find(base: Snapshot) -> _Found:
        key = (base.table_id, base.version)
        if key not in known:
            rows = rows_among(base, touched_by(base, target.commit_id))
            undone_by = [*target.undone_by, stamp.commit_id]
            effects = effects_of(lifetimes(rows), target.commit_id, undone_by, target.undone)
            known[key] = _Found(base.collect(effects), rows)
        return known[key]

    return find


# -- what comes back


def _revivers(lake: Lake, target: _Target, find: _Finder, stamp: Stamp) -> dict[TableSpec, Planner]:
    """Return the planners of what comes back and of what gets its values of before, root first."""
    planners: dict[TableSpec, Planner] = {}
    promised, planned = NO_LINEAGES, lake.patience.now()
    for spec in target.specs:
        planners[spec] = _reviver(lake, find, promised, planned, stamp)
        rows = planners[spec](lake.snapshot(spec)).rows
        promised = pl.concat([promised, lineage_of(rows.filter(pl.col("closes").is_null()))])
    return planners


def _reviver(lake: Lake, find: _Finder, promised: pl.DataFrame, planned: datetime, stamp: Stamp) -> Planner:
    def plan(base: Snapshot) -> Plan:
        view, found = SteadyView(BaseFirst(base, lake)), find(base)
        gone, changed = found.open(DELETED), found.open(UPDATED)
        versions = read_versions(base, found.rows, gone.select("identifier", valid_from="before"))
        named = versions["parent_identifier"].drop_nulls().unique()
        parents = pl.concat(
            [promised, read_lineages(view, named.filter(~named.is_in(promised["identifier"].implode())))]
        )
        last = base.collect(scd2.last_instants(among(found.rows, gone["identifier"])))
        revived, orphans = revived_rows(base.spec, versions, last, parents, planned, stamp.commit_id)
        renewed = scd2.next_rows(
            _with_values_before(base, found.rows, changed).lazy(), planned, stamp.commit_id
        ).collect()
        rows = pl.concat([revived, renewed.select(revived.columns)])
        counts = {CREATED: revived.height, UPDATED: renewed.height}
        refused = pl.concat([_changed_since(base, found.effects), _parentless(base, orphans)])
        return Plan(rows, _premises(rows), _Undone(counts, refused, view))

    return remembered(plan)


def _with_values_before(base: Snapshot, rows: pl.LazyFrame, changed: pl.DataFrame) -> pl.DataFrame:
    """Return the current rows with license and payload as before, columns unknown to this SDK included (W3)."""
    current = _current(base, rows, changed["identifier"])
    values = [name for name in current.columns if name not in STANDARD_COLUMNS or name == "license"]
    before = read_versions(base, rows, changed.select("identifier", valid_from="before")).select("identifier", *values)
    return current.drop(values).join(before, on="identifier").select(current.columns)


def _current(base: Snapshot, rows: pl.LazyFrame, identifiers: pl.Series) -> pl.DataFrame:
    its = among(rows, identifiers)
    return base.collect(scd2.current(its, scd2.closings_of(its)))


def _premises(rows: pl.DataFrame) -> Premises:
    return Premises(pl.concat([rows["identifier"], rows["parent_identifier"].drop_nulls()]).unique())


def _changed_since(base: Snapshot, effects: pl.DataFrame) -> pl.DataFrame:
    changed = effects.filter(pl.col("state") == CHANGED)
    words = pl.format("was changed since by commit {}", pl.col("changed_by").fill_null("of another writer"))
    return _refusals(base, changed, words)


def _parentless(base: Snapshot, orphans: pl.DataFrame) -> pl.DataFrame:
    return _refusals(base, orphans, pl.format("its parent {} is not live", "parent_identifier"))


def _refusals(base: Snapshot, rows: pl.DataFrame, reason: pl.Expr) -> pl.DataFrame:
    return rows.select(pl.lit(base.spec.namespace).alias("namespace"), "identifier", reason.alias("reason"))


# -- what goes


def _remover(lake: Lake, find: _Finder, doomed: Mapping[TableSpec, pl.Series], stamp: Stamp) -> Planner:
    planned = lake.patience.now()

    def plan(base: Snapshot) -> Plan:
        view = SteadyView(BaseFirst(base, lake))
        found = find(base)
        made = found.open(CREATED)["identifier"]
        rows = plan_closings(base.spec, _current(base, found.rows, made), planned, False, stamp.commit_id).rows
        refused = pl.concat([_changed_since(base, found.effects), _with_children(view, base, made, doomed)])
        undone = _Undone({DELETED: rows.height}, refused, view)
        return Plan(rows, Premises(made, childless=made), undone)

    return remembered(plan)


def _with_children(
    view: SteadyView, base: Snapshot, made: pl.Series, doomed: Mapping[TableSpec, pl.Series]
) -> pl.DataFrame:
    """Return what cannot go, because it has live children that the operation did not make."""
    going = pl.concat([*doomed.values(), made]).implode()
    found = pl.concat([_NO_CHILDREN, *live_children(view, base.spec, made).values()])
    left = (
        found.filter(~pl.col("identifier").is_in(going)).group_by("parent_identifier").len().sort("parent_identifier")
    )
    words = pl.format("has {} live children that the commit did not make", "len")
    return _refusals(base, left.rename({"parent_identifier": "identifier"}), words)


_NO_CHILDREN = pl.DataFrame(schema={"identifier": pl.String(), "parent_identifier": pl.String()})


# -- all of it


def _strict(planner: Planner, commit_id: str) -> Planner:
    """Return a planner that raises where something stands in the way: somebody was quicker."""

    def plan(base: Snapshot) -> Plan:
        planned = planner(base)
        _refuse(commit_id, planned.report.refused)
        return planned

    return plan


def _refuse(commit_id: str, refused: pl.DataFrame) -> None:
    if refused.height:
        some = "; ".join(f"{r['identifier']!r} {r['reason']}" for r in refused.head(10).iter_rows(named=True))
        more = f"; and {refused.height - 10} more" if refused.height > 10 else ""
        raise InvalidInputError(
            f"{commit_id!r} cannot be reverted, {refused.height} resources stand in the way: {some}{more}. Revert the "
            "later commits first; a dry run gives the whole list."
        )


def _report(plans: list[tuple[TableSpec, Plan]], commit_id: str | None) -> RevertReport:
    counts: dict[str, dict[str, int]] = {kind: {} for kind in _KINDS}
    for spec, plan in plans:
        for kind, count in plan.report.counts.items():
            counts[kind] |= {spec.namespace: count} if count else {}
    refused = pl.concat(plan.report.refused for _, plan in plans).unique(["identifier", "reason"], maintain_order=True)
    return RevertReport(counts[CREATED], counts[UPDATED], counts[DELETED], refused, commit_id)
