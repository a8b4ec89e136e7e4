"""The rule book of versions: how rows of a table become states of resources, and how changes become rows.

All of it is pure: lazy frames in, lazy frames out. A *row* is a physical row of a table. Three kinds exist:

- a version: `is_deleted` false; `closes` null if it is the first since the resource was absent, else the `valid_from`
  of the version that it supersedes;
- a tombstone: `is_deleted` true, `closes` set, payload null: what a delete appends;
- a folded version: a version whose end stands in its own `valid_to`, put there by compaction.

Rules of reading
    R1  A *closing* is any row with `closes` not null. It ends the version (identifier, valid_from = closes) at its own
        `valid_from`, whatever else is true of the row: a closing counts also if it is itself closed or a tombstone.
    R2  A version is current if its `valid_to` is null, it is not deleted, and no closing names it.
    R3  As of T a version is seen if `valid_from <= T`, it is not deleted, `valid_to` is null or `> T`, and no closing
        with `valid_from <= T` names it.
    R4  The end of a version is `coalesce(valid_to, valid_from of its closing)`.
    A closing names the version that it closes, so a user's filter and the closing test commute: filters go down to the
    files and a dead version never comes back. (Filtering first and taking the latest of what is left brings it back.)

Rules of writing
    W1  A write only appends. A change appends one row with `closes` = the `valid_from` of the version it supersedes.
    W2  A new `valid_from` is later, by at least 1 µs, than every `valid_from` and `valid_to` that its identifier ever
        had, tombstones included. Otherwise a closing could name two versions, and intervals could overlap.
    W3  The new row carries over every physical column of the old one, those unknown to this SDK included.
    W4  `created_at` is the `valid_from` of the first version since the resource was absent.

Rules of folding (compaction rewrites some files of one partition; all others stay)
    F1  A version that is rewritten takes its end, and the commit that ended it, from the closings of the *whole* table.
    F2  A closing that is rewritten stays one (`closes` kept, a tombstone kept) unless the version that it names is
        rewritten with it and so takes its end, or is in no live file at all. Else a dead version would come back.
    F3  Then `closes` is nulled, and a tombstone dropped: its instant lives on as the end of the version (W2).

Source: design of record, sections 3 (valid_from) and 5 (storage protocol).
"""

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from vxdata.schemas.columns import INSTANT

TICK = pl.duration(microseconds=1)
CLOSING_COLUMNS = ("identifier", "closes", "valid_from")


def closings_of(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the closings among rows (R1): identifier, closes, valid_from."""
    return rows.filter(pl.col("closes").is_not_null()).select(CLOSING_COLUMNS)


def without_closed(rows: pl.LazyFrame, closings: pl.LazyFrame) -> pl.LazyFrame:
    """Drop the rows that a closing names."""
    return rows.join(
        closings.select("identifier", "closes"),
        left_on=["identifier", "valid_from"],
        right_on=["identifier", "closes"],
        how="anti",
    )


def may_be_current() -> pl.Expr:
    """The part of R2 that a row shows by itself; files without such rows are skipped by their null counts."""
    return pl.col("valid_to").is_null() & ~pl.col("is_deleted")


def current(rows: pl.LazyFrame, closings: pl.LazyFrame | None, *, are_open: bool = False) -> pl.LazyFrame:
    """Return the current versions among rows (R2).

    Args:
        rows: rows of one table, already filtered as the user likes.
        closings: the closings of the whole table (of these identifiers at least); None if there are none.
        are_open: whether it is known that no row has an end of its own, or is a tombstone.
    """
    open_rows = rows if are_open else rows.filter(may_be_current())
    return open_rows if closings is None else without_closed(open_rows, closings)


def as_of(rows: pl.LazyFrame, closings: pl.LazyFrame | None, instant: datetime) -> pl.LazyFrame:
    """Return the versions seen at an instant (R3), `valid_to` null: the rows as known then."""
    at = pl.lit(instant, INSTANT)
    seen = rows.filter(
        pl.col("valid_from") <= at, ~pl.col("is_deleted"), pl.col("valid_to").is_null() | (pl.col("valid_to") > at)
    )
    if closings is not None:
        seen = without_closed(seen, closings.filter(pl.col("valid_from") <= at))
    return seen.with_columns(pl.lit(None, INSTANT).alias("valid_to"))


def versions(rows: pl.LazyFrame, closings: pl.LazyFrame | None, instant: datetime | None = None) -> pl.LazyFrame:
    """Return all versions with their derived ends (R4); with an instant, those that had begun then, as known then."""
    kept = rows.filter(~pl.col("is_deleted"))
    if closings is not None:
        ends = closings.select("identifier", pl.col("closes").alias("valid_from"), pl.col("valid_from").alias("_end"))
        joined = kept.join(ends, on=["identifier", "valid_from"], how="left", maintain_order="left")
        kept = joined.with_columns(pl.coalesce("valid_to", "_end").alias("valid_to")).drop("_end")
    if instant is None:
        return kept
    at = pl.lit(instant, INSTANT)
    ended = pl.when(pl.col("valid_to") <= at).then("valid_to")
    return kept.filter(pl.col("valid_from") <= at).with_columns(ended.alias("valid_to"))


def last_instants(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the latest instant that each identifier ever had (W2): identifier, last."""
    latest = pl.max_horizontal("valid_from", "valid_to")
    return rows.group_by("identifier").agg(latest.max().alias("last"))


def next_valid_from(planned: datetime, last: pl.Expr) -> pl.Expr:
    """Return the `valid_from` of a new row (W2): the planned instant, raised where the past needs it."""
    return pl.max_horizontal(pl.lit(planned, INSTANT), last + TICK)


def new_rows(wanted: pl.LazyFrame, commit_id: str) -> pl.LazyFrame:
    """Turn wanted states into rows of new resources (W1, W4).

    Args:
        wanted: the visible columns of each new resource, its lineage included, and `valid_from`.
        commit_id: the commit that writes them.
    """
    return wanted.with_columns(
        pl.col("valid_from").alias("created_at"), pl.lit(None, INSTANT).alias("closes"), *_written(commit_id)
    )


def next_rows(changed: pl.LazyFrame, planned: datetime, commit_id: str) -> pl.LazyFrame:
    """Turn current rows with changed values into rows of their next versions (W1, W2, W3).

    Args:
        changed: the current physical rows, with the new values in place of the old.
        planned: the operation's instant.
        commit_id: the commit that writes them.
    """
    return changed.with_columns(
        next_valid_from(planned, pl.col("valid_from")).alias("valid_from"),
        pl.col("valid_from").alias("closes"),
        *_written(commit_id),
    )


def tombstones(doomed: pl.LazyFrame, planned: datetime, commit_id: str, payload: Iterable[str]) -> pl.LazyFrame:
    """Turn current rows into their tombstones (W1, W2): lineage kept, license and payload null.

    Args:
        doomed: the current physical rows.
        planned: the operation's instant.
        commit_id: the commit that writes them.
        payload: the physical columns that are neither lineage nor the protocol's own.
    """
    emptied = doomed.with_columns(pl.lit(None, doomed.collect_schema()[name]).alias(name) for name in payload)
    return next_rows(emptied, planned, commit_id).with_columns(pl.lit(True).alias("is_deleted"))


def fold(rows: pl.LazyFrame, closings: pl.LazyFrame, gone: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows that stand for rewritten ones (F1, F2, F3).

    Args:
        rows: all rows, of some identifiers, in the files that are rewritten.
        closings: identifier, closes, valid_from, commit_id: the closings of the whole table, of these identifiers at
            least.
        gone: identifier, closes: closings that name a version which no live file holds.
    """
    first = closings.sort("valid_from").unique(["identifier", "closes"], keep="first")
    ends = first.select(
        "identifier",
        pl.col("closes").alias("valid_from"),
        pl.col("valid_from").alias(":end"),
        pl.col("commit_id").alias(":by"),
    )
    here = rows.select("identifier", pl.col("valid_from").alias("closes"))
    settled = pl.concat([here, gone.select("identifier", "closes")]).unique().with_columns(pl.lit(True).alias(":ok"))
    ended = rows.join(ends, on=["identifier", "valid_from"], how="left").join(
        settled, on=["identifier", "closes"], how="left"
    )
    is_settled = pl.col(":ok").is_not_null()  # a null `closes` joins nothing
    folded = ended.filter(~(is_settled & pl.col("is_deleted"))).with_columns(
        pl.coalesce("valid_to", ":end").alias("valid_to"),
        pl.coalesce("closed_by", ":by").alias("closed_by"),
        pl.when(~is_settled).then("closes").alias("closes"),
    )
    return folded.drop(":end", ":by", ":ok")


def _written(commit_id: str) -> list[pl.Expr]:
    return [
        pl.lit(None, INSTANT).alias("valid_to"),
        pl.lit(False).alias("is_deleted"),
        pl.lit(commit_id).alias("commit_id"),
        pl.lit(None, pl.String).alias("closed_by"),
    ]
