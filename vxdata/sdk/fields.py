"""The fields of a type: what they are called, hold and mean, and how often they are missing."""

from typing import Any

import polars as pl

from vxdata.catalog.table import METADATA_COLUMNS, PARTITION_COLUMN, TableSpec, unit_of
from vxdata.errors import NotFoundError
from vxdata.expr.select import Select
from vxdata.lake.faults import translated
from vxdata.lake.lake import SteadyView
from vxdata.lake.snapshot import Snapshot
from vxdata.sdk.plan import plan_select
from vxdata.sdk.session import Session

FIELD_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("field", "type", "unit", "description"), pl.String()),
    **dict.fromkeys(("nulls", "rows"), pl.Int64()),
}
_METADATA = {
    "identifier": "Stable name, <type>/<segment>[/<segment>...].",
    "parent_identifier": "The direct parent.",
    "datasource_id": "The datasource that it belongs to.",
    "patient_id": "The patient that it belongs to.",
    "study_id": "The imaging study that it belongs to.",
    "ancestors": "All ancestors, root first.",
    "valid_from": "First instant of the version, UTC.",
    "valid_to": "First instant after the version, UTC; null in current answers.",
    "created_at": "First instant since it was created or last created again, UTC.",
    "license": "License of the data.",
}
_WORDS: dict[Any, str] = {
    pl.String: "text",
    pl.Boolean: "bool",
    pl.Int64: "int",
    pl.Float64: "float",
    pl.Datetime: "instant",
    pl.Date: "date",
    pl.Decimal: "decimal",
    pl.Binary: "bytes",
    pl.Struct: "model",
}


def read_fields(session: Session, spec: TableSpec) -> pl.DataFrame:
    """Return the fields of a type; see `Namespace.fields`."""
    try:
        nulls, rows = _null_counts(session, spec)
    except NotFoundError:  # no lake yet
        nulls, rows = {}, None
    described = [
        (name, type_word(dtype), *_described(spec, name), nulls.get(name), rows) for name, dtype in spec.visible.items()
    ]
    return pl.DataFrame(described, schema=FIELD_SCHEMA, orient="row")


def type_word(dtype: Any) -> str:
    """Return the word for a column type: text, int, float, bool, instant, date, list of text, ..."""
    if isinstance(dtype, pl.List):
        return f"list of {type_word(dtype.inner)}"
    return _WORDS[dtype.base_type()]


def _described(spec: TableSpec, name: str) -> tuple[str | None, str | None]:
    if name in METADATA_COLUMNS:
        return None, _METADATA[name]
    return unit_of(spec, name), spec.payload.model_fields[name].description


def _null_counts(session: Session, spec: TableSpec) -> tuple[dict[str, int], int]:
    """Return the nulls of each column among the resources that are seen, and how many of those there are."""
    view = SteadyView(session.view)
    snapshot = view.snapshot(spec)
    if session.instant is None and _is_all_current(snapshot):
        return _by_statistics(snapshot)
    plan = plan_select(Select(session.lake.store.uri, spec), view, session.instant)
    with translated(snapshot.store.uri, f"read {spec.namespace} of"):
        counts = plan.select(pl.len().alias(":rows"), pl.all().null_count()).collect().row(0, named=True)
    rows = counts.pop(":rows")
    return counts, rows


def _is_all_current(snapshot: Snapshot) -> bool:
    """Whether the statistics tell that each row is a current one, and know all columns."""
    if snapshot.files.is_empty():
        return True
    nulls = snapshot.files["null_count"].struct
    has_models = any(isinstance(dtype, pl.Struct) for dtype in snapshot.spec.visible.values())
    if has_models or "valid_to" not in nulls.fields or not snapshot.closing_files.is_empty():
        return False
    return bool((nulls.field("valid_to") == snapshot.files["num_records"]).fill_null(False).all())


def _by_statistics(snapshot: Snapshot) -> tuple[dict[str, int], int]:
    records, nulls = snapshot.files["num_records"], snapshot.files["null_count"].struct
    rows = int(records.sum() or 0)
    counts = dict.fromkeys(snapshot.spec.visible, rows)  # a file that lacks a column holds nulls alone
    for name in set(counts) & set(nulls.fields if rows else ()):
        counts[name] = int(pl.select(pl.coalesce(nulls.field(name), records)).to_series().sum())
    counts[PARTITION_COLUMN] = 0
    return counts, rows
