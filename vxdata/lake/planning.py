"""What the planners of create, update and upsert share: parents, changes, premises, and the refusals.

Across tables there is no atomicity: tables are committed root first, and afterwards the writer looks whether a parent
was deleted meanwhile (design, section 5, "Across tables").
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec, table_spec
from vxdata.errors import ConflictError, InvalidInputError, NotFoundError, name_some, sentence
from vxdata.lake.change import LINEAGE_SCHEMA, Changes, Known, compare, plan_changes
from vxdata.lake.frames import REASON, Wanted
from vxdata.lake.intent import Premises, Stamp
from vxdata.lake.lake import Lake, SteadyView, View
from vxdata.lake.lookup import among, read_changing, read_lineages
from vxdata.lake.past import describe_missing
from vxdata.lake.scratch import read_kept
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.registry import registry

NO_LINEAGES = pl.DataFrame(schema=LINEAGE_SCHEMA)
MOST_REJECTED = 1_000_000
"""Of a frame that exceeds memory no more rejected rows are gathered."""


def parents_of(view: View, wanted: Wanted, promised: Iterable[pl.LazyFrame]) -> pl.DataFrame:
    """Return the lineages of the parents: of those that the operation makes itself, and of live ones.

    Args:
        view: the lake.
        wanted: the wanted states.
        promised: the lineages of what the same operation makes, piece by piece.
    """
    needed = wanted.rows["parent_identifier"].drop_nulls().unique()
    made = pl.concat([NO_LINEAGES, *(read_kept(among(piece, needed)) for piece in promised)])
    live = read_lineages(view, needed.filter(~needed.is_in(made["identifier"].implode())))
    return pl.concat([made, live])


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
        more = f"; and {rejected.height - 5} more" if rejected.height > 5 else ""
        some = sentence(_first_few(rejected) + more)
        raise InvalidInputError(f"{rejected.height} rows of {spec.namespace} cannot be written. {some}")


def _first_few(rejected: pl.DataFrame) -> str:
    return "; ".join(f"{r['identifier']!r}: {r[REASON]}" for r in rejected.head(5).iter_rows(named=True))


def refuse_many_rejected(spec: TableSpec, rejected: Sequence[pl.DataFrame]) -> None:
    """Refuse a frame that exceeds memory if so many of its rows are rejected that these would, too."""
    if sum(part.height for part in rejected) > MOST_REJECTED:
        some = _first_few(next(part for part in rejected if part.height))
        raise InvalidInputError(
            f"more than {MOST_REJECTED:,} rows of {spec.namespace} cannot be written, more than a report holds. "
            f"{some}. Mend the frame, or write it in parts."
        )


def refuse_orphans(lake: View, seen: SteadyView, created: Iterable[pl.DataFrame]) -> None:
    """Look, after a commit, whether the parents of the new resources are still live, with the same lineage.

    Args:
        lake: the newest state.
        seen: the state that the commit was planned on; a parent's table that did not change is not read again.
        created: identifier, parent_identifier and ancestors of theirs, piece by piece.

    Raises:
        ConflictError: a parent was deleted meanwhile; names the children that are left behind.
    """
    left = [_orphans(lake, seen, rows) for rows in created]
    orphans = pl.concat([pl.Series(dtype=pl.String), *left]).sort()
    if len(orphans):
        raise ConflictError(
            f"{name_some(orphans)}: written, but the parent was deleted at the same time. Delete them, or create the "
            "parent again."
        )


def _orphans(lake: View, seen: SteadyView, created: pl.DataFrame) -> pl.Series:
    named = created["parent_identifier"].drop_nulls().str.split("/").list.first().unique()
    is_steady = all(seen.is_newest(table_spec(registry().of_type(name))) for name in named)
    return created["identifier"].clear() if is_steady else live_orphans(lake, created)


def live_orphans(lake: View, children: pl.DataFrame) -> pl.Series:
    """Return those of some resources that still live, but whose parent does not with the lineage that they say.

    Args:
        lake: the newest state.
        children: identifier, parent_identifier and ancestors of resources of one type, read before.
    """
    live = read_lineages(lake, children["parent_identifier"].drop_nulls().unique())
    line = live.select(
        pl.col("identifier").alias("parent_identifier"), pl.concat_list("ancestors", "identifier").alias("_line")
    )
    joined = children.select("identifier", "parent_identifier", "ancestors").join(
        line, on="parent_identifier", how="left"
    )
    orphans = joined.filter(pl.col("_line").ne_missing(pl.col("ancestors")))["identifier"]
    if orphans.is_empty():
        return orphans
    return orphans.filter(orphans.is_in(read_lineages(lake, orphans)["identifier"].implode()))  # a cascade took others
