"""What the frames of an upsert lack: which resources `missing="delete"` closes, and how it is asked for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from vxdata.errors import InvalidInputError, name_some
from vxdata.lake.lookup import live_descendants
from vxdata.lake.slices import Range
from vxdata.lake.snapshot import Snapshot


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


def lacking(
    base: Snapshot, within: Range, mentioned: pl.Series, named: pl.Series, edges: pl.DataFrame, options: UpsertOptions
) -> pl.DataFrame:
    """Return the current rows, in a range of identifiers and in some datasources, that the frame lacks.

    Args:
        base: the table.
        within: the range of identifiers.
        mentioned: the identifiers of the frame in this range.
        named: the datasources.
        edges: identifier and parent_identifier of all that the frame holds, if the type nests in itself.
        options: how to treat what the frame lacks.

    Raises:
        InvalidInputError: the frame holds what descends from something that it lacks.
    """
    if named.is_empty():
        return base.collect(base.rows.head(0))
    rows = base.current(pl.col("datasource_id").is_in(named.implode()) & within.holds())
    held = mentioned.alias("identifier").to_frame().lazy()
    found = base.collect(rows.join(held, on="identifier", how="anti"))
    if options.cascade and base.spec.type_name in base.spec.payload.parent_types:
        below = live_descendants(base, found["identifier"])
        found = pl.concat([found, below]).unique("identifier", maintain_order=True)
    _refuse_contradiction(edges, mentioned, found["identifier"])
    return found


def _refuse_contradiction(edges: pl.DataFrame, mentioned: pl.Series, doomed: pl.Series) -> None:
    """Refuse a frame that holds a resource of the same table whose parent it lacks, with missing="delete"."""
    held = edges.filter(
        pl.col("identifier").is_in(doomed.implode()) | pl.col("parent_identifier").is_in(doomed.implode())
    )
    names = pl.concat([held["identifier"], mentioned.filter(mentioned.is_in(doomed.implode()))])
    if len(names):
        raise InvalidInputError(
            f"the frame holds {name_some(names.unique().sort(), 5)} but lacks an ancestor, which "
            "missing='delete' would close. Put the ancestor into the frame, or leave its descendants out."
        )
