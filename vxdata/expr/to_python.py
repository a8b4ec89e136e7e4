"""The Python target: a predicate as the text that builds it, for explanations, funnels and the command line."""

import re
from datetime import date, datetime
from decimal import Decimal
from keyword import iskeyword
from math import isfinite
from typing import Any, assert_never, cast

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
    Quantified,
    Text,
)


def to_python(node: Node, most: int | None = None) -> str:
    """Return the text of a predicate, such as ``(F.a == 1) & ~F.b.is_null()``.

    Args:
        node: the predicate.
        most: how many values of a list are shown to a reader; None for all of them, so that the text is Python.
    """
    match node:
        case And(parts):
            return " & ".join(_operand(part, most) for part in parts)
        case Or(parts):
            return " | ".join(_operand(part, most) for part in parts)
        case Not(IsNull(column)):
            return f"{_field(column)}.is_not_null()"
        case Not(EqMissing(column, value)):
            return f"{_field(column)}.ne_missing({_literal(value)})"
        case Not(part):
            return f"~{_operand(part, most)}"
        case Compare(column, operator, value):
            return f"{_field(column)} {operator} {_literal(value)}"
        case EqMissing(column, value):
            return f"{_field(column)}.eq_missing({_literal(value)})"
        case IsNull(column):
            return f"{_field(column)}.is_null()"
        case IsIn(column, values):
            return f"{_field(column)}.is_in({_literals(values, most)})"
        case Text(column, operator, text):
            return f"{_field(column)}.{operator}({text!r})"
        case Overlaps(column, values):
            return f"{_field(column)}.contains_any({_literals(values, most)})"
        case HasAncestor(identifier, _):
            return f"has_ancestor({identifier!r})"
        case InSelect(column, select):
            return f"{_field(column)}.is_in({select_to_python(select, most=most)})"
        case OverlapsSelect(column, select):
            return f"{_field(column)}.contains_any({select_to_python(select, most=most)})"
        case Quantified(column, operator, quantifier, select):
            return f"{_field(column)} {operator} {quantifier}({select_to_python(select, most=most)})"
        case _:
            assert_never(node)


def select_to_python(select: Select, client: str = "client", most: int | None = None) -> str:
    """Return the text of a query, without its last step."""
    return ".".join(_steps(select, client, most))


_NAMES = {"F": r"\bF[.\[]", "has_ancestor": r"\bhas_ancestor\(", "ANY": r" ANY\(", "ALL": r" ALL\("}


def to_script(select: Select, uri: str, snapshot: str | None = None, profile: str | None = None) -> str:
    """Return a query as a Python script that runs: it leaves the answer in `frame`, and prints it.

    Args:
        select: the query.
        uri: the lake's address.
        snapshot: the token of the snapshot that is asked; None for the newest state.
        profile: the profile of the settings that the client has; None if none was named.
    """
    head, *steps = _steps(select, "client")
    lines = [f"frame = (\n    {head}", *steps, "collect()\n)\nprint(frame)"]
    body = "\n    .".join(lines)
    names = [name for name, mark in _NAMES.items() if re.search(mark, body)]
    decimal = "from decimal import Decimal\n\n" if re.search(r"\bDecimal\(", body) else ""
    imports = f"{decimal}from vxdata.sdk import {', '.join(['Client', *names])}"
    named = {"profile": profile, "snapshot": snapshot}
    arguments = ", ".join([repr(uri), *(f"{word}={value!r}" for word, value in named.items() if value is not None)])
    return f"{imports}\n\nclient = Client({arguments})\n{body}"


def _steps(select: Select, client: str, most: int | None = None) -> list[str]:
    steps = [f"{client}.{select.spec.namespace}.query()"]
    if select.filters:
        steps.append(f"filter({', '.join(to_python(node, most) for node in select.filters)})")
    if select.instant is not None:
        steps.append(f"as_of({select.instant.isoformat()!r})")
    if select.all_versions:
        steps.append("versions()")
    if select.sort:
        names, flags = zip(*select.sort, strict=True)
        steps.append(f"sort({', '.join(map(repr, names))}, descending={list(flags)!r})")
    if select.limit is not None:
        steps.append(f"limit({select.limit})")
    if select.columns is not None:
        steps.append(f"select({', '.join(map(repr, select.columns))})")
    return steps


def _operand(part: Any, most: int | None) -> str:
    """Return a part of a larger predicate; what binds weaker than `&` and `~` stands in parentheses."""
    text = to_python(cast("Node", part), most)
    needs = isinstance(part, (And, Or, Compare, Quantified))
    return f"({text})" if needs else text


def _field(column: str) -> str:
    return f"F.{column}" if column.isidentifier() and not iskeyword(column) else f"F[{column!r}]"


def _literal(value: Any) -> str:
    if isinstance(value, (datetime, date)):
        return repr(value.isoformat())
    if isinstance(value, float) and not isfinite(value):
        return f"float({str(value)!r})"
    return f"Decimal({str(value)!r})" if isinstance(value, Decimal) else repr(value)


def _literals(values: tuple[Any, ...], most: int | None) -> str:
    shown = [_literal(value) for value in values[:most]]
    rest = len(values) - len(shown)
    return f"[{', '.join([*shown, f'... {rest:,} more'] if rest else shown)}]"
