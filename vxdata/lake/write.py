"""Create, update and upsert: a planner for the commit primitive, and what has to be checked around it.

Across tables there is no atomicity: tables are committed root first, and afterwards the writer looks whether a parent
was deleted meanwhile (design, section 5, "Across tables").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

import polars as pl

from vxdata.catalog.table import TableSpec, table_spec
from vxdata.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, name_some
from vxdata.lake.change import LINEAGE_SCHEMA, Changes, Known, compare, lineage_of, plan_changes
from vxdata.lake.commit import Plan, Planner, Premises, Stamp
from vxdata.lake.delete import close_descendants, plan_closings, refuse_left_behind, refuse_parents
from vxdata.lake.frames import REASON, Wanted
from vxdata.lake.lake import BaseFirst, Lake, SteadyView, View
from vxdata.lake.lookup import live_descendants, read_changing, read_current, read_known, read_lineages
from vxdata.lake.past import describe_missing
from vxdata.lake.run import run_commit
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.registry import registry

NO_LINEAGES = pl.DataFrame(schema=LINEAGE_SCHEMA)


@dataclass(frozen=True)
class UpsertReport:
    """What an upsert did.

    Attributes:
        created: resources that were made (or made again).
        updated: resources that got a new version.
        unchanged: resources that were already as the frame says.
        deleted: resources that were closed because the frame lacks them.
        rejected: the rows that could not be written: identifier, parent_identifier, the frame's columns, reason.
        commit_id: the commit's id in the audit log; None if nothing was written.
    """

    created: int
    updated: int
    unchanged: int
    deleted: int
    rejected: pl.DataFrame = field(repr=False, compare=False)
    commit_id: str | None = None


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


def create(lake: Lake, wanted: Mapping[TableSpec, Wanted], stamp: Stamp) -> dict[str, pl.DataFrame]:
    """Create resources of one or more types.

    Args:
        lake: the lake.
        wanted: the new resources of each type, root first.
        stamp: who and why.

    Returns:
        The new physical rows of each namespace.

    Raises:
        AlreadyExistsError: some are live.
        NotFoundError: a parent is not live and not among the new ones.
        InvalidInputError: an identifier or a parent's type is wrong; two states of one identifier.
    """
    lake.begin_write()
    planned = lake.patience.now()
    promised = NO_LINEAGES
    planners = {}
    for spec, states in wanted.items():  # all is validated before anything is written
        planners[spec] = _creator(lake, spec, states, promised, planned, stamp)
        plan = planners[spec](lake.snapshot(spec))
        promised = pl.concat([promised, lineage_of(plan.rows)])
    done = {spec: run_commit(lake, spec, planners[spec], stamp).plan for spec in wanted}
    for spec, plan in done.items():
        refuse_orphans(lake, plan.report, spec, plan.rows)
    return {spec.namespace: plan.rows for spec, plan in done.items()}


def _creator(
    lake: Lake, spec: TableSpec, wanted: Wanted, promised: pl.DataFrame, planned: datetime, stamp: Stamp
) -> Planner:
    validated: dict[int, Plan] = {}

    def plan(base: Snapshot) -> Plan:
        if base.version not in validated:
            validated[base.version] = compute(base)
        return validated[base.version]

    def compute(base: Snapshot) -> Plan:
        view = SteadyView(BaseFirst(base, lake))
        known = read_known(base, wanted.rows["identifier"], ())
        if known.current.height:
            names = name_some(known.current["identifier"].sort())
            raise AlreadyExistsError(f"{names}: live already. Use update to change a resource, or upsert for either.")
        parents = pl.concat([promised, _parents_of(view, wanted, promised)])
        _refuse_missing_parents(lake, spec, wanted, parents)
        changes = _changes(base, wanted, known, parents, planned, False, stamp)
        refuse_rejected(spec, changes.rejected)
        return Plan(changes.created, _premises(wanted), view)

    return plan


def _parents_of(view: View, wanted: Wanted, promised: pl.DataFrame) -> pl.DataFrame:
    """Return the lineages of the live parents, without those of parents that the operation makes itself."""
    needed = wanted.rows["parent_identifier"].drop_nulls().unique()
    return read_lineages(view, needed.filter(~needed.is_in(promised["identifier"].implode())))


def _changes(
    base: Snapshot, wanted: Wanted, known: Known, parents: pl.DataFrame, planned: datetime, explicit: bool, stamp: Stamp
) -> Changes:
    compared = compare(wanted, known.current)
    changing = read_changing(base, known, compared.changed["identifier"])
    return plan_changes(
        base.spec, wanted, compared, changing, known.last, parents,
        planned=planned, explicit=explicit, commit_id=stamp.commit_id,
    )  # fmt: skip


def _refuse_missing_parents(lake: Lake, spec: TableSpec, wanted: Wanted, parents: pl.DataFrame) -> None:
    there = pl.concat([parents["identifier"], wanted.rows["identifier"]])
    named = wanted.rows["parent_identifier"].drop_nulls().unique()
    missing = named.filter(~named.is_in(there.implode())).sort()
    if missing.len() and spec.payload.parent_types:
        raise NotFoundError(
            f"parents of new {spec.namespace}: {describe_missing(lake, missing)}. Create them first, or in the same "
            "list."
        )


def _premises(wanted: Wanted, closed: pl.Series | None = None) -> Premises:
    own = (
        wanted.rows.lazy().select(pl.concat([pl.col("identifier"), pl.col("parent_identifier")])).collect().to_series()
    )
    parts = [own.drop_nulls(), *([] if closed is None else [closed])]
    return Premises(pl.concat(parts).unique(), pl.Series(dtype=pl.String) if closed is None else closed)


def refuse_rejected(spec: TableSpec, rejected: pl.DataFrame) -> None:
    """Raise if rows were rejected: the message names the first few and the reasons."""
    if rejected.height:
        some = "; ".join(f"{r['identifier']!r}: {r[REASON]}" for r in rejected.head(5).iter_rows(named=True))
        more = f"; and {rejected.height - 5} more" if rejected.height > 5 else ""
        raise InvalidInputError(
            f"{rejected.height} rows of {spec.namespace} cannot be written. {some}{more}. Nothing was written."
        )


def refuse_orphans(lake: View, seen: SteadyView, spec: TableSpec, created: pl.DataFrame) -> None:
    """Look, after a commit, whether the parents of the new resources are still live, with the same lineage.

    Args:
        lake: the newest state.
        seen: the state that the commit was planned on; a parent's table that did not change is not read again.
        spec: the table of the new resources.
        created: their physical rows.

    Raises:
        ConflictError: a parent was deleted meanwhile; names the children that are left behind.
    """
    parent_specs = [table_spec(registry().of_type(name)) for name in spec.payload.parent_types]
    if created.is_empty() or all(seen.is_newest(parent) for parent in parent_specs):
        return
    live = read_lineages(lake, created["parent_identifier"].drop_nulls().unique())
    line = live.select(
        pl.col("identifier").alias("parent_identifier"), pl.concat_list("ancestors", "identifier").alias("_line")
    )
    children = created.select("identifier", "parent_identifier", "ancestors")
    orphans = children.join(line, on="parent_identifier", how="left").filter(
        pl.col("_line").ne_missing(pl.col("ancestors"))
    )
    if orphans.height:
        raise ConflictError(
            f"{name_some(orphans['identifier'].sort())}: written, but the parent was deleted at the same time. Delete "
            "them, or create the parent again."
        )


def update(lake: Lake, spec: TableSpec, wanted: Wanted, expected: datetime | None, stamp: Stamp) -> pl.DataFrame:
    """Change one live resource.

    Args:
        lake: the lake.
        spec: the resource's table.
        wanted: one row with the given columns.
        expected: the `valid_from` that the current version must have; None for any.
        stamp: who and why.

    Returns:
        The physical row of the current version, whether it is new or not.

    Raises:
        NotFoundError: the resource is not live, or was deleted while the update was tried.
        ConflictError: the current version is not the expected one; nothing was written.
    """
    lake.begin_write()
    identifier = wanted.rows["identifier"].item()
    first_created_at: list[datetime] = []

    def plan(base: Snapshot) -> Plan:
        current = read_current(base, wanted.rows["identifier"])
        if current.is_empty():
            raise NotFoundError(describe_missing(lake, wanted.rows["identifier"]))
        _refuse_unexpected(identifier, current, expected)
        first_created_at.append(current["created_at"].item())
        if first_created_at[0] != first_created_at[-1]:
            raise NotFoundError(f"{identifier!r} was deleted, and created again, while this update was tried.")
        known = Known(current, _NO_PAST)
        changes = _changes(base, wanted, known, NO_LINEAGES, lake.patience.now(), False, stamp)
        refuse_rejected(spec, changes.rejected)
        return Plan(changes.updated, _premises(wanted), current)

    done = run_commit(lake, spec, plan, stamp).plan
    return done.rows if done.rows.height else done.report


_NO_PAST = pl.DataFrame(schema={"identifier": pl.String(), "last": pl.Datetime("us", "UTC")})


def _refuse_unexpected(identifier: str, current: pl.DataFrame, expected: datetime | None) -> None:
    found = current["valid_from"].item()
    if expected is not None and found != expected:
        raise ConflictError(
            f"{identifier!r}: the current version is of {found.isoformat()}, not of {expected.isoformat()}. Nothing "
            "was written; retrieve it and decide anew."
        )


def upsert(lake: Lake, spec: TableSpec, wanted: Wanted, options: UpsertOptions, stamp: Stamp) -> UpsertReport:
    """Make many resources of one type be as a frame says, in one commit; see `Namespace.upsert`."""
    lake.begin_write()
    _refuse_future(lake, options.valid_from)
    if options.on_invalid == "fail":
        refuse_rejected(spec, wanted.rejected)

    def plan(base: Snapshot) -> Plan:
        return _upsert_plan(lake, base, wanted, options, stamp)

    if options.cascade and options.missing == "delete":
        doomed = plan(lake.table(spec).ensure()).report.doomed
        close_descendants(lake, spec, doomed, options.valid_from or lake.patience.now(), stamp)
    done = run_commit(lake, spec, plan, stamp)
    upserted: _Upserted = done.plan.report
    refuse_orphans(lake, upserted.seen, spec, upserted.changes.created)
    refuse_left_behind(lake, spec, upserted.doomed)
    return UpsertReport(
        created=upserted.changes.created.height,
        updated=upserted.changes.updated.height,
        unchanged=upserted.changes.unchanged,
        deleted=len(upserted.doomed),
        rejected=upserted.changes.rejected,
        commit_id=None if done.version is None else stamp.commit_id,
    )


@dataclass(frozen=True)
class _Upserted:
    """What a planned upsert does: its changes, the identifiers that it closes, and the state that it was planned on."""

    changes: Changes
    doomed: pl.Series
    seen: SteadyView


def _upsert_plan(lake: Lake, base: Snapshot, wanted: Wanted, options: UpsertOptions, stamp: Stamp) -> Plan:
    spec, view = base.spec, SteadyView(BaseFirst(base, lake))
    explicit, planned = options.valid_from is not None, options.valid_from or lake.patience.now()
    known = read_known(base, wanted.rows["identifier"], wanted.given)
    parents = _parents_of(view, wanted, NO_LINEAGES) if known.current.height < wanted.rows.height else NO_LINEAGES
    changes = _changes(base, wanted, known, parents, planned, explicit, stamp)
    doomed = _lacking(base, wanted, known, changes, options) if options.missing == "delete" else changes.created.clear()
    closing = plan_closings(spec, doomed, planned, explicit, stamp.commit_id)
    changes = replace(changes, rejected=pl.concat([changes.rejected, closing.rejected], how="diagonal"))
    if options.on_invalid == "fail":
        refuse_rejected(spec, changes.rejected)
    if not options.cascade:
        refuse_parents(view, spec, closing.rows["identifier"])
    rows = pl.concat([changes.created, changes.updated, closing.rows])
    closed = closing.rows["identifier"]
    return Plan(rows, _premises(wanted, closed), _Upserted(changes, closed, view))


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
