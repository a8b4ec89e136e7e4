"""Binding: a predicate is held against a table's columns before any I/O.

Unknown fields fail with the nearest names, literals of a wrong type fail with what fits, and what follows from the
schema is filled in: lineage columns take identifiers with or without their type, `contains` on a list is membership,
and `has_ancestor` of a datasource, patient or study uses the lineage column, so that files are skipped.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, TableSpec
from vxdata.errors import InvalidInputError, did_you_mean
from vxdata.expr.literals import Literals, to_literal, to_literals
from vxdata.expr.select import Select
from vxdata.expr.tree import (
    And,
    Compare,
    EqMissing,
    HasAncestor,
    InSelect,
    IsIn,
    IsNull,
    Node,
    Not,
    Or,
    Overlaps,
    OverlapsSelect,
    Predicate,
    Quantified,
    Text,
    refuse_towers,
)
from vxdata.schemas.identifiers import check_identifier, type_of
from vxdata.schemas.registry import registry

_TYPE_OF_COLUMN = {column: type_name for type_name, column in LINEAGE_COLUMNS.items()}


def bind(predicate: Predicate, spec: TableSpec) -> Node:
    """Return the predicate with its literals as the table's columns see them.

    Raises:
        InvalidInputError: an unknown field, a literal or operator that does not fit its column, or too deep a tree.
    """
    refuse_towers(predicate)
    return _bound(predicate, spec)


def _bound(predicate: Predicate, spec: TableSpec) -> Node:
    node: Node = predicate  # type: ignore[assignment]  # every predicate is one of the nodes
    match node:
        case And(parts):
            return And(tuple(_bound(part, spec) for part in parts))
        case Or(parts):
            return Or(tuple(_bound(part, spec) for part in parts))
        case Not(part):
            return Not(_bound(part, spec))
        case HasAncestor(identifier, _):
            return _bind_ancestor(identifier, spec)
        case IsNull(column):
            column_type(spec, column)
            return node
        case Compare(column, "after" | "before" as operator, value):
            _refuse_timeless(column, operator, column_type(spec, column))
            return Compare(column, ">" if operator == "after" else "<", _literal(spec, column, value))
        case Compare(column, operator, value):
            return Compare(column, operator, _literal(spec, column, value))
        case EqMissing(column, value):
            return EqMissing(column, None if value is None else _literal(spec, column, value))
        case IsIn(column, values):
            return _bind_is_in(spec, column, values)
        case Text():
            return _bind_text(spec, node)
        case Overlaps(column, values):
            return Overlaps(column, _elements(spec, column, values))
        case InSelect(column, select):
            _refuse_list(spec, column)
            _refuse_mismatch(column, column_type(spec, column), select)
            return node
        case OverlapsSelect(column, select):
            _refuse_mismatch(column, _element_type(spec, column), select)
            return node
        case Quantified(column, "after" | "before" as operator, _, _):
            _refuse_timeless(column, operator, column_type(spec, column))
            return _bound(replace(node, operator=">" if operator == "after" else "<"), spec)
        case Quantified(column, operator, _, select):
            _refuse_unordered(column, operator, column_type(spec, column))
            _refuse_mismatch(column, column_type(spec, column), select)
            return node
        case _:
            assert_never(node)


def column_type(spec: TableSpec, column: str) -> pl.DataType:
    """Return the type of a visible column.

    Raises:
        InvalidInputError: there is no such column; the message names the nearest.
    """
    visible: Mapping[str, pl.DataType] = spec.visible
    if column not in visible:
        raise InvalidInputError(f"{spec.namespace} has no field {column!r}.{did_you_mean(column, visible)}")
    return visible[column]


def _literal(spec: TableSpec, column: str, value: Any) -> Any:
    literal = to_literal(column, column_type(spec, column), value)
    return _with_type(column, literal) if column in _TYPE_OF_COLUMN else literal


def _with_type(column: str, value: str) -> str:
    """Return a lineage literal with its type: `DA001` of `patient_id` is `patient/DA001`."""
    expected, found = _TYPE_OF_COLUMN[column], type_of(value)
    if value.startswith(f"{expected}/"):
        return value
    if "/" in value and found in registry():
        raise InvalidInputError(f"F.{column}: {value!r} is of the type {found!r}; a {expected!r} is expected.")
    return f"{expected}/{value}"


def _bind_is_in(spec: TableSpec, column: str, values: tuple[Any, ...]) -> IsIn:
    _refuse_list(spec, column)
    literals = to_literals(column, column_type(spec, column), values)
    if column in _TYPE_OF_COLUMN:
        literals = Literals(dict.fromkeys(_with_type(column, literal) for literal in literals))
    return IsIn(column, literals)


def _bind_text(spec: TableSpec, node: Text) -> Node:
    dtype = column_type(spec, node.column)
    if isinstance(dtype, pl.List) and node.operator == "contains":
        return Overlaps(node.column, _elements(spec, node.column, (node.text,)))
    if not isinstance(dtype, pl.String):
        raise InvalidInputError(f"F.{node.column}.{node.operator}: the field is {dtype}, and a text is needed.")
    node = replace(node, text=to_literal(node.column, dtype, node.text))
    if node.operator == "startswith" and node.column in _TYPE_OF_COLUMN:
        return Text(node.column, "startswith", _with_type(node.column, node.text))
    return node


def _elements(spec: TableSpec, column: str, values: tuple[Any, ...]) -> Literals:
    return to_literals(column, _element_type(spec, column), values)


def _element_type(spec: TableSpec, column: str) -> pl.DataType:
    dtype = column_type(spec, column)
    if not isinstance(dtype, pl.List):
        raise InvalidInputError(f"F.{column} is no list; write F.{column}.is_in([...]), or .contains('...') of a text.")
    return dtype.inner() if isinstance(dtype.inner, type) else dtype.inner


def _refuse_list(spec: TableSpec, column: str) -> None:
    if isinstance(column_type(spec, column), pl.List):
        raise InvalidInputError(f"F.{column} is a list; write F.{column}.contains_any([...]).")


def _refuse_timeless(column: str, operator: str, dtype: pl.DataType) -> None:
    if not isinstance(dtype, (pl.Datetime, pl.Date)):
        sign = ">" if operator == "after" else "<"
        raise InvalidInputError(f"F.{column}.{operator}: the field is {dtype}, no instant; write F.{column} {sign} ...")


def _refuse_unordered(column: str, operator: str, dtype: pl.DataType) -> None:
    if isinstance(dtype, (pl.List, pl.Struct, pl.Boolean, pl.Binary)):
        raise InvalidInputError(f"F.{column} {operator} ...: {dtype} has no order.")


def _refuse_mismatch(column: str, dtype: pl.DataType, select: Select) -> None:
    """Refuse a subquery whose values never compare with the column; numbers compare with numbers."""
    (name,) = select.columns or ("",)
    found = select.spec.visible[name]
    if found != dtype and not (found.is_numeric() and dtype.is_numeric()):
        raise InvalidInputError(f"F.{column} is {dtype}, but the subquery's {name!r} is {found}.")


def _bind_ancestor(identifier: str, spec: TableSpec) -> Node:
    check_identifier(identifier)
    type_name = type_of(identifier)
    registry().of_type(type_name)
    column = LINEAGE_COLUMNS.get(type_name) if spec.type_name != type_name else None
    return HasAncestor(identifier, column)
