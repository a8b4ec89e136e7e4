"""One mapping from pydantic annotations to column types: pydantic -> Polars -> Arrow (and from Arrow to Delta).

Strict: an annotation that has no place in a table raises when the payload type is registered, not when data is lost.
Strings become plain `string`, never view or dictionary types, so that every Delta reader can open the files.
"""

import types
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import polars as pl
from polars.datatypes import DataTypeClass
from pydantic import AwareDatetime, BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from vxdata.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa

INSTANT = pl.Datetime("us", "UTC")

_SCALARS: dict[Any, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
    bytes: pl.Binary(),
    date: pl.Date(),
    datetime: INSTANT,
    AwareDatetime: INSTANT,
}


def model_columns(model: type[BaseModel]) -> dict[str, pl.DataType]:
    """Return the column types of a model's fields, in their order.

    Args:
        model: a payload class or a model nested in one.

    Raises:
        InvalidInputError: a field's annotation has no column type; the message names the field.
    """
    columns = {}
    for name, field in model.model_fields.items():
        try:
            columns[name] = to_polars_type(field.annotation, field.metadata)
        except InvalidInputError as error:
            raise InvalidInputError(f"{model.__name__}.{name}: {error}") from None
    return columns


def to_polars_type(annotation: Any, metadata: Iterable[Any] = ()) -> pl.DataType:
    """Return the Polars type of a pydantic annotation; None in a union means that the column may be null.

    Args:
        annotation: str, int, float, bool, bytes, date, datetime, Decimal (with max_digits and decimal_places), a
            `Literal` or `Enum` of one of them, a list, or a nested model.
        metadata: pydantic's constraints of the annotation; Decimal needs them.

    Raises:
        InvalidInputError: any other annotation.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return to_polars_type(arguments[0], (*arguments[1:], *metadata))
    if origin in (Union, types.UnionType):
        return _one_type_of(annotation, [a for a in arguments if a is not type(None)], metadata)
    if origin is Literal:
        return _one_type_of(annotation, sorted({type(a) for a in arguments if a is not None}, key=repr), metadata)
    if origin is list:
        return pl.List(to_polars_type(arguments[0]))
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation is Decimal:
        return _decimal_type(metadata)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_type_of(annotation, sorted({type(member.value) for member in annotation}, key=repr), metadata)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation.model_fields:
        return _nested_type(annotation)
    raise InvalidInputError(
        f"the type {annotation!r} has no column type; use str, int, float, bool, bytes, date, datetime, Decimal, "
        "a list of these, or a nested model."
    )


def _nested_type(model: type[BaseModel]) -> pl.DataType:
    try:
        return pl.Struct(model_columns(model))
    except RecursionError:
        raise InvalidInputError(f"{model.__name__} holds itself; a column has a fixed depth.") from None


def allows_null(field: FieldInfo) -> bool:
    """Whether a field takes None: rows of frames and of older versions may lack it."""
    arguments = get_args(field.annotation)
    is_union = get_origin(field.annotation) in (Union, types.UnionType)
    return (is_union and type(None) in arguments) or field.annotation in (Any, type(None))


_OPEN = (str, int, float, bool, bytes, date, datetime, type(None))


@cache
def value_adapter(model: type[BaseModel], name: str) -> "TypeAdapter[Any] | None":
    """Return what checks a field's values beyond their column type; None for an open field.

    Only scalar fields are checked: `Literal`, `Enum`, bounds, lengths and patterns.
    """
    field = model.model_fields[name]
    leaves = get_args(field.annotation) if get_origin(field.annotation) in (Union, types.UnionType) else ()
    if not field.metadata and all(leaf in _OPEN or _is_utc_datetime(leaf) for leaf in leaves or (field.annotation,)):
        return None
    if isinstance(to_polars_type(field.annotation, field.metadata), (pl.List, pl.Struct)):
        return None
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return TypeAdapter(annotation)


def _is_utc_datetime(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated and get_args(annotation)[0] is datetime


def _one_type_of(annotation: Any, candidates: list[Any], metadata: Iterable[Any]) -> pl.DataType:
    found = {to_polars_type(candidate, metadata) for candidate in candidates}
    if len(found) != 1:
        raise InvalidInputError(f"{annotation!r} mixes types; a column has one type.")
    return found.pop()


def _decimal_type(metadata: Iterable[Any]) -> pl.DataType:
    constraints = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else (item,))]
    limits = {
        name: value
        for item in constraints
        for name in ("max_digits", "decimal_places")
        if (value := getattr(item, name, None)) is not None
    }
    if len(limits) != 2 or limits["max_digits"] > 38:
        raise InvalidInputError("Decimal needs Field(max_digits=..., decimal_places=...), 38 digits at most.")
    return pl.Decimal(limits["max_digits"], limits["decimal_places"])


def to_arrow_type(dtype: pl.DataType | DataTypeClass) -> "pa.DataType":
    """Return the Arrow type of one of our column types, with plain strings."""
    import pyarrow as pa

    if isinstance(dtype, pl.Datetime):
        return pa.timestamp("us", "UTC")
    if isinstance(dtype, pl.Decimal):
        return pa.decimal128(dtype.precision or 38, dtype.scale)
    if isinstance(dtype, pl.List):
        return pa.list_(to_arrow_type(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pa.struct([pa.field(field.name, to_arrow_type(field.dtype)) for field in dtype.fields])
    plain: dict[Any, pa.DataType] = {
        pl.String: pa.string(),
        pl.Int64: pa.int64(),
        pl.Float64: pa.float64(),
        pl.Boolean: pa.bool_(),
        pl.Binary: pa.binary(),
        pl.Date: pa.date32(),
    }
    return plain[dtype.base_type()]


def to_arrow_schema(columns: Mapping[str, pl.DataType]) -> "pa.Schema":
    """Return the Arrow schema of a set of columns, all nullable."""
    import pyarrow as pa

    return pa.schema([pa.field(name, to_arrow_type(dtype)) for name, dtype in columns.items()])
