"""Deletes: tombstones for resources and their descendants, deepest first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import polars as pl

from vxdata.catalog.table import TableSpec, descendant_specs
from vxdata.errors import ConflictError, InvalidInputError, NotFoundError, name_some
from vxdata.lake import scd2
from vxdata.lake.frames import REASON
from vxdata.lake.intent import Plan, Premises, Stamp
from vxdata.lake.lake import BaseFirst, Lake, View
from vxdata.lake.lookup import among, live_children, live_descendants, read_current
from vxdata.lake.past import describe_missing
from vxdata.lake.planning import live_orphans
from vxdata.lake.run import run_commit
from vxdata.lake.scratch import read_kept
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.unregistered import refuse_unregistered
from vxdata.schemas.columns import INSTANT
from vxdata.schemas.registry import STANDARD_COLUMNS


@dataclass(frozen=True)
class DeleteReport:
    """What a delete closed.

    Attributes:
        deleted: how many resources, by namespace, deepest first; the resource itself included.
        commit_id: the operation's id in the audit log.
    """

    deleted: dict[str, int]
    commit_id: str


@dataclass(frozen=True)
class Closings:
    """Planned tombstones, and the rows whose past forbids the instant that the caller named."""

    rows: pl.DataFrame
    rejected: pl.DataFrame


def plan_closings(spec: TableSpec, doomed: pl.DataFrame, planned: datetime, explicit: bool, commit_id: str) -> Closings:
    """Plan the tombstones of current rows."""
    is_late = pl.lit(explicit) & (pl.col("valid_from") >= pl.lit(planned, INSTANT))
    above = doomed.filter(is_late).select(pl.col("ancestors").explode()).to_series()
    stays = is_late | pl.col("identifier").is_in(above.implode())  # else a resource that stays would lose its parent
    late = doomed.filter(stays).select(
        "identifier",
        "parent_identifier",
        pl.lit("valid_from is not later than the version that would be closed, or than one below it").alias(REASON),
    )
    emptied = [name for name in doomed.columns if name not in STANDARD_COLUMNS or name == "license"]
    rows = scd2.tombstones(doomed.filter(~stays).lazy(), planned, commit_id, emptied)
    return Closings(rows.select(doomed.columns).collect(), late)


def delete(lake: Lake, spec: TableSpec, identifier: str, cascade: bool, stamp: Stamp) -> DeleteReport:
    """Close the current version of one resource, and of all its descendants if asked to.

    Raises:
        NotFoundError: the resource is not live, or was deleted (and perhaps created again) while this was tried.
        InvalidInputError: it has live children and `cascade` is false; the message counts them. Or there is a table
            whose type is not registered here: it may hold children.
        ConflictError: a child came while it was deleted.
    """
    lake.prepare_write(needs_lake=True)
    lake.begin_write()
    planned = lake.patience.now()
    target = pl.Series([identifier], dtype=pl.String)
    first = read_current(lake.snapshot(spec), target)
    if first.is_empty():
        raise NotFoundError(describe_missing(lake, target))
    refuse_unregistered(lake.store, f"delete {identifier!r}")
    counts = close_descendants(lake, spec, target, planned, stamp) if cascade else {}

    def plan(base: Snapshot) -> Plan:
        current = read_current(base, target)
        if current.is_empty():
            raise NotFoundError(describe_missing(lake, target))
        if current["created_at"].item() != first["created_at"].item():
            raise NotFoundError(f"{identifier!r} was deleted, and created again, while this delete was tried.")
        if not cascade:
            refuse_parents(BaseFirst(base, lake), spec, target)
        below = (
            live_descendants(base, target)
            if cascade and spec.type_name in spec.payload.parent_types
            else current.clear()
        )
        return _closing_plan(spec, pl.concat([below, current]), planned, stamp)

    counts[spec.namespace] = run_commit(lake, spec, plan, stamp).plan.rows.height
    refuse_left_behind(lake, spec, target)
    return DeleteReport(counts, stamp.commit_id)


def close_descendants(lake: Lake, spec: TableSpec, roots: pl.Series, planned: datetime, stamp: Stamp) -> dict[str, int]:
    """Close all descendants of some resources in the other tables, deepest first; return the counts by namespace."""
    counts = {}
    for below in reversed([s for s in descendant_specs(spec.type_name) if s != spec]):

        def plan(base: Snapshot, below: TableSpec = below) -> Plan:
            return _closing_plan(below, live_descendants(base, roots), planned, stamp)

        if lake.snapshot(below).files.height:
            counts[below.namespace] = run_commit(lake, below, plan, stamp).plan.rows.height
    return {namespace: count for namespace, count in counts.items() if count}


def _closing_plan(spec: TableSpec, doomed: pl.DataFrame, planned: datetime, stamp: Stamp) -> Plan:
    rows = plan_closings(spec, doomed, planned, False, stamp.commit_id).rows
    return Plan(rows, Premises(doomed["identifier"], childless=doomed["identifier"]))


def refuse_parents(
    view: View,
    spec: TableSpec,
    doomed: pl.Series,
    gone: Mapping[str, pl.Series] = MappingProxyType({}),
    coming: Mapping[str, Iterable[pl.LazyFrame]] = MappingProxyType({}),
) -> None:
    """Raise if resources that are to be deleted have live children that are not deleted with them, or before them.

    Args:
        view: where to look for children.
        spec: the table of the resources.
        doomed: their identifiers.
        gone: by namespace, what the same operation deletes before.
        coming: by namespace, the physical rows that the same operation creates before, piece by piece.
    """
    if doomed.is_empty():
        return
    children = live_children(view, spec, doomed)
    for namespace, created in coming.items():
        edges = [piece.select("identifier", "parent_identifier") for piece in created]
        new = [read_kept(among(piece, doomed, "parent_identifier")) for piece in edges]
        children[namespace] = pl.concat([*([children[namespace]] if namespace in children else []), *new])
    for namespace, closed in {**gone, spec.namespace: doomed}.items():
        if namespace in children:
            children[namespace] = children[namespace].filter(~pl.col("identifier").is_in(closed.implode()))
    counts = {namespace: rows.height for namespace, rows in children.items() if rows.height}
    if counts:
        words = ", ".join(f"{count} {namespace}" for namespace, count in counts.items())
        some = name_some(pl.concat([rows["parent_identifier"] for rows in children.values()]).unique().sort(), 5)
        raise InvalidInputError(
            f"{some}: live children are left ({words}). Delete them first, or pass cascade=True (--cascade)."
        )


def refuse_left_behind(view: View, spec: TableSpec, deleted: pl.Series) -> None:
    """Look, after a commit, whether descendants came while their ancestors were deleted.

    A child's writer sees that its parent is still live; if its own parent goes later, only the deleter can tell. What
    hangs on a resource that was created again by then is none of it.

    Raises:
        ConflictError: some did; names them.
    """
    left = [live_orphans(view, live_descendants(view.snapshot(s), deleted)) for s in descendant_specs(spec.type_name)]
    names = pl.concat(left).sort() if left else pl.Series(dtype=pl.String)
    if len(names):
        raise ConflictError(
            f"{name_some(deleted, 3)}: deleted, but descendants came meanwhile: {name_some(names)}. Delete them, "
            "or create their parents again."
        )
