"""The oracle of queries: predicate trees of its own, and DuckDB that judges them over the rows of a story.

Nothing here reads `vxdata.expr`. A tree is turned into the SDK's predicate and, by other code, into SQL with
parameters over the rows that the story says are there. Subqueries are run first and their values stand in the SQL as
literals: `x > ANY(s)` is `x > v1 OR x > v2 ...`, which is its definition and not how the product computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tests.support.story import LINEAGE, NAMESPACES, SCHEMAS, Key, Story, View
from vxdata.sdk import ALL, ANY, Client, F, has_ancestor

KEY = "identifier, epoch_us(valid_from)"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "sql.md"


# -- trees


@dataclass(frozen=True)
class Test:
    """A test of one column: an operator or the name of a method, and its arguments."""

    __test__ = False
    column: str
    verb: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class HasAncestor:
    identifier: str


@dataclass(frozen=True)
class Sub:
    """A subquery: one column of some rows, by identifier if there is a limit."""

    namespace: str
    column: str
    where: Tree | None = None
    versions: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class SubTest:
    """A test of one column against a subquery: is_in, contains_any, or an operator with ANY or ALL."""

    column: str
    verb: str
    sub: Sub
    quantifier: str = ""


@dataclass(frozen=True)
class Both:
    left: Tree
    right: Tree


@dataclass(frozen=True)
class Either:
    left: Tree
    right: Tree


@dataclass(frozen=True)
class Never:
    """The negation."""

    part: Tree


Tree = Test | HasAncestor | SubTest | Both | Either | Never

OPERATORS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_METHODS = {"==": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}


def to_predicate(tree: Tree, client: Client) -> Any:
    """Return the tree as the SDK takes it."""
    match tree:
        case Both(left, right):
            return to_predicate(left, client) & to_predicate(right, client)
        case Either(left, right):
            return to_predicate(left, client) | to_predicate(right, client)
        case Never(part):
            return ~to_predicate(part, client)
        case HasAncestor(identifier):
            return has_ancestor(identifier)
        case Test(column, verb, arguments):
            return getattr(F[column], _METHODS.get(verb, verb))(*arguments)
        case SubTest(column, verb, sub, quantifier):
            query = to_subquery(sub, client)
            value = {"ANY": ANY, "ALL": ALL}[quantifier](query) if quantifier else query
            return getattr(F[column], _METHODS.get(verb, verb))(value)


def to_subquery(sub: Sub, client: Client) -> Any:
    query = getattr(client, sub.namespace).query()
    query = query.versions() if sub.versions else query
    query = query if sub.where is None else query.filter(to_predicate(sub.where, client))
    if sub.limit is not None:
        query = query.sort("identifier", "valid_from").limit(sub.limit)
    return query.select(sub.column)


# -- what the trees mean


@dataclass
class Sql:
    """A condition or a statement with `?` for its parameters."""

    text: str
    parameters: list[Any] = field(default_factory=list)

    def __and__(self, other: Sql) -> Sql:
        return Sql(f"({self.text} AND {other.text})", self.parameters + other.parameters)

    def __or__(self, other: Sql) -> Sql:
        return Sql(f"({self.text} OR {other.text})", self.parameters + other.parameters)


FALSE, TRUE = Sql("FALSE"), Sql("TRUE")


class Judge:
    """Answers trees over one chapter of the story, in DuckDB."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._connection = connect()
        self._made: set[str] = set()

    def keys(self, namespace: str, view: View, trees: Iterable[Tree]) -> list[Key]:
        """Return the keys of the rows for which all trees are true."""
        where = self.condition(namespace, view, trees)
        return self.run(f"SELECT {KEY} FROM {self.table(namespace, view)} WHERE {where.text}", where).rows()

    def run(self, statement: str, where: Sql = TRUE) -> pl.DataFrame:
        return pl.DataFrame(self._connection.sql(statement, params=where.parameters).to_arrow_table())

    def condition(self, namespace: str, view: View, trees: Iterable[Tree]) -> Sql:
        return reduce(and_, (self.sql(tree, namespace, view) for tree in trees), TRUE)

    def table(self, namespace: str, view: View) -> str:
        """Return the name of a table of what a view shows."""
        at = "now" if view.instant is None else f"{view.instant:%Y%m%dT%H%M%S%f}"
        name = f'"{namespace} {at} {view.versions}"'
        if name not in self._made:
            rows = pl.DataFrame(self._story.seen(namespace, view), SCHEMAS[namespace], orient="row")
            self._connection.register("given", rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
            self._connection.execute(f"CREATE TABLE {name} AS FROM given")
            self._made.add(name)
        return name

    def values(self, sub: Sub, view: View) -> list[Any]:
        """Return the values of a subquery, without nulls."""
        seen = View(view.instant, sub.versions)
        where = TRUE if sub.where is None else self.sql(sub.where, sub.namespace, seen)
        limit = "" if sub.limit is None else f" ORDER BY identifier, valid_from LIMIT {sub.limit}"
        statement = f'SELECT "{sub.column}" FROM {self.table(sub.namespace, seen)} WHERE {where.text}{limit}'
        return list(dict.fromkeys(self.run(statement, where).to_series().drop_nulls()))

    def sql(self, tree: Tree, namespace: str, view: View) -> Sql:
        """Return the condition that a tree means."""
        match tree:
            case Both(left, right):
                return self.sql(left, namespace, view) & self.sql(right, namespace, view)
            case Either(left, right):
                return self.sql(left, namespace, view) | self.sql(right, namespace, view)
            case Never(part):
                inner = self.sql(part, namespace, view)
                return Sql(f"(NOT {inner.text})", inner.parameters)
            case HasAncestor(identifier):
                return Sql("list_contains(ancestors, ?)", [identifier])
            case SubTest(column, verb, sub, ""):
                return _among(f'"{column}"', verb, self.values(sub, view))
            case SubTest(column, verb, sub, quantifier):
                each = [Sql(f'("{column}" {verb} ?)', [value]) for value in self.values(sub, view)]
                return reduce(or_, each, FALSE) if quantifier == "ANY" else reduce(and_, each, TRUE)
            case Test(column, verb, arguments):
                return _test(namespace, column, verb, arguments)


def _test(namespace: str, column: str, verb: str, arguments: Sequence[Any]) -> Sql:
    dtype = SCHEMAS[namespace][column]
    name = f'"{column}"'
    match verb, arguments:
        case ("==", [None]) | ("is_null", []):
            return Sql(f"({name} IS NULL)")
        case ("!=", [None]) | ("is_not_null", []):
            return Sql(f"({name} IS NOT NULL)")
        case (("eq_missing" | "ne_missing"), [value]):
            word = "NOT" if verb == "eq_missing" else ""
            typed = "NULL" if value is None else "?"
            return Sql(f"({name} IS {word} DISTINCT FROM {typed})", _given(column, dtype, [value]))
        case "between", [low, high]:
            return Sql(f"({name} BETWEEN ? AND ?)", _given(column, dtype, [low, high]))
        case (("after" | "before"), [value]):
            return Sql(f"({name} {'>' if verb == 'after' else '<'} ?)", _given(column, dtype, [value]))
        case "contains", [value] if isinstance(dtype, pl.List):
            return _among(name, "contains_any", [value])
        case (("contains_any" | "is_in"), [values]):
            return _among(name, verb, _given(column, dtype, values))
        case (("contains" | "startswith" | "endswith"), [text]):
            return Sql(f"({name} LIKE ? ESCAPE '!')", [_pattern(column, verb, text)])
        case operator, [value]:
            return Sql(f"({name} {OPERATORS[operator]} ?)", _given(column, dtype, [value]))
    raise ValueError((verb, arguments))


def _among(name: str, verb: str, values: list[Any]) -> Sql:
    """Return whether a column, or an element of a list column, is one of some values, none of them null."""
    marks = ", ".join("?" * len(values))
    if not values:
        return FALSE
    if verb == "is_in":
        return Sql(f"({name} IN ({marks}))", values)
    return Sql(f"(len(list_filter({name}, lambda x: x IN ({marks}))) > 0)", values)


def _pattern(column: str, verb: str, text: str) -> str:
    escaped = "".join(f"!{c}" if c in "!%_" else c for c in text)
    if verb == "startswith" and column in LINEAGE:
        return f"{typed(column, text)}%" if escaped == text else f"{typed(column, escaped)}%"
    return {"contains": f"%{escaped}%", "startswith": f"{escaped}%", "endswith": f"%{escaped}"}[verb]


def typed(column: str, text: str) -> str:
    """Return a text of a lineage column with the type before it."""
    return text if text.startswith(f"{LINEAGE[column]}/") else f"{LINEAGE[column]}/{text}"


def _given(column: str, dtype: pl.DataType, values: Iterable[Any]) -> list[Any]:
    """Return literals as DuckDB compares them with the column; nulls are ignored."""
    return [_one(column, dtype, value) for value in values if value is not None]


def _one(column: str, dtype: pl.DataType, value: Any) -> Any:
    if column in LINEAGE:
        return typed(column, value)
    if isinstance(dtype, pl.Datetime):
        return to_utc(value)
    if isinstance(dtype, pl.Date) and isinstance(value, str):
        return date.fromisoformat(value)
    return Decimal(str(value)) if isinstance(dtype, pl.Decimal) and not isinstance(value, Decimal) else value


def to_utc(value: str | date | datetime) -> datetime:
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    at = at if isinstance(at, datetime) else datetime(at.year, at.month, at.day)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


# -- DuckDB


def connect(*, careful: bool = True) -> duckdb.DuckDBPyConnection:
    """Return a connection; a careful one does without the optimizer by which DuckDB 2.0.0 loses a LIMIT.

    (It does where a LEFT JOIN is known to find nothing and a filter is known to be true.)
    """
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    if careful:
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def connect_to_files(uri: str, *, careful: bool = True) -> duckdb.DuckDBPyConnection:
    """Return a connection that has the rows of a lake's files, and the views of docs/sql.md over them."""
    connection = connect(careful=careful)
    for namespace in NAMESPACES:
        rows = pl.scan_delta(f"{uri}/{namespace}").collect()
        connection.register("given", rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
        connection.execute(f"CREATE TABLE {namespace}_rows AS FROM given")
        for view in documented_views(namespace):
            connection.execute(view)
    return connection


def documented_views(namespace: str) -> list[str]:
    """Return the statements of docs/sql.md, for a namespace."""
    statements = DOCS.read_text().split("```sql\n")[1:]
    return [part.partition("```")[0].replace("volumes", namespace) for part in statements]
