"""All that a client can see of a lake, compared with the model."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import polars as pl

from tests.support.model import FIELDS, Model, Row
from tests.support.wishes import NAMESPACES, NEWER
from vxdata.sdk import Client, F

METADATA = (
    *("identifier", "parent_identifier", "datasource_id", "patient_id", "study_id", "ancestors"),
    *("valid_from", "valid_to", "created_at", "license"),
)


def compare(client: Client, model: Model, instants: Iterable[datetime]) -> None:
    """Compare current states (filtered too), all versions and states as of some instants, for each type."""
    wanted: list[tuple[Any, list[Row]]] = []
    for name, namespace in NAMESPACES.items():
        query = getattr(client, namespace).query()
        wanted += [(query, model.current(name)), (query.versions(), model.versions(name))]
        chosen = [r for r in model.current(name) if r["license"] == "CC0"]
        wanted.append((query.filter(F.license == "CC0"), chosen))
        wanted += [(query.as_of(at), model.as_of(name, at)) for at in instants]
    frames = pl.collect_all([query.lazy() for query, _ in wanted])
    for (query, rows), frame in zip(wanted, frames, strict=True):
        assert to_rows(frame) == [without(r, NEWER) for r in rows], query
        refuse_overlaps(frame)


def to_rows(frame: pl.DataFrame) -> list[Row]:
    """Return the rows of an answer as the model has them: without the fields that it does not know."""
    known = {*METADATA, *(name for fields in FIELDS.values() for name in fields)}
    return frame.select(name for name in frame.columns if name in known).sort("identifier", "valid_from").to_dicts()


def without(r: Row, names: tuple[str, ...]) -> Row:
    """Return a row without some columns."""
    return {name: value for name, value in r.items() if name not in names}


def refuse_overlaps(frame: pl.DataFrame) -> None:
    """Check, without the model, that versions are half-open and disjoint, and that the last one alone may be open."""
    following = pl.col("valid_from").shift(-1).over("identifier", order_by="valid_from")
    ends = frame.select("valid_from", "valid_to", following=following)
    assert ends.filter(pl.col("valid_to") <= pl.col("valid_from")).is_empty()
    assert ends.filter(pl.col("following") < pl.col("valid_to")).is_empty()
    assert ends.filter(pl.col("following").is_not_null() & pl.col("valid_to").is_null()).is_empty()
