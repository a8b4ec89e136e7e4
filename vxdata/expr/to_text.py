"""The text target: a predicate as the query text that `parse.parse_predicate` reads back to the same tree."""

import math
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, assert_never, cast

from vxdata.errors import InvalidInputError
from vxdata.expr.tokens import PLAIN_NAME, RESERVED
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
    Quantified,
    Text,
    is_range,
)


def to_text(node: Node) -> str:
    """Return the query text of a predicate, such as ``volume_type == 'T2' and not (a == 1 or b is null)``.

    Raises:
        InvalidInputError: the predicate holds a subquery, which has no text form.
    """
    match node:
        case And((Compare(column, ">=", low), Compare(_, "<=", high))) if is_range(node):
            return f"{_field(column)} between {_literal(low)} and {_literal(high)}"
        case And(parts):
            return " and ".join(_operand(part, And, Or) for part in parts)
        case Or(parts):
            return " or ".join(_operand(part, Or) for part in parts)
        case Not(IsNull(column)):
            return f"{_field(column)} is not null"
        case Not(EqMissing(column, value)):
            return f"{_field(column)} ne_missing {_literal(value)}"
        case Not(IsIn(column, values)):
            return f"{_field(column)} not in {_list(values)}"
        case Not(part):
            return f"not {_operand(part, And, Or)}"
        case Compare(column, operator, value):
            return f"{_field(column)} {operator} {_literal(value)}"
        case EqMissing(column, value):
            return f"{_field(column)} eq_missing {_literal(value)}"
        case IsNull(column):
            return f"{_field(column)} is null"
        case IsIn(column, values):
            return f"{_field(column)} in {_list(values)}"
        case Text(column, operator, text):
            return f"{_field(column)} {operator} {_quoted(text)}"
        case Overlaps(column, values):
            return f"{_field(column)} contains any {_list(values)}"
        case HasAncestor(identifier, _):
            return f"has_ancestor({_quoted(identifier)})"
        case InSelect() | OverlapsSelect() | Quantified():
            raise InvalidInputError(f"the subquery on {node.column!r} has no text form; write it in Python.")
        case _:
            assert_never(node)


def _operand(part: Any, *weaker: type) -> str:
    """Return a part of a larger predicate, in parentheses where they are needed."""
    text = to_text(cast("Node", part))
    return f"({text})" if isinstance(part, weaker) else text


def _field(column: str) -> str:
    if PLAIN_NAME.fullmatch(column) and column.lower() not in RESERVED:
        return column
    return "`" + column.replace("`", "``") + "`"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(values: tuple[Any, ...]) -> str:
    return f"({', '.join(map(_literal, values))})"


def _literal(value: Any) -> str:
    match value:
        case Enum():
            return _literal(value.value)
        case None | bool():
            return "null" if value is None else str(value).lower()
        case str():
            return _quoted(value)
        case date():
            return _quoted(value.isoformat())
        case bytes():
            return f"hex '{value.hex()}'"
        case Decimal():
            return f"decimal '{value}'"
        case float() if not math.isfinite(value):
            return str(value)
        case int() | float():
            return repr(value)
    raise InvalidInputError(f"{value!r} ({type(value).__name__}) is no value of a query text.")
