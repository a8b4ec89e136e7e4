"""Look-ups that planning needs: what a table holds about some identifiers, lineages of parents, live children."""

from collections.abc import Sequence

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, TableSpec, child_specs, table_spec
from vxdata.expr.to_skip import may_hold
from vxdata.expr.tree import Compare, Or
from vxdata.lake import scd2
from vxdata.lake.change import LINEAGE_SCHEMA, Known, lineage_of
from vxdata.lake.lake import View
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.columns import INSTANT
from vxdata.schemas.registry import registry

FEW = 1_000
"""Up to so many identifiers are looked up by value, so that files and row groups are skipped; more by their range."""
WIDE = 200_000
"""Up to so many resources are read once with all their columns; of more, what changes is read in a second scan."""


def read_known(base: Snapshot, identifiers: pl.Series, compared: Sequence[str]) -> Known:
    """Return what a table holds about some identifiers.

    Args:
        base: the table's snapshot.
        identifiers: without duplicates.
        compared: the columns that are needed of the current rows of very many identifiers; else all physical ones are
            returned.
    """
    if identifiers.is_empty() or base.files.is_empty():
        nothing = base.collect(base.rows.head(0))
        return Known(nothing, scd2.last_instants(nothing.lazy()).collect())
    if len(identifiers) <= FEW:
        rows = base.history_of(identifiers).lazy()
        current = scd2.current(rows, scd2.closings_of(rows)).collect()
    else:
        rows = among(base.rows.filter(_between(identifiers)), identifiers).select(
            "identifier", "valid_from", "valid_to"
        )
        found = among(base.current(_between(identifiers)), identifiers)
        if not compared or len(identifiers) > WIDE:
            found = found.select("identifier", "parent_identifier", "datasource_id", *compared)
        current = base.collect(found)
    if current.height == len(identifiers):
        return Known(current, pl.DataFrame(schema={"identifier": pl.String(), "last": INSTANT}))
    past = rows.join(current.lazy().select("identifier"), on="identifier", how="anti")
    return Known(current, base.collect(scd2.last_instants(past)))


def read_changing(base: Snapshot, known: Known, changed: pl.Series) -> pl.DataFrame:
    """Return the current physical rows of what changes; known already if there are only a few."""
    if "valid_from" in known.current.columns:
        return known.current.filter(pl.col("identifier").is_in(changed.implode()))
    return read_current(base, changed)


def _between(identifiers: pl.Series) -> pl.Expr:
    return pl.col("identifier").is_between(pl.lit(identifiers.min()), pl.lit(identifiers.max()))


def among(rows: pl.LazyFrame, identifiers: pl.Series, column: str = "identifier") -> pl.LazyFrame:
    """Keep the rows whose column is among some identifiers.

    By value, so that of other rows no other column is decoded; of very many a join is quicker.
    """
    wanted = identifiers.cast(pl.String)
    if len(wanted) <= WIDE:
        return rows.filter(pl.col(column).is_in(wanted.sort().implode()))
    return rows.join(pl.LazyFrame({column: wanted}), on=column, how="semi")


def read_current(base: Snapshot, identifiers: pl.Series) -> pl.DataFrame:
    """Return the current physical rows of some identifiers."""
    if identifiers.is_empty() or base.files.is_empty():
        return base.collect(base.rows.head(0))
    if len(identifiers) <= FEW:
        return base.current_of(identifiers)
    return base.collect(among(base.current(_between(identifiers)), identifiers))


def read_lineages(view: View, identifiers: pl.Series) -> pl.DataFrame:
    """Return the lineage of the live resources among some identifiers of any types."""
    types = identifiers.str.split("/").list.first()
    found = [pl.DataFrame(schema=LINEAGE_SCHEMA)]
    for type_name in types.unique().drop_nulls():
        if type_name in registry():
            spec = table_spec(registry().of_type(type_name))
            found.append(lineage_of(read_current(view.snapshot(spec), identifiers.filter(types == type_name))))
    return pl.concat(found)


def rows_among(base: Snapshot, identifiers: pl.Series) -> pl.LazyFrame:
    """Return every physical row of some identifiers: of a few they are read now, and once."""
    if identifiers.is_empty() or base.files.is_empty():
        return base.collect(base.rows.head(0)).lazy()
    if len(identifiers) <= FEW:
        return base.history_of(identifiers).lazy()
    return among(base.rows.filter(_between(identifiers)), identifiers)


def read_versions(base: Snapshot, rows: pl.LazyFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """Return those of some physical rows that are versions named by identifier and valid_from."""
    kept = rows.filter(~pl.col("is_deleted")).join(versions.lazy(), on=["identifier", "valid_from"], how="semi")
    return base.collect(kept)


def touched_by(base: Snapshot, commit_id: str) -> pl.Series:
    """Return the identifiers that have rows of a commit, or versions that it ended; statistics skip the other files.

    What a commit ended stands in its own rows (`closes`) in the tail, and in `closed_by` after a fold.
    """
    node = Or((Compare("commit_id", "==", commit_id), Compare("closed_by", "==", commit_id)))
    rows = base.rows_of(base.files_that(may_hold(node, base.columns_with_statistics)))
    is_its = (pl.col("commit_id") == commit_id) | (pl.col("closed_by") == commit_id)
    return base.collect(rows.filter(is_its).select(pl.col("identifier").unique())).to_series()


def live_children(view: View, spec: TableSpec, parents: pl.Series) -> dict[str, pl.DataFrame]:
    """Return the live direct children of some resources, by namespace: identifier, parent_identifier."""
    found = {}
    for child in child_specs(spec.type_name):
        base = view.snapshot(child)
        children = base.current(_parent_filter(parents)).select("identifier", "parent_identifier")
        found[child.namespace] = base.collect(among(children, parents, "parent_identifier"))
    return {namespace: rows for namespace, rows in found.items() if rows.height}


def _parent_filter(parents: pl.Series) -> pl.Expr | None:
    if parents.is_empty():
        return pl.lit(False)
    return pl.col("parent_identifier").is_in(parents.implode()) if len(parents) <= FEW else None


def live_descendants(base: Snapshot, ancestors: pl.Series) -> pl.DataFrame:
    """Return the current physical rows of one table that descend from some resources of one type.

    Where that type has a lineage column, the files' statistics of it let files be skipped.
    """
    if ancestors.is_empty() or base.files.is_empty():
        return base.collect(base.rows.head(0))
    type_name = ancestors[0].partition("/")[0]
    column = LINEAGE_COLUMNS.get(type_name)
    if column is not None and base.spec.type_name != type_name:
        where = pl.col(column).is_in(ancestors.implode()) if len(ancestors) <= FEW else None
        return base.collect(among(base.current(where), ancestors, column))
    if len(ancestors) == 1:
        return base.collect(base.current(pl.col("ancestors").list.contains(ancestors.item())))
    line = base.current().select("identifier", pl.col("ancestors").alias("_ancestor")).explode("_ancestor")
    below = base.collect(among(line, ancestors, "_ancestor").select("identifier").unique())["identifier"]
    return read_current(base, below)
