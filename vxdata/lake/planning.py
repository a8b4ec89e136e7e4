"""What the planners of create, update and upsert share: parents, changes, premises, and the refusals.

Across tables there is no atomicity: tables are committed root first, and afterwards the writer looks whether a parent
was deleted meanwhile (design, section 5, "Across tables").
"""

from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec, table_spec
from vxdata.errors import ConflictError, InvalidInputError, NotFoundError, name_some
from vxdata.lake.change import LINEAGE_SCHEMA, Changes, Known, compare, plan_changes
from vxdata.lake.commit import Premises, Stamp
from vxdata.lake.frames import REASON, Wanted
from vxdata.lake.lake import Lake, SteadyView, View
from vxdata.lake.lookup import read_changing, read_lineages
from vxdata.lake.past import describe_missing
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.registry import registry

NO_LINEAGES = pl.DataFrame(schema=LINEAGE_SCHEMA)


def parents_of(view: View, wanted: Wanted, promised: pl.DataFrame) -> pl.DataFrame:
    """Return the lineages of the live parents, without those of parents that the operation makes itself."""
    needed = wanted.rows["parent_identifier"].drop_nulls().unique()
    return read_lineages(view, needed.filter(~needed.is_in(promised["identifier"].implode())))


def changes_on(
    base: Snapshot, wanted: Wanted, known: Known, parents: pl.DataFrame, planned: datetime, explicit: bool, stamp: Stamp
) -> Changes:
    """Return what wanted states change on a base: compare first, then read in full only what changes."""
    compared = compare(wanted, known.current)
    changing = read_changing(base, known, compared.changed["identifier"])
    return plan_changes(
        base.spec, wanted, compared, changing, known.last, parents,
        planned=planned, explicit=explicit, commit_id=stamp.commit_id,
    )  # fmt: skip


def refuse_missing_parents(lake: Lake, spec: TableSpec, wanted: Wanted, parents: pl.DataFrame) -> None:
    """Raise if a parent is neither live nor made by the same operation; names all of them."""
    there = pl.concat([parents["identifier"], wanted.rows["identifier"]])
    named = wanted.rows["parent_identifier"].drop_nulls().unique()
    missing = named.filter(~named.is_in(there.implode())).sort()
    if missing.len() and spec.payload.parent_types:
        raise NotFoundError(
            f"parents of new {spec.namespace}: {describe_missing(lake, missing)}. Create them first, or in the same "
            "list."
        )


def premises_of(wanted: Wanted, closed: pl.Series | None = None) -> Premises:
    """Return what must still be true when wanted states, and closings, are committed."""
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
        raise InvalidInputError(f"{rejected.height} rows of {spec.namespace} cannot be written. {some}{more}.")


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
    named = created["parent_identifier"].drop_nulls().str.split("/").list.first().unique()
    if all(seen.is_newest(table_spec(registry().of_type(name))) for name in named):
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
