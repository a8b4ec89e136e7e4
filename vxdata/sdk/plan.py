"""From a query as a value to one lazy plan: scan, closings, filters, subqueries as joins, sort, limit, columns.

All of a plan reads one version of each table: the view is steady. A subquery that is a filter by itself becomes a
semi-join, its negation an anti-join; one inside OR becomes a column that answers it row by row, with three-valued
logic. `ANY` and `ALL` become an aggregate of one row. A long list of literals is joined like a subquery.

Source: design of record, section 4.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_

import polars as pl

from vxdata.expr.select import Select
from vxdata.expr.to_polars import combined, compare, one_type, to_polars
from vxdata.expr.to_skip import may_hold
from vxdata.expr.tree import (
    And,
    Compare,
    InSelect,
    IsIn,
    IsNull,
    JoinedNode,
    Node,
    Not,
    Or,
    OverlapsSelect,
    Quantified,
    columns_of,
    conjuncts,
    joined_of,
)
from vxdata.lake.lake import View
from vxdata.lake.snapshot import Snapshot

_ROW_KEY = ("identifier", "valid_from")
_MOST_ROWS = 2**32 - 1  # Polars counts no further


def plan_select(select: Select, view: View, instant: datetime | None) -> pl.LazyFrame:
    """Return the lazy plan of a query.

    Args:
        select: the query.
        view: a steady view of the lake.
        instant: the client's own as-of instant; the query's comes first.
    """
    rows = plan_rows(select, view, instant)
    if select.sort:
        names, flags = zip(*select.sort, strict=True)
        rows = rows.sort(names, descending=flags, nulls_last=True)
    if select.limit is not None:
        rows = rows.limit(min(select.limit, _MOST_ROWS))
    return rows.select(select.columns or list(select.spec.visible))


def plan_rows(select: Select, view: View, instant: datetime | None) -> pl.LazyFrame:
    """Return the rows that the filters keep, with all columns."""
    at = select.instant or instant
    parts = split_filters(select)
    snapshot = snapshot_for(select, view, at)
    pushed = (*parts.pushed, *ranges_of(parts.joined, select))
    rows = _scan(snapshot, select, at, _all(pushed, select), files_read(select, snapshot, at))
    after = _all(parts.derived, select)
    rows = rows if after is None else rows.filter(after)
    return reduce(lambda kept, node: _keep(kept, rows, node, select, view, at), parts.joined, rows)


@dataclass(frozen=True)
class FilterParts:
    """The filters of a query by what they need.

    Attributes:
        pushed: go down to the files.
        derived: on `valid_to`, which is derived; applied to the derived ends.
        joined: hold subqueries or long lists.
    """

    pushed: tuple[Node, ...]
    derived: tuple[Node, ...]
    joined: tuple[Node, ...]


def split_filters(select: Select) -> FilterParts:
    """Split the conjuncts of a query's filters by what they need."""
    nodes = [part for node in select.filters for part in conjuncts(node)]
    joined = tuple(node for node in nodes if joined_of(node))
    derived = tuple(node for node in nodes if node not in joined and "valid_to" in columns_of(node))
    return FilterParts(tuple(node for node in nodes if node not in joined + derived), derived, joined)


def ranges_of(nodes: Iterable[Node], select: Select) -> list[Node]:
    """Return the least and the greatest value of each long list that is a filter by itself: row groups are skipped."""
    ranges: list[Node] = []
    for node in nodes:
        if isinstance(node, IsIn) and node.column != "valid_to" and select.spec.visible[node.column] != pl.Binary:
            _, ordered = one_type(pl.col(node.column), node.values, select.spec.visible[node.column])
            if len(ordered):
                ranges.append(Compare(node.column, ">=", ordered.first()))
                ranges.append(Compare(node.column, "<=", ordered.last()))
    return ranges


def answered_filters(select: Select, view: View, instant: datetime | None) -> tuple[pl.LazyFrame, list[pl.Expr]]:
    """Return the rows before any filter, and the expression of each filter over them, for counting in one pass."""
    at = select.instant or instant
    rows = _scan(snapshot_for(select, view, at), select, at, None, None)
    base, answers = rows, dict[JoinedNode, pl.Expr]()
    for asked in dict.fromkeys(s for node in select.filters for s in joined_of(node)):
        compared = _compared(asked, select, view, at)
        rows, answers[asked] = _answered(rows, base, asked, *compared, f":q{len(answers)}")
    return rows, [to_polars(node, select.spec.columns, answers) for node in select.filters]


def snapshot_for(select: Select, view: View, at: datetime | None) -> Snapshot:
    """Return the version that a query reads, for the current state without the files of ended versions alone."""
    snapshot = view.snapshot(select.spec)
    return snapshot if select.all_versions or at is not None else snapshot.without_past


def files_read(select: Select, snapshot: Snapshot, at: datetime | None) -> pl.DataFrame:
    """Return the live files that may hold rows of a query, by their statistics."""
    known = snapshot.columns_with_statistics
    parts = split_filters(select)
    nodes: list[Node] = [*parts.pushed, *(node for node in parts.joined if "valid_to" not in columns_of(node))]
    if not select.all_versions and at is None:
        nodes.append(IsNull("valid_to"))
    if at is not None:
        nodes.append(Compare("valid_from", "<=", at))
    if not select.all_versions and at is not None:
        nodes.append(Or((IsNull("valid_to"), Compare("valid_to", ">", at))))
    return snapshot.files_that(may_hold(And(tuple(nodes)), known) if nodes else pl.lit(True))


def _scan(
    snapshot: Snapshot, select: Select, at: datetime | None, where: pl.Expr | None, files: pl.DataFrame | None
) -> pl.LazyFrame:
    if select.all_versions:
        return snapshot.versions(at, where, files)
    return snapshot.current(where, files) if at is None else snapshot.as_of(at, where, files)


def _all(nodes: Iterable[Node], select: Select) -> pl.Expr | None:
    expressions = [to_polars(node, select.spec.columns) for node in nodes]
    return combined(and_, expressions) if expressions else None


def _keep(
    rows: pl.LazyFrame, base: pl.LazyFrame, node: Node, select: Select, view: View, at: datetime | None
) -> pl.LazyFrame:
    """Keep the rows for which a predicate with subqueries or long lists is true; `base`: as `_answered` takes it."""
    match node:
        case InSelect() | IsIn():
            key, values = _compared(node, select, view, at)
            return rows.join(values, left_on=key, right_on="_value", how="semi")
        case Not((IsIn(column) | InSelect(column)) as inner):
            key, values = _compared(inner, select, view, at)
            if snapshot_for(select, view, at).has_no_null(column):
                return rows.join(values, left_on=key, right_on="_value", how="anti")
            if isinstance(inner, IsIn):  # a long list is not empty
                others = rows.join(values, left_on=key, right_on="_value", how="anti")
                return others.filter(pl.col(column).is_not_null())
            excluded = _with_null(values).filter(pl.col("_count") > 0)
            return rows.join(excluded, left_on=key, right_on="_value", how="anti", nulls_equal=True)
    answers: dict[JoinedNode, pl.Expr] = {}
    columns = rows.collect_schema().names()
    for number, asked in enumerate(joined_of(node)):
        rows, answers[asked] = _answered(rows, base, asked, *_compared(asked, select, view, at), f":{number}")
    return rows.filter(to_polars(node, select.spec.columns, answers)).select(columns)


def _compared(node: JoinedNode, select: Select, view: View, at: datetime | None) -> tuple[pl.Expr, pl.LazyFrame]:
    """Return a node's column and, as `_value`, its values without nulls, both as one type."""
    if isinstance(node, IsIn):
        key, literals = one_type(pl.col(node.column), node.values, select.spec.visible[node.column])
        return key, literals.alias("_value").to_frame().lazy()
    (name,) = node.select.columns or ("",)
    values = plan_select(node.select, view, at).select(pl.col(name).alias("_value")).drop_nulls()
    mine, theirs = select.spec.visible[node.column], node.select.spec.visible[name]
    key, floats = pl.col(node.column), values.with_columns(pl.col("_value").cast(pl.Float64))
    if isinstance(mine, pl.List):
        return (key, values) if mine.inner == theirs else (key.cast(pl.List(pl.Float64)), floats)
    return (key, values) if mine == theirs else (key.cast(pl.Float64), floats)


def _with_null(values: pl.LazyFrame) -> pl.LazyFrame:
    """Return values, each once, and a null; beside each, as `_count`, how many there are.

    A row without a value finds there whether there are any: of nothing a null is not unknown. The values are read
    once: a plan that took them twice, once to join and once to count, would double with each subquery in a subquery.
    """
    return values.select(pl.col("_value").unique().append(None), pl.len().alias("_count"))


def _answered(
    rows: pl.LazyFrame, base: pl.LazyFrame, node: JoinedNode, key: pl.Expr, values: pl.LazyFrame, mark: str
) -> tuple[pl.LazyFrame, pl.Expr]:
    """Join the answer to a subquery or a long list to the rows; return them and the expression that reads it.

    Args:
        rows: the rows.
        base: the same rows, or more, before anything was joined: a plan that took the rows twice would double with
            each of several subqueries.
        node: what is answered.
        key: its column, as one type with
        values: what it is compared with.
        mark: begins the names of the columns that are added.
    """
    known, count = pl.col(node.column).is_not_null(), pl.col(f"{mark}n")
    match node:
        case Quantified():
            return _quantified(rows, node, key, values, mark)
        case IsIn():  # a long list is not empty
            found = values.unique().select(pl.col("_value").alias(f"{mark}v"), pl.lit(True).alias(mark))
            marked = rows.join(found, left_on=key, right_on=f"{mark}v", how="left").drop(f"{mark}v", strict=False)
            return marked, pl.when(known).then(pl.col(mark).is_not_null())
        case InSelect():
            found = _with_null(values).select(pl.col("_value").alias(f"{mark}v"), pl.col("_count").alias(f"{mark}n"))
            marked = rows.join(found, left_on=key, right_on=f"{mark}v", how="left", nulls_equal=True)
            is_hit = count.is_not_null()
            marked = marked.drop(f"{mark}v", strict=False)
        case OverlapsSelect():
            elements = base.select(*_ROW_KEY, key.alias("_value")).explode("_value")
            found = elements.join(_with_null(values), on="_value", how="inner", nulls_equal=True)
            hits = found.group_by(_ROW_KEY).agg(
                pl.col("_value").is_not_null().any().alias(mark), pl.col("_count").first().alias(f"{mark}n")
            )
            marked = rows.join(hits, on=list(_ROW_KEY), how="left")
            is_hit = pl.col(mark).fill_null(False)
    return marked, pl.when(known).then(is_hit).when(count == 0).then(False)


def _quantified(
    rows: pl.LazyFrame, node: Quantified, key: pl.Expr, values: pl.LazyFrame, mark: str
) -> tuple[pl.LazyFrame, pl.Expr]:
    """X > ANY(v) is x > min(v), x > ALL(v) is x > max(v); of nothing ANY is false and ALL is true for every row."""
    greater, is_any = node.operator in (">", ">="), node.quantifier == "ANY"
    bound = pl.col("_value").min() if greater == is_any else pl.col("_value").max()
    joined = rows.join(values.select(bound.alias(mark), pl.len().alias(f"{mark}n")), how="cross")
    compared = compare(node.operator, key, pl.col(mark))
    return joined, pl.when(pl.col(f"{mark}n") == 0).then(not is_any).otherwise(compared)
