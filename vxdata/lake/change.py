"""What a wanted state changes: the pure plan of create, update and upsert on one table.

Frames in, a plan out; reading the lake is the caller's job. The rules of versions stand in `scd2`.
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, TableSpec
from vxdata.lake import scd2
from vxdata.lake.frames import REASON, Wanted
from vxdata.schemas.columns import INSTANT

LINEAGE = ("datasource_id", "patient_id", "study_id", "ancestors")
LINEAGE_SCHEMA = {
    "identifier": pl.String(),
    **dict.fromkeys(LINEAGE[:3], pl.String()),
    "ancestors": pl.List(pl.String()),
}


@dataclass(frozen=True)
class Known:
    """What a table holds about some identifiers.

    Attributes:
        current: their current rows: identifier, parent_identifier, datasource_id and the columns that are compared.
        last: identifier, last: the latest instant of those that have a past and are not current.
    """

    current: pl.DataFrame
    last: pl.DataFrame


@dataclass(frozen=True)
class Compared:
    """Wanted states against what is current.

    Attributes:
        absent: the wanted rows whose resource is not live.
        changed: the wanted rows that differ from the current version.
        moved: the wanted rows that name another parent than the current version.
        unchanged: how many wanted states are there already.
    """

    absent: pl.DataFrame
    changed: pl.DataFrame
    moved: pl.DataFrame
    unchanged: int


@dataclass(frozen=True)
class Changes:
    """The planned rows of an operation, without deletes.

    Attributes:
        created: physical rows of new resources.
        updated: physical rows of next versions.
        unchanged: how many wanted states are there already.
        rejected: the wanted rows that cannot be written, with a column `reason`.
    """

    created: pl.DataFrame
    updated: pl.DataFrame
    unchanged: int
    rejected: pl.DataFrame


def lineage_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the lineage of resources, as their children need it."""
    return rows.select(*LINEAGE_SCHEMA)


def compare(wanted: Wanted, current: pl.DataFrame) -> Compared:
    """Compare wanted states with current rows, null-safely; columns that are not given do not count."""
    if current.is_empty():
        return Compared(wanted.rows, wanted.rows.clear(), wanted.rows.clear(), 0)
    existing = wanted.rows.lazy().join(current.lazy(), on="identifier", how="inner", suffix=_NOW)
    is_moved = pl.col("parent_identifier").is_not_null() & _differs("parent_identifier")
    is_changed = pl.any_horizontal(pl.lit(False), *map(_differs, wanted.given))
    judged = existing.select(*wanted.rows.columns, is_moved.alias(_MOVED), is_changed.alias(_CHANGED))
    changed = judged.filter(pl.col(_MOVED) | pl.col(_CHANGED)).collect()
    absent = wanted.rows.join(current.select("identifier"), on="identifier", how="anti", maintain_order="left")
    is_in_place = ~pl.col(_MOVED)
    return Compared(
        absent=absent,
        changed=changed.filter(is_in_place).drop(_MOVED, _CHANGED),
        moved=changed.filter(_MOVED).drop(_MOVED, _CHANGED),
        unchanged=wanted.rows.height - absent.height - changed.height,
    )


def plan_changes(
    spec: TableSpec,
    wanted: Wanted,
    compared: Compared,
    changing: pl.DataFrame,
    last: pl.DataFrame,
    parents: pl.DataFrame,
    *,
    planned: datetime,
    explicit: bool,
    commit_id: str,
) -> Changes:
    """Plan the rows that make wanted states true.

    Args:
        spec: the table.
        wanted: the wanted states.
        compared: the same against what is current.
        changing: the current physical rows of what is changed.
        last: the latest instants of what is absent; see `Known`.
        parents: the lineage of the live parents of new resources.
        planned: the operation's instant.
        explicit: whether the caller named the instant, so that it may not be raised.
        commit_id: the commit that will write the rows.
    """
    updated, late = _next_versions(compared.changed, changing, wanted.given, planned, explicit)
    created, orphans = _new_resources(spec, compared.absent, changing, last, parents, planned, explicit)
    rejected = (wanted.rejected, compared.moved.with_columns(_MOVED_REASON), late, orphans)
    return Changes(
        created=scd2.new_rows(created.lazy(), commit_id).select(changing.columns).collect(),
        updated=scd2.next_rows(updated.lazy(), planned, commit_id).select(changing.columns).collect(),
        unchanged=compared.unchanged,
        rejected=pl.concat(part.select(wanted.rejected.columns) for part in rejected),
    )


_NOW, _MOVED, _CHANGED = ":now", ":moved", ":changed"  # no field's name holds a colon
MOVED = "parent_identifier of a live resource never changes; delete the resource and create it anew"
_MOVED_REASON = pl.lit(MOVED).alias(REASON)
_LATE = pl.lit("valid_from is not later than what is known of the resource; load history oldest first").alias(REASON)


def _differs(name: str) -> pl.Expr:
    return pl.col(name).ne_missing(pl.col(name + _NOW))


def _next_versions(
    changed: pl.DataFrame, changing: pl.DataFrame, given: tuple[str, ...], planned: datetime, explicit: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the current physical rows with the new values in place of the old, and those that come too late."""
    values = changed.select("identifier", *given)
    renewed = changing.drop(given).join(values, on="identifier", how="inner").select(changing.columns)
    if not explicit:  # then the instant is raised where the past needs it
        return renewed, changed.clear().with_columns(_LATE)
    is_late = pl.col("valid_from") >= pl.lit(planned, INSTANT)
    late = changed.join(renewed.filter(is_late), on="identifier", how="semi").with_columns(_LATE)
    return renewed.filter(~is_late), late


def _new_resources(
    spec: TableSpec,
    absent: pl.DataFrame,
    like: pl.DataFrame,
    last: pl.DataFrame,
    parents: pl.DataFrame,
    planned: datetime,
    explicit: bool,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the new resources with their lineage and `valid_from`, and the rows that have no place.

    A type may nest in itself, so that parents may stand in the same frame: level by level, until none is left.
    """
    if absent.is_empty():
        return like.clear(), absent.with_columns(_LATE)
    if last.is_empty():
        late, waiting = (
            absent.clear().with_columns(_LATE),
            absent.with_columns(pl.lit(planned, INSTANT).alias("valid_from")),
        )
    else:
        dated = absent.join(last, on="identifier", how="left", maintain_order="left")
        is_late = pl.lit(explicit) & (pl.col("last") >= pl.lit(planned, INSTANT)).fill_null(False)
        late = dated.filter(is_late).with_columns(_LATE)
        begins = scd2.next_valid_from(planned, pl.col("last")).alias("valid_from")
        waiting = dated.filter(~is_late).with_columns(begins).drop("last")
    placed, orphans = place(spec, waiting, parents)
    orphans = orphans.with_columns(_orphan_reason(spec, orphans).alias(REASON))
    shown = [*absent.columns, REASON]
    return _physical(placed, like), pl.concat([late.select(shown), orphans.select(shown)])


def place(spec: TableSpec, rows: pl.DataFrame, parents: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows of new resources with their lineage columns, and the rows whose parents are nowhere.

    Args:
        spec: their table.
        rows: identifier, parent_identifier and anything but lineage columns.
        parents: the lineages of live parents; others may stand among the rows.
    """
    placed, waiting = [], rows
    while True:
        ready = _with_lineage(spec, waiting, parents)
        placed.append(ready)
        waiting = waiting.join(ready.select("identifier"), on="identifier", how="anti")
        if ready.is_empty() or waiting.is_empty() or spec.type_name not in spec.payload.parent_types:
            return pl.concat(placed), waiting
        parents = lineage_of(ready)


def revived_rows(
    spec: TableSpec, rows: pl.DataFrame, last: pl.DataFrame, parents: pl.DataFrame, planned: datetime, commit_id: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that bring back deleted resources, and those whose parents are nowhere.

    Everything of a version is brought back, columns unknown to this SDK included (W3), but for its lineage: that is its
    parent's of now.

    Args:
        spec: the table.
        rows: the physical rows of the versions that come back.
        last: the latest instants of their identifiers; see `Known`.
        parents: the lineages of live parents.
        planned: the operation's instant.
        commit_id: the commit that will write the rows.
    """
    dated = rows.drop("valid_from", *LINEAGE).join(last, on="identifier", how="left", maintain_order="left")
    begins = scd2.next_valid_from(planned, pl.col("last")).alias("valid_from")
    placed, orphans = place(spec, dated.with_columns(begins).drop("last"), parents)
    return scd2.new_rows(placed.lazy(), commit_id).select(rows.columns).collect(), orphans


def _with_lineage(spec: TableSpec, rows: pl.DataFrame, parents: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose parent is among the parents, with their lineage columns."""
    if not spec.payload.parent_types:
        rootless = rows.filter(pl.col("parent_identifier").is_null())
        nothing = [pl.lit(None, pl.String).alias(name) for name in LINEAGE[:3]]
        placed = rootless.with_columns(*nothing, pl.lit([], pl.List(pl.String)).alias("ancestors"))
    else:
        own = pl.concat_list(pl.col("ancestors"), pl.col("identifier")).alias("ancestors")
        line = parents.with_columns(own).rename({"identifier": "parent_identifier"})
        placed = rows.join(line, on="parent_identifier", how="inner", maintain_order="left")
    column = LINEAGE_COLUMNS.get(spec.type_name)
    return placed.with_columns(pl.col("identifier").alias(column)) if column else placed


def _orphan_reason(spec: TableSpec, orphans: pl.DataFrame) -> pl.Expr:
    parent = pl.col("parent_identifier")
    if not spec.payload.parent_types:
        return pl.format("parent_identifier {} is too much: a {} has no parent", parent, pl.lit(spec.type_name))
    named = pl.format("parent_identifier {} is not live and not in the frame", parent)
    if spec.type_name in spec.payload.parent_types:
        ring, held = _rings(orphans), orphans["identifier"].implode()
        named = (
            pl.when(pl.col("identifier") == parent)
            .then(pl.lit("parent_identifier is the resource itself"))
            .when(pl.col("identifier").is_in(ring.implode()))
            .then(pl.format("parent_identifier {} descends from the resource itself", parent))
            .when(parent.is_in(held))
            .then(pl.format("parent_identifier {} is in the frame, but cannot be written either", parent))
            .otherwise(named)
        )
    return (
        pl.when(parent.is_null())
        .then(pl.lit("parent_identifier is missing: a new resource needs one"))
        .otherwise(named)
    )


def _rings(orphans: pl.DataFrame) -> pl.Series:
    """Return the identifiers of those rows that descend from themselves."""
    parents = dict(orphans.select("identifier", "parent_identifier").iter_rows())
    found: list[str] = []
    walked: dict[str, str] = {}  # to each row the one from which it was first reached
    for start in parents:
        at = start
        while at in parents and at not in walked:
            walked[at], at = start, parents[at]
        if walked.get(at) == start:
            ring = [at]
            while parents[ring[-1]] != at:
                ring.append(parents[ring[-1]])
            found += ring
    return pl.Series(found, dtype=pl.String)


def _physical(rows: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """Return rows with every physical column of the table; those that nobody set are null."""
    return rows.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in like.schema.items() if name not in rows.columns
    )
