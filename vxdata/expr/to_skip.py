"""The skipping target: a bound predicate over the statistics of files, true where a file may hold a row it keeps.

Polars skips files by the same statistics; it does not see through lists of values, NaN and casts, though, and it cannot
say beforehand how many files it will open. So the files of a query are chosen here, and Polars skips row groups.

An answer of null means that nothing is known: the file is read.
"""

from collections.abc import Mapping
from operator import and_, or_
from typing import Any, assert_never, cast

import polars as pl

from vxdata.expr.to_polars import combined, one_type
from vxdata.expr.tree import (
    And,
    Compare,
    ComparisonOperator,
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

_NEGATED: dict[str, ComparisonOperator] = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_READ = pl.lit(True)


def may_hold(node: Node, columns: Mapping[str, pl.DataType], *, negated: bool = False) -> pl.Expr:
    """Return the expression over `len` and each column's `_min`, `_max`, `_nc`.

    Args:
        node: the predicate, bound to the table.
        columns: the columns with statistics, and their types.
        negated: whether the negation is asked; a null row is kept by neither.
    """
    match node:
        case And(parts) | Or(parts):
            both = isinstance(node, And) != negated
            found = [may_hold(cast("Node", part), columns, negated=negated) for part in parts]
            return combined(and_ if both else or_, found)
        case Not(part):
            return may_hold(cast("Node", part), columns, negated=not negated)
        case IsNull(column) | EqMissing(column, None):
            return _has_value(column, columns) if negated else _has_null(column, columns)
        case EqMissing(column, value):
            differs = _compare(column, "!=", value, columns) | _has_null(column, columns)
            return differs if negated else _compare(column, "==", value, columns)
        case Compare(column, operator, value):
            return _compare(column, _NEGATED[operator] if negated else operator, value, columns)
        case IsIn(column, values):
            return _is_in(column, values, columns, negated)
        case Text(column, operator, text) if not negated and column in columns:
            return _has_value(column, columns) & _text(column, operator, text)
        case HasAncestor(identifier, str(column)) if not negated:
            return _compare(column, "==", identifier, columns)
        case Text(column, _, _) | Overlaps(column, _) | OverlapsSelect(column, _):
            return _READ if negated else _has_value(column, columns)
        case HasAncestor() | InSelect() | Quantified():
            return _READ
        case _:
            assert_never(node)


def _has_value(column: str, columns: Mapping[str, pl.DataType]) -> pl.Expr:
    return pl.col(f"{column}_nc") < pl.col("len") if column in columns else _READ


def _has_null(column: str, columns: Mapping[str, pl.DataType]) -> pl.Expr:
    return pl.col(f"{column}_nc") > 0 if column in columns else _READ


def _compare(column: str, operator: str, value: Any, columns: Mapping[str, pl.DataType]) -> pl.Expr:
    """Compare with the bounds; they may be wider than the values, never narrower."""
    dtype = columns.get(column)
    if dtype is None or isinstance(dtype, (pl.Boolean, pl.Binary, pl.Decimal, pl.List, pl.Struct)):
        return _has_value(column, columns)
    literal = pl.lit(value) if dtype.is_numeric() else pl.lit(value, dtype)
    low, high = pl.col(f"{column}_min"), pl.col(f"{column}_max")
    within = {
        "==": (low <= literal) & (high >= literal),
        "!=": ~((low == literal) & (high == literal)),
        "<": low < literal,
        "<=": low <= literal,
        ">": high > literal,
        ">=": high >= literal,
    }
    return _has_value(column, columns) & within[operator]


def _is_in(column: str, values: tuple[Any, ...], columns: Mapping[str, pl.DataType], negated: bool) -> pl.Expr:
    if not values:
        return pl.lit(negated)
    if negated:
        return _has_value(column, columns)
    dtype = columns.get(column)
    if dtype is None or isinstance(dtype, (pl.Boolean, pl.Binary, pl.Decimal)):
        return _has_value(column, columns)
    _, series = one_type(pl.col(column), values, dtype)
    least, greatest = pl.col(f"{column}_min").cast(series.dtype), pl.col(f"{column}_max").cast(series.dtype)
    known, ordered = least.is_not_null() & greatest.is_not_null(), pl.lit(series)
    first, last = ordered.search_sorted(least, side="left"), ordered.search_sorted(greatest, side="right")
    return _has_value(column, columns) & pl.when(known).then(first < last)  # some value lies between the bounds


def _text(column: str, operator: str, text: str) -> pl.Expr:
    """A file of one text is judged by it; of texts that start alike the least is the beginning itself."""
    low, high = pl.col(f"{column}_min"), pl.col(f"{column}_max")
    match operator:
        case "startswith":
            return (high >= text) & (low.str.slice(0, len(text)) <= text)
        case "endswith":
            return (low != high) | low.str.ends_with(text)
    return (low != high) | low.str.contains(text, literal=True)
