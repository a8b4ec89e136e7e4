"""What a wanted state changes: the pure plan of create, update and upsert on one table.

Frames in, a plan out; reading the lake is the caller's job. The rules of versions stand in `scd2`.
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, TableSpec
from vxdata.catalog.types import INSTANT
from vxdata.lake import scd2
from vxdata.lake.frames import REASON, Wanted

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
        current: their current physical rows.
        last: identifier, last: the latest instant of those that have a past and are not current.
    """

    current: pl.DataFrame
    last: pl.DataFrame


@dataclass(frozen=True)
class Changes:
    """The outcome of planning, before deletes.

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


def plan_changes(
    spec: TableSpec,
    wanted: Wanted,
    known: Known,
    parents: pl.DataFrame,
    *,
    planned: datetime,
    explicit: bool,
    commit_id: str,
) -> Changes:
    """Compare wanted states with what is there and plan the rows that make them true.

    Args:
        spec: the table.
        wanted: the wanted states.
        known: what the table holds about their identifiers.
        parents: the lineage of the live parents of new resources.
        planned: the operation's instant.
        explicit: whether the caller named the instant, so that it may not be raised.
        commit_id: the commit that will write the rows.
    """
    existing = wanted.rows.join(known.current, on="identifier", how="inner", suffix=_NOW)
    absent = wanted.rows.join(known.current.select("identifier"), on="identifier", how="anti")
    moved = existing.filter(pl.col("parent_identifier").is_not_null() & _differs("parent_identifier"))
    in_place = existing.join(moved.select("identifier"), on="identifier", how="anti") if moved.height else existing
    changed = in_place.filter(pl.any_horizontal(pl.lit(False), *map(_differs, wanted.given)))
    updated, late = _next_versions(changed, known.current.columns, wanted.given, planned, explicit)
    created, orphans = _new_resources(spec, absent, known, parents, planned, explicit)
    rejected = [
        moved.with_columns(_MOVED),
        late,
        orphans,
    ]
    return Changes(
        created=scd2.new_rows(created.lazy(), commit_id).select(known.current.columns).collect(),
        updated=scd2.next_rows(updated.lazy(), planned, commit_id).select(known.current.columns).collect(),
        unchanged=in_place.height - changed.height,
        rejected=pl.concat([wanted.rejected, *(part.select(wanted.rejected.columns) for part in rejected)]),
    )


_NOW = ":now"  # no field's name ends so
_MOVED = pl.lit("the parent of a live resource never changes; delete the resource and create it anew").alias(REASON)
_LATE = pl.lit("valid_from is not later than what is known of the resource; load history oldest first").alias(REASON)


def _differs(name: str) -> pl.Expr:
    return pl.col(name).ne_missing(pl.col(name + _NOW))


def _next_versions(
    changed: pl.DataFrame, columns: list[str], given: tuple[str, ...], planned: datetime, explicit: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the current physical rows with the new values in place of the old, and those that came too late."""
    is_late = pl.lit(explicit) & (pl.col("valid_from") >= pl.lit(planned, INSTANT))
    on_time, late = changed.filter(~is_late), changed.filter(is_late).with_columns(_LATE)
    old = {name: name + _NOW for name in ("parent_identifier", *given)}
    kept = [pl.col(name if name in given else old.get(name, name)).alias(name) for name in columns]
    return on_time.select(kept), late


def _new_resources(
    spec: TableSpec, absent: pl.DataFrame, known: Known, parents: pl.DataFrame, planned: datetime, explicit: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the new resources with their lineage and `valid_from`, and the rows that have no place.

    A type may nest in itself, so that parents may stand in the same frame: level by level, until none is left.
    """
    dated = absent.join(known.last, on="identifier", how="left", maintain_order="left")
    is_late = pl.lit(explicit) & (pl.col("last") >= pl.lit(planned, INSTANT)).fill_null(False)
    late = dated.filter(is_late).with_columns(_LATE)
    waiting = dated.filter(~is_late).with_columns(scd2.next_valid_from(planned, pl.col("last")).alias("valid_from"))
    placed = []
    while True:
        ready = _with_lineage(spec, waiting, parents)
        placed.append(ready)
        waiting = waiting.join(ready.select("identifier"), on="identifier", how="anti")
        if ready.is_empty() or waiting.is_empty() or spec.type_name not in spec.payload.parent_types:
            break
        parents = lineage_of(ready)
    orphans = waiting.with_columns(_orphan_reason(spec).alias(REASON))
    shown = [*absent.columns, REASON]
    return _physical(pl.concat(placed), known.current), pl.concat([late.select(shown), orphans.select(shown)])


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


def _orphan_reason(spec: TableSpec) -> pl.Expr:
    parent = pl.col("parent_identifier")
    if not spec.payload.parent_types:
        return pl.format("a {} has no parent, but parent_identifier is {}", pl.lit(spec.type_name), parent)
    named = pl.format("the parent {} is not live and not in the frame", parent)
    return pl.when(parent.is_null()).then(pl.lit("a new resource needs a parent_identifier")).otherwise(named)


def _physical(rows: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """Return rows with every physical column of the table; those that nobody set are null."""
    return rows.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in like.schema.items() if name not in rows.columns)
