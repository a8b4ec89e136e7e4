"""What became of resources that are not live: the words for `NotFoundError`."""

import polars as pl

from vxdata.catalog.table import table_spec
from vxdata.errors import did_you_mean
from vxdata.lake.lake import View
from vxdata.schemas.identifiers import type_of
from vxdata.schemas.registry import registry

_MOST = 20


def describe_missing(view: View, identifiers: pl.Series) -> str:
    """Say of each identifier that it does not exist, or when it was deleted.

    Args:
        view: where to look.
        identifiers: of any types.
    """
    words = [_describe(view, identifier) for identifier in identifiers.head(_MOST)]
    rest = f", and {len(identifiers) - _MOST} more" if len(identifiers) > _MOST else ""
    return ", ".join(words) + rest


def _describe(view: View, identifier: str) -> str:
    type_name = type_of(identifier)
    if type_name not in registry():
        hint = did_you_mean(type_name, (cls.payload_type for cls in registry()))
        return f"{identifier!r} (unknown type {type_name!r}.{hint})"
    rows = view.snapshot(table_spec(registry().of_type(type_name))).history_of([identifier])
    if rows.is_empty():
        return f"{identifier!r} does not exist"
    ended = rows.select(pl.max_horizontal("valid_from", "valid_to").max()).item()
    return f"{identifier!r} was deleted at {ended.isoformat()}"
