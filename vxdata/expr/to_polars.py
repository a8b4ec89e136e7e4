"""The Polars target: a bound predicate as one expression, with three-valued logic."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Any, assert_never

import polars as pl

from vxdata.expr.literals import Literals, common_type, wide_decimal
from vxdata.expr.tree import (
    LONG,
    And,
    Compare,
    ComparisonOperator,
    EqMissing,
    HasAncestor,
    InSelect,
    IsIn,
    IsNull,
    JoinedNode,
    Node,
    Not,
    Or,
    Overlaps,
    OverlapsSelect,
    Quantified,
    Text,
    is_long,
)

_LAST_CODE_POINT, _SURROGATES = 0x10FFFF, range(0xD800, 0xE000)
_COMPARISONS = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def to_polars(
    node: Node, columns: Mapping[str, pl.DataType], answers: Mapping[JoinedNode, pl.Expr] | None = None
) -> pl.Expr:
    """Return the expression of a bound predicate.

    Args:
        node: the predicate, bound to the table.
        columns: the table's columns and types.
        answers: for each node with a subquery or a long list, the expression that answers it, joined in by the plan.
    """
    match node:
        case And(parts):
            return combined(and_, [to_polars(part, columns, answers) for part in parts])  # type: ignore[arg-type]
        case Or(parts):
            return combined(or_, [to_polars(part, columns, answers) for part in parts])  # type: ignore[arg-type]
        case Not(part):
            return ~to_polars(part, columns, answers)  # type: ignore[arg-type]
        case Compare(column, operator, value):
            if isinstance(value, Decimal):
                wide = wide_decimal(columns[column], (value,))
                return compare(operator, pl.col(column).cast(wide), pl.lit(value, wide))
            is_far = isinstance(columns[column], pl.Decimal)  # a float out of the reach of decimals
            tested = pl.col(column).cast(pl.Float64) if is_far else pl.col(column)
            return compare(operator, tested, _lit(value, columns[column]))
        case EqMissing(column, value):
            if isinstance(value, Decimal):
                wide = wide_decimal(columns[column], (value,))
                return pl.col(column).cast(wide).eq_missing(pl.lit(value, wide))
            if isinstance(value, float) and isinstance(columns[column], pl.Decimal):
                return pl.lit(False)
            return pl.col(column).eq_missing(_lit(value, columns[column]))
        case IsNull(column):
            return pl.col(column).is_null()
        case IsIn(column, values):
            joined = answers.get(node) if answers and is_long(node) else None
            return _is_in(column, values, columns[column]) if joined is None else joined
        case Text(column, operator, text):
            return _text(column, operator, text)
        case Overlaps(column, values):
            return _overlaps(column, values, columns[column])
        case HasAncestor(identifier, column):
            if column is None:
                return pl.col("ancestors").list.contains(identifier)
            return (pl.col(column) == identifier) & pl.col(column).is_not_null()
        case InSelect() | OverlapsSelect() | Quantified():
            return (answers or {})[node]
        case _:
            assert_never(node)


def combined(operator: Callable[[pl.Expr, pl.Expr], pl.Expr], parts: Sequence[pl.Expr]) -> pl.Expr:
    """Join expressions by `&` or `|` as a tree that is not deeper than needed: a chain takes Polars quadratic time."""
    while len(parts) > 1:
        pairs = [operator(*pair) for pair in zip(parts[::2], parts[1::2], strict=False)]
        parts = [*pairs, *parts[2 * len(pairs) :]]
    return parts[0]


def compare(operator: ComparisonOperator, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Return left <operator> right."""
    result: pl.Expr = _COMPARISONS[operator](left, right)
    return result


def _lit(value: Any, dtype: pl.DataType) -> pl.Expr:
    """Return a typed literal; a float against an int or decimal column stays a float."""
    if isinstance(dtype, (pl.Int64, pl.Decimal)) and isinstance(value, float):
        return pl.lit(value)
    if isinstance(dtype, pl.List | pl.Struct):
        return pl.lit(None)
    return pl.lit(value, dtype)


def _is_in(column: str, values: tuple[Any, ...], dtype: pl.DataType) -> pl.Expr:
    if not values:
        return pl.lit(False)
    if isinstance(dtype, pl.String) and len(values) <= LONG:
        return pl.col(column).is_in(list(values))  # row groups are skipped by the values of a plain list
    tested, series = one_type(pl.col(column), values, dtype)
    return tested.is_in(series.implode())


def one_type(tested: pl.Expr, values: tuple[Any, ...], dtype: pl.DataType) -> tuple[pl.Expr, pl.Series]:
    """Return a column and sorted literals as one type."""
    common, bound = common_type(values, dtype), values if isinstance(values, Literals) else Literals(values)
    return tested if common == dtype else tested.cast(common), bound.ordered(common)


def _text(column: str, operator: str, text: str) -> pl.Expr:
    match operator:
        case "startswith":
            return _starts_with(pl.col(column), text)
        case "endswith":
            return pl.col(column).str.ends_with(text)
    return pl.col(column).str.contains(text, literal=True)


def _starts_with(column: pl.Expr, text: str) -> pl.Expr:
    """A range goes along, because files and row groups are skipped by their bounds."""
    result = column.str.starts_with(text)
    if not text:
        return result
    following = ord(text[-1]) + 1
    if following > _LAST_CODE_POINT or following in _SURROGATES:
        return result & (column >= text)
    return result & (column >= text) & (column < text[:-1] + chr(following))


def _overlaps(column: str, values: tuple[Any, ...], dtype: pl.DataType) -> pl.Expr:
    """Null for a null list; an empty list, and no values, overlap with nothing.

    At every length of the list this took at most half the time of a join with the elements.
    """
    if not values:
        return pl.lit(False)
    inner = dtype.inner if isinstance(dtype, pl.List) else pl.String()
    tested, series = one_type(pl.element(), values, inner)  # type: ignore[arg-type]
    return pl.col(column).list.eval(tested.is_in(series.implode())).list.any()
