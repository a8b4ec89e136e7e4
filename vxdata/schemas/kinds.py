"""Values of another kind than their field's, which pydantic would convert on a guess: refused before it sees them.

A number for an instant would be seconds since 1970, True the number 1, the text ``1_0`` the number 10. (Texts such as
``1951`` are numbers, as in CSV files.) NDJSON, frames and predicates refuse the same.
"""

from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from numbers import Number
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, BeforeValidator, PlainValidator, ValidationError, WrapValidator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from vxdata.schemas.instant import is_no_time, to_instant

_INT, _FLOAT = "a whole number (an integer)", "a number"
_UTC, _TIME = "an ISO string, a date or a datetime", "an ISO string such as 2024-01-31, a date or a datetime"
_KINDS: dict[Any, str] = {int: _INT, float: _FLOAT, datetime: _TIME, date: _TIME, AwareDatetime: _TIME}
_READS_ISO = BeforeValidator(to_instant)


def read_kinds(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model is given, with a time that is none (`pandas.NaT`) as None.

    Only fields of numbers and of instants are looked at, and none that has a validator of its own for what it is given.

    Raises:
        ValidationError: values of another kind than their fields; names the fields.
    """
    found, faults = dict(given), []
    for name, kind in _kinds(model).items():
        value = found.get(name)
        if value is None:
            continue
        if kind in (_UTC, _TIME) and is_no_time(value):
            found[name] = None
        elif _is_other(value, kind):
            words = PydanticCustomError("other_kind", "Input should be {kind}", {"kind": kind})
            faults.append(InitErrorDetails(type=words, loc=(name,), input=value))
    if faults:
        raise ValidationError.from_exception_data(model.__name__, faults)
    return found


def _is_other(value: Any, kind: str) -> bool:
    if kind == _UTC:
        return isinstance(value, Number)
    if kind == _TIME:
        return isinstance(value, Number) or (isinstance(value, str) and _is_number(value))
    is_bool = isinstance(value, bool) or type(value).__name__ == "bool"  # numpy's is none of Python's
    return is_bool or (isinstance(value, str) and "_" in value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@cache
def _kinds(model: type[BaseModel]) -> dict[str, str]:
    validators = model.__pydantic_decorators__.field_validators.values()
    judged = {name for validator in validators if validator.info.mode != "after" for name in validator.info.fields}
    fields = {} if "*" in judged else {name: f for name, f in model.model_fields.items() if name not in judged}
    return {name: kind for name, field in fields.items() if (kind := _kind_of(field)) is not None}


def _kind_of(field: FieldInfo) -> str | None:
    """Return the kind of a field; None for one of another kind, and for one with a validator of what it is given."""
    is_union = get_origin(field.annotation) in (Union, UnionType)
    leaves = [leaf for leaf in (get_args(field.annotation) if is_union else [field.annotation]) if leaf is not NoneType]
    if len(leaves) != 1:
        return None
    is_annotated = get_origin(leaves[0]) is Annotated
    annotation, *metadata = get_args(leaves[0]) if is_annotated else [leaves[0]]
    metadata += field.metadata
    own = [item for item in metadata if isinstance(item, (BeforeValidator, PlainValidator, WrapValidator))]
    if own == [_READS_ISO]:
        return _UTC
    return _KINDS.get(annotation) if not own and isinstance(annotation, type) else None
