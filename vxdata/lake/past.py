"""What became of resources that are not live: the words for `NotFoundError`."""

from datetime import datetime

import polars as pl

from vxdata.catalog.table import table_spec
from vxdata.errors import did_you_mean
from vxdata.lake.lake import View
from vxdata.schemas.columns import INSTANT
from vxdata.schemas.registry import registry


def describe_missing(view: View, identifiers: pl.Series, instant: datetime | None = None) -> str:
    """Say of each identifier that it does not exist, or when it was deleted.

    Args:
        view: where to look.
        identifiers: of any types.
        instant: what came later is not known; None for now.
    """
    types = identifiers.str.split("/").list.first()
    words: dict[str, str] = {}
    for type_name in types.unique(maintain_order=True):
        some = identifiers.filter(types == type_name)
        words |= _ends(view, type_name, some, instant) if type_name in registry() else _unknown(type_name, some)
    return ", ".join(f"{identifier!r} {words.get(identifier, 'does not exist')}" for identifier in identifiers)


def _ends(view: View, type_name: str, identifiers: pl.Series, instant: datetime | None) -> dict[str, str]:
    """Return when each resource was deleted, of those that ever were."""
    rows = view.snapshot(table_spec(registry().of_type(type_name))).history_of(identifiers)
    if instant is not None:
        rows = rows.filter(pl.col("valid_from") <= pl.lit(instant, INSTANT))
        known = pl.when(pl.col("valid_to") <= pl.lit(instant, INSTANT)).then("valid_to")
        rows = rows.with_columns(known.alias("valid_to"))
    ended = rows.group_by("identifier").agg(pl.max_horizontal("valid_from", "valid_to").max())
    return {identifier: f"was deleted at {end.isoformat()}" for identifier, end in ended.iter_rows()}


def _unknown(type_name: str, identifiers: pl.Series) -> dict[str, str]:
    hint = did_you_mean(type_name, (cls.payload_type for cls in registry()))
    return dict.fromkeys(identifiers, f"is of an unknown type, {type_name!r}.{hint}")
