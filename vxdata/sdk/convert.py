"""Between models and frames: resources in, responses out."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import BaseModel, ValidationError

from vxdata.catalog.table import METADATA_COLUMNS, TableSpec, all_specs, table_spec
from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.expr.literals import shown_number
from vxdata.schemas.instant import is_no_time, to_instant
from vxdata.schemas.payload import Payload
from vxdata.schemas.resource import Resource
from vxdata.schemas.response import ResourceResponse, response_class

if TYPE_CHECKING:
    from vxdata.lake.frames import Wanted


def wanted_of(resources: Sequence[Resource]) -> "dict[TableSpec, Wanted]":
    """Return resources as wanted states of their tables, root first."""
    by_spec: dict[TableSpec, list[Resource]] = {}
    for resource in resources:
        by_spec.setdefault(table_spec(type(resource.payload)), []).append(resource)
    return {spec: _wanted(spec, by_spec[spec]) for spec in all_specs() if spec in by_spec}


def _wanted(spec: TableSpec, resources: Iterable[Resource]) -> "Wanted":
    from vxdata.lake.frames import to_wanted

    rows = [
        {
            "identifier": r.identifier,
            "parent_identifier": r.parent_identifier,
            "license": r.license,
            **plain(r.payload),
        }
        for r in resources
    ]
    columns = {"identifier": pl.String(), "parent_identifier": pl.String(), "license": pl.String(), **spec.fields}
    return to_wanted(spec, _frame(spec, rows, columns))


def _frame(spec: TableSpec, rows: list[dict[str, Any]], columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return dumped values as a frame.

    Raises:
        InvalidInputError: a value that its column cannot hold; names the field.
    """
    series = []
    for name, dtype in columns.items():
        try:
            series.append(pl.Series(name, [row[name] for row in rows], dtype=dtype))
        except _UNFIT as error:
            value = next(row[name] for row in rows if not _fits(row[name], dtype))
            raise InvalidInputError(f"{spec.namespace}.{name}: {_outside(value)} does not fit into {dtype}.") from error
    return pl.DataFrame(series)


_UNFIT = (OverflowError, TypeError, ValueError, pl.exceptions.PolarsError)


def _fits(value: Any, dtype: pl.DataType) -> bool:
    try:
        pl.Series([value], dtype=dtype)
    except _UNFIT:
        return False
    return True


def _outside(value: Any) -> str:
    """Return a value that no column holds, for a message; whole numbers that are too long by their length."""
    return shown_number(value) if isinstance(value, int) else f"{value!r}"


def plain(value: Any) -> Any:
    """Return a model's values as a frame takes them, whatever the model dumps: enums by value, instants in UTC."""
    match value:
        case BaseModel():
            return {name: plain(getattr(value, name)) for name in type(value).model_fields}
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case Enum():
            return value.value
        case datetime():
            return None if is_no_time(value) else to_instant(value)
    return value


def wanted_changes(
    spec: TableSpec, identifier: str, changes: Mapping[str, Any] | Payload | None, license: Mapping[str, str | None]
) -> "Wanted":
    """Return an update as a wanted state: only what was given.

    Args:
        spec: the resource's table.
        identifier: the resource.
        changes: fields and their new values; of a model, the fields that were set.
        license: empty, or the new license under its name.

    Raises:
        InvalidInputError: an unknown field or a value of a wrong type.
    """
    from vxdata.lake.frames import to_wanted

    given = {**_validated(spec, changes), **license}
    columns = {"identifier": pl.String(), **{name: spec.columns[name] for name in given}}
    return to_wanted(spec, _frame(spec, [{"identifier": identifier, **given}], columns))


def _validated(spec: TableSpec, changes: Mapping[str, Any] | Payload | None) -> dict[str, Any]:
    if isinstance(changes, Payload):
        if not isinstance(changes, spec.payload):
            raise InvalidInputError(f"{spec.namespace} take a {spec.payload.__name__}, not a {type(changes).__name__}.")
        changes = {name: getattr(changes, name) for name in changes.model_fields_set}
    if changes is not None and not isinstance(changes, Mapping):
        raise InvalidInputError(
            f"{spec.namespace}: a mapping of fields or a {spec.payload.__name__} is expected, not {changes!r}."
        )
    for name in changes or {}:
        if name not in spec.fields:
            if name == "parent_identifier":
                from vxdata.lake.change import MOVED

                raise InvalidInputError(f"{spec.namespace}: {MOVED}.")
            hint = (
                " Write license=... beside the changes." if name == "license" else did_you_mean(str(name), spec.fields)
            )
            raise InvalidInputError(f"{spec.namespace} has no field {name!r}.{hint}")
    try:
        model = _changes_model(spec.payload).model_validate(dict(changes or {}), by_name=True)
    except ValidationError as error:
        raise InvalidInputError(_words(spec, error)) from None
    return {name: plain(getattr(model, name)) for name in changes or {}}


@cache
def _changes_model(payload: type[Payload]) -> type[Payload]:
    """Return the payload model with no field required; its constraints and validators judge what is given."""
    from pydantic import create_model

    required = {name: field for name, field in payload.model_fields.items() if field.is_required()}
    if not required:
        return payload
    optional: dict[str, Any] = {name: (field.annotation, None) for name, field in required.items()}
    return create_model(f"{payload.__name__}Changes", __base__=payload, **optional)


def _words(spec: TableSpec, error: ValidationError) -> str:
    faults = (
        f"{'.'.join(map(str, e['loc'])) or 'the payload'}: {e['msg']} (given {e['input']!r})" for e in error.errors()
    )
    return f"{spec.namespace}: {'; '.join(faults)}"


def to_responses(spec: TableSpec, rows: pl.DataFrame) -> list[ResourceResponse[Any]]:
    """Return rows with the visible columns as responses, in the same order."""
    cls = response_class(spec.payload)
    return [_to_response(spec, cls, row) for row in rows.select(*spec.visible).iter_rows(named=True)]


def _is_ours(spec: TableSpec) -> bool:
    """Whether a type is one of VxData's, whose validators change nothing."""
    return spec.payload.__module__ == Payload.__module__


def _to_response(spec: TableSpec, cls: type[ResourceResponse[Any]], row: dict[str, Any]) -> ResourceResponse[Any]:
    metadata = {name: row[name] for name in METADATA_COLUMNS}
    payload = {name: row[name] for name in spec.fields}
    with suppress(Exception):  # what is stored can always be read, whatever the model's validators say of it by now
        response = cls.model_validate({**metadata, "payload": payload}, by_name=True)
        if _is_ours(spec) or plain(response.payload) == payload:  # else a validator changed anew what it had changed
            return response
    stored = spec.payload.model_construct(**payload)
    return cls.model_construct(**{**metadata, "ancestors": tuple(row["ancestors"])}, payload=stored)
