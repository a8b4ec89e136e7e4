"""The SQL target: a query as DuckDB SQL over views that are named like the namespaces.

`volumes` is the view of the current state, `volumes_versions` that of all versions with their ends (docs/sql.md shows
how to make both). Names and literals are quoted here and nowhere else (so ruff's warning of
injection is answered).
"""

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any, assert_never, cast

import polars as pl

from vxdata.catalog.table import TableSpec
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

_COMPARISONS = {"==": "=", "!=": "<>"}
_TEXT = {"contains": "contains", "startswith": "starts_with", "endswith": "ends_with"}


def to_sql(select: Select, instant: datetime | None = None) -> str:
    """Return a query as one SELECT statement.

    Args:
        select: the query.
        instant: the client's own as-of instant; the query's comes first.
    """
    at = select.instant or instant
    columns = select.columns or tuple(select.spec.visible)
    lines = [f"SELECT {', '.join(map(quote_name, columns))}", f"FROM {_source(select, at)}"]
    if select.filters:
        lines.append("WHERE " + "\n  AND ".join(_sql(node, select.spec, at) for node in select.filters))
    if select.sort:
        terms = (f"{quote_name(name)} {'DESC' if flag else 'ASC'} NULLS LAST" for name, flag in select.sort)
        lines.append(f"ORDER BY {', '.join(terms)}")
    if select.limit is not None:
        lines.append(f"LIMIT {select.limit}")
    return "\n".join(lines)


def quote_name(name: str) -> str:
    """Return a column or view name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: Any) -> str:
    """Return a literal of a bound predicate as SQL."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case str():
            return "'" + value.replace("'", "''") + "'"
        case datetime():
            return f"TIMESTAMPTZ '{value.isoformat(sep=' ')}'"
        case date():
            return f"DATE '{value.isoformat()}'"
        case bytes():
            return "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"
        case float():
            return f"{value!r}::DOUBLE" if math.isfinite(value) else f"'{value}'::DOUBLE"
        case int():
            return str(value)
        case Decimal():
            return f"{value:f}"  # DuckDB takes an exponent for a DOUBLE
    raise TypeError(f"{type(value).__name__} is no type of a bound literal")


def _source(select: Select, at: datetime | None) -> str:
    versions = quote_name(f"{select.spec.namespace}_versions")
    if at is None:
        return versions if select.all_versions else quote_name(select.spec.namespace)
    instant = quote_literal(at)
    end = f"CASE WHEN valid_to <= {instant} THEN valid_to END AS valid_to"
    seen = f"SELECT * REPLACE ({end}) FROM {versions} WHERE valid_from <= {instant}"  # noqa: S608
    return f"({seen})" if select.all_versions else f"({seen} AND (valid_to IS NULL OR valid_to > {instant}))"


def _sql(node: Any, spec: TableSpec, at: datetime | None) -> str:
    """Return a bound predicate, in parentheses."""
    return f"({_bare(cast('Node', node), spec, at)})"


def _bare(node: Node, spec: TableSpec, at: datetime | None) -> str:
    match node:
        case And(parts):
            return " AND ".join(_sql(part, spec, at) for part in parts)
        case Or(parts):
            return " OR ".join(_sql(part, spec, at) for part in parts)
        case Not(part):
            return f"NOT {_sql(part, spec, at)}"
        case Compare(column, operator, value):
            return f"{quote_name(column)} {_COMPARISONS.get(operator, operator)} {quote_literal(value)}"
        case EqMissing(column, value):
            return f"{quote_name(column)} IS NOT DISTINCT FROM {quote_literal(value)}"
        case IsNull(column):
            return f"{quote_name(column)} IS NULL"
        case IsIn(column, values):
            return f"{quote_name(column)} IN ({_list(values)})" if values else "FALSE"
        case Text(column, operator, text):
            return f"{_TEXT[operator]}({quote_name(column)}, {quote_literal(text)})"
        case Overlaps(column, values):
            return f"list_has_any({quote_name(column)}, [{_list(values)}])" if values else "FALSE"
        case HasAncestor(identifier, _):
            return f"list_contains(ancestors, {quote_literal(identifier)})"
        case InSelect(column, select):
            key, found = _compared(column, select, spec, at)
            return f"{key} IN ({found})"
        case OverlapsSelect(column, select):
            key, found = _compared(column, select, spec, at)
            overlap = f"list_has_any({key}, (SELECT list(v) FROM ({found})))"  # noqa: S608
            return f"CASE WHEN EXISTS ({found}) THEN {overlap} ELSE FALSE END"
        case Quantified(column, operator, quantifier, select):
            key, found = _compared(column, select, spec, at)
            return f"{key} {operator} {quantifier} ({found})"
        case _:
            assert_never(node)


def _list(values: tuple[Any, ...]) -> str:
    return ", ".join(map(quote_literal, values))


def _compared(column: str, select: Select, spec: TableSpec, at: datetime | None) -> tuple[str, str]:
    """Return a column, and the values of a subquery as `v`, without nulls: numbers of two kinds both as floats."""
    (name,) = select.columns or ("",)
    mine, theirs, is_list = spec.visible[column], select.spec.visible[name], False
    if isinstance(mine, pl.List):
        mine, is_list = mine.inner, True  # type: ignore[assignment]
    key, value = quote_name(column), quote_name(name)
    if mine != theirs:
        key, value = f"CAST({key} AS DOUBLE{'[]' if is_list else ''})", f"CAST({value} AS DOUBLE)"
    return key, f"SELECT {value} AS v FROM ({to_sql(select, at)}) WHERE {quote_name(name)} IS NOT NULL"  # noqa: S608
