"""What one commit did to the resources of a table, and whether it can still be undone: pure.

Which commit ended a version stands in the closing that names it (in the tail) or in its `closed_by` (after a fold);
both forms may stand side by side, and both give the same answer here. An end is a delete if no version begins at it: a
new version begins exactly where the old one ends, and a resource that is created again begins later (W2).

Source: design of record, section 5 (storage protocol); rules of `scd2`.
"""

from collections.abc import Collection, Mapping

import polars as pl

CREATED, UPDATED, DELETED = "created", "updated", "deleted"
OPEN, UNDONE, CHANGED = "open", "undone", "changed"
LIFETIME_COLUMNS = (
    "identifier",
    "valid_from",
    "created_at",
    "end",
    "commit_id",
    "ended_by",
    "is_deletion",
    "ancestors",
)


def lifetimes(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return each version with its end, who wrote it and who ended it: `LIFETIME_COLUMNS`.

    Args:
        rows: all physical rows of some identifiers, closings and tombstones included.
    """
    closings = rows.filter(pl.col("closes").is_not_null()).select(
        "identifier",
        pl.col("closes").alias("valid_from"),
        pl.col("valid_from").alias("_end"),
        pl.col("commit_id").alias("_by"),
    )
    ended = rows.filter(~pl.col("is_deleted")).join(closings, on=["identifier", "valid_from"], how="left")
    ends = ended.with_columns(
        pl.coalesce("valid_to", "_end").alias("end"), pl.coalesce("closed_by", "_by").alias("ended_by")
    )
    begins = ended.select("identifier", pl.col("valid_from").alias("end"), pl.lit(True).alias("_goes_on"))
    is_deletion = pl.col("end").is_not_null() & pl.col("_goes_on").is_null()
    joined = ends.join(begins, on=["identifier", "end"], how="left").with_columns(is_deletion.alias("is_deletion"))
    return joined.select(LIFETIME_COLUMNS).sort("identifier", "valid_from")


def effects_of(
    lives: pl.LazyFrame, commit_id: str, undone_by: Collection[str], undone: Mapping[str, str]
) -> pl.LazyFrame:
    """Return what a commit did to each resource that it touched.

    Args:
        lives: the lifetimes of these resources, sorted.
        commit_id: the commit.
        undone_by: the commits that undo it.
        undone: other commits that are undone, and the commits that undo them: together they change nothing.

    Returns:
        identifier; kind: created, updated or deleted; before: the `valid_from` of the version before the commit, null
        if there was none; state: open (as the commit left it), undone, or changed; changed_by: the newest commit.
    """
    is_written, is_ended = pl.col("commit_id").eq_missing(commit_id), pl.col("ended_by").eq_missing(commit_id)
    marked = lives.with_columns(
        (is_written | is_ended).alias("_is_touched"),
        _begin(is_ended & ~is_written).alias("before"),
        _begin(is_written).alias("_written"),
        _begin(is_ended & pl.col("is_deletion")).alias("_deleted"),
        pl.when(is_ended & pl.col("is_deletion")).then("end").alias("_deletion"),
        pl.coalesce("ended_by", "commit_id").alias("changed_by"),
    )
    found = marked.group_by("identifier", maintain_order=True).agg(
        pl.col("_is_touched").any(),
        pl.col("before").min(),
        pl.col("before").count().alias("_befores"),
        pl.col("_written", "_deleted", "_deletion").max(),
        pl.col("changed_by").last(),
    )
    is_left = pl.col("_deleted").is_null() | (pl.col("_written") > pl.col("_deleted")).fill_null(False)
    found = found.filter("_is_touched").with_columns(pl.when(is_left).then("_written").alias("_after"))
    since = found.select("identifier", since=pl.coalesce("_after", "_deletion"))
    found = found.join(_touched_later(lives, since, undone), on="identifier", how="left")
    had, has = pl.col("before").is_not_null(), pl.col("_after").is_not_null()
    kind = pl.when(had & has).then(pl.lit(UPDATED)).when(had).then(pl.lit(DELETED)).when(has).then(pl.lit(CREATED))
    is_open = pl.col("_is_touched_later").is_null() & (pl.col("_befores") <= 1)
    is_undone = pl.col("changed_by").is_in(list(undone_by))
    state = pl.when(is_open).then(pl.lit(OPEN)).when(is_undone).then(pl.lit(UNDONE)).otherwise(pl.lit(CHANGED))
    told = found.select("identifier", kind.alias("kind"), "before", state.alias("state"), "changed_by")
    return told.filter(pl.col("kind").is_not_null())


def _touched_later(lives: pl.LazyFrame, since: pl.LazyFrame, undone: Mapping[str, str]) -> pl.LazyFrame:
    """Return the resources that a commit touched later which is not undone: identifier, _is_touched_later.

    A commit counts as undone where the commit that undoes it touched the resource, too: it may have been cut off.
    """
    events = pl.concat(
        [
            lives.select("identifier", pl.col("valid_from").alias("at"), pl.col("commit_id").alias("by")),
            lives.filter("is_deletion").select("identifier", pl.col("end").alias("at"), pl.col("ended_by").alias("by")),
        ]
    )
    later = events.join(since, on="identifier").filter(pl.col("at") > pl.col("since")).select("identifier", "by")
    pairs = {**undone, **{undoing: commit_id for commit_id, undoing in undone.items()}}
    partners = pl.LazyFrame({"by": [*pairs], "partner": [*pairs.values()]}, {"by": pl.String, "partner": pl.String})
    paired = later.join(partners, on="by", how="left")
    left = paired.join(later, left_on=["identifier", "partner"], right_on=["identifier", "by"], how="anti")
    return left.select("identifier").unique().with_columns(pl.lit(True).alias("_is_touched_later"))


def deletions_of(lives: pl.LazyFrame, commit_id: str, root: str) -> pl.LazyFrame:
    """Return what a commit deleted of a resource and its descendants.

    Args:
        lives: the lifetimes of these resources, sorted.
        commit_id: the commit.
        root: the resource.

    Returns:
        identifier; before: the `valid_from` of the version that was deleted; is_live, is_last: whether the resource is
        live now, and whether nothing came after that version; begun_by: the commit that made the resource last;
        changed_by: the newest commit.
    """
    is_hit = pl.col("ended_by").eq_missing(commit_id) & pl.col("is_deletion")
    is_below = (pl.col("identifier") == root) | pl.col("ancestors").list.contains(root)
    marked = lives.with_columns(
        _begin(is_hit & is_below).alias("before"),
        pl.col("end").is_null().alias("is_live"),
        pl.when(pl.col("valid_from") == pl.col("created_at")).then("commit_id").alias("begun_by"),
        pl.coalesce("ended_by", "commit_id").alias("changed_by"),
    )
    found = marked.group_by("identifier", maintain_order=True).agg(
        pl.col("before").max(),
        pl.col("is_live").any(),
        pl.col("begun_by").drop_nulls().last(),
        pl.col("valid_from").max().alias("_newest"),
        pl.col("changed_by").last(),
    )
    is_last = (pl.col("_newest") == pl.col("before")).alias("is_last")
    return found.filter(pl.col("before").is_not_null()).with_columns(is_last).drop("_newest")


def _begin(condition: pl.Expr) -> pl.Expr:
    """The `valid_from` of the versions for which a condition is true: versions stand in order, so max is the last."""
    return pl.when(condition).then("valid_from")
