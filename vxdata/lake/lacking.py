"""What the frames of an upsert lack: which resources `missing="delete"` closes, and how it is asked for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from vxdata.errors import InvalidInputError, name_some
from vxdata.lake.change import Known
from vxdata.lake.frames import Wanted
from vxdata.lake.lookup import live_descendants
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
    base: Snapshot, wanted: Wanted, known: Known, created: pl.DataFrame, options: UpsertOptions
) -> pl.DataFrame:
    """Return the current rows, in the datasources that the frame (or the caller) names, that the frame lacks.

    Args:
        base: the table.
        wanted: the frame.
        known: what the table holds of it.
        created: physical rows that the frame adds; they name datasources too.
        options: how to treat what the frame lacks.

    Raises:
        InvalidInputError: the frame holds what descends from something that it lacks.
    """
    if options.datasources is None:
        named = pl.concat([known.current["datasource_id"], created["datasource_id"]]).unique()
    else:
        named = pl.Series(options.datasources, dtype=pl.String)
    if named.is_empty():
        return created.clear()
    rows = base.current(pl.col("datasource_id").is_in(named.implode()))
    held = wanted.mentioned.alias("identifier").to_frame().lazy()
    found = base.collect(rows.join(held, on="identifier", how="anti"))
    if options.cascade and base.spec.type_name in base.spec.payload.parent_types:
        below = live_descendants(base, found["identifier"])
        found = pl.concat([found, below]).unique("identifier", maintain_order=True)
    _refuse_contradiction(wanted, known, found["identifier"])
    return found


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
