"""`Query`: an immutable builder. Nothing is read before its last step.

A query is one SELECT over one table: filters are ANDed, then sort, limit, select. All of it reads one version of the
table, fixed when the last step starts.

Source: design of record, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import reduce
from operator import and_
from typing import Any, Generic, TypeVar, cast

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import InvalidInputError
from vxdata.expr.bind import bind, column_type
from vxdata.expr.to_polars import to_polars
from vxdata.expr.tree import And, Node, Not, Or, Predicate, require_predicate
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.instant import to_instant
from vxdata.schemas.response import ResourceResponse
from vxdata.sdk.session import Session

QueryT = TypeVar("QueryT", bound="BaseQuery")
ResponseT = TypeVar("ResponseT", bound=ResourceResponse[Any])


@dataclass(frozen=True)
class BaseQuery:
    """The steps that every query has."""

    _session: Session = field(repr=False)
    _spec: TableSpec
    _filters: tuple[Node, ...] = ()
    _sort: tuple[tuple[str, bool], ...] = ()
    _limit: int | None = None
    _columns: tuple[str, ...] | None = None
    _instant: datetime | None = None
    _all_versions: bool = False

    def filter(self: QueryT, *predicates: Predicate) -> QueryT:
        """Keep the rows for which all predicates are true; null is not true.

        Raises:
            InvalidInputError: an unknown field, a literal of a wrong type, or a `.limit` before.
        """
        self._refuse_after_limit("filter")
        bound = tuple(bind(require_predicate(predicate), self._spec) for predicate in predicates)
        return replace(self, _filters=self._filters + bound)

    def sort(self: QueryT, *columns: str, descending: bool | Sequence[bool] = False) -> QueryT:
        """Sort by columns, nulls last; without it the order is unspecified.

        Args:
            columns: names of scalar columns.
            descending: for all columns, or one for each.
        """
        self._refuse_after_limit("sort")
        flags = [descending] * len(columns) if isinstance(descending, bool) else list(descending)
        if not columns or len(flags) != len(columns):
            raise InvalidInputError(
                f"sort: {len(columns)} columns and {len(flags)} values of descending; name one for each."
            )
        for name in columns:
            if isinstance(column_type(self._spec, name), (pl.List, pl.Struct)):
                raise InvalidInputError(f"sort: {name!r} is no scalar column.")
        return replace(self, _sort=tuple(zip(columns, flags, strict=True)))

    def limit(self: QueryT, n: int) -> QueryT:
        """Keep the first n rows at most."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InvalidInputError(f"limit({n!r}): a number of rows, 0 or more, is expected.")
        return replace(self, _limit=n if self._limit is None else min(n, self._limit))

    def as_of(self: QueryT, instant: str | date | datetime) -> QueryT:
        """See the lake as of an instant (valid time); naive means UTC."""
        at = read_instant(instant)
        if self._session.instant is not None and at > self._session.instant:
            raise InvalidInputError(
                f"as_of({instant!r}): this client sees the lake as of {self._session.instant.isoformat()} only."
            )
        return replace(self, _instant=at)

    def versions(self: QueryT) -> QueryT:
        """Return all versions, not only the current one, with their ends in `valid_to`."""
        return replace(self, _all_versions=True)

    def lazy(self) -> pl.LazyFrame:
        """Return the plan over the newest state, for grouping, joins, batches and sinks in Polars."""
        return self._plan(self._session.view.snapshot(self._spec))

    def collect(self) -> pl.DataFrame:
        """Run the query.

        Returns:
            The selected columns; without `.select` the metadata in the order of the responses, then the payload's.
        """
        snapshot = self._session.view.snapshot(self._spec)
        return snapshot.collect(self._plan(snapshot))

    def count(self) -> int:
        """Return the number of rows."""
        snapshot = self._session.view.snapshot(self._spec)
        return int(snapshot.collect(self._plan(snapshot).select(pl.len())).item())

    def _plan(self, snapshot: Snapshot) -> pl.LazyFrame:
        rows = self._filtered(snapshot)
        if self._sort:
            names, flags = zip(*self._sort, strict=True)
            rows = rows.sort(names, descending=flags, nulls_last=True)
        if self._limit is not None:
            rows = rows.limit(self._limit)
        return rows.select(self._columns or list(self._spec.visible))

    def _filtered(self, snapshot: Snapshot) -> pl.LazyFrame:
        """Return the rows that the filters keep; those on `valid_to` see the derived ends, all others the files."""
        instant = self._instant or self._session.instant
        late = [node for node in self._filters if "valid_to" in columns_of(node)]
        where = self._all(node for node in self._filters if node not in late)
        if self._all_versions:
            rows = snapshot.versions(instant, where)
        elif instant is not None:
            rows = snapshot.as_of(instant, where)
        else:
            rows = snapshot.current(where)
        after = self._all(late)
        return rows if after is None else rows.filter(after)

    def _all(self, nodes: Any) -> pl.Expr | None:
        expressions = [to_polars(node, self._spec.columns) for node in nodes]
        return reduce(and_, expressions) if expressions else None

    def _refuse_after_limit(self, verb: str) -> None:
        if self._limit is not None:
            raise InvalidInputError(f".{verb} after .limit would act on the rows before the limit; call .limit last.")

    def _select(self, columns: Sequence[str]) -> tuple[str, ...]:
        if not columns:
            raise InvalidInputError("select(): name at least one column.")
        for name in columns:
            if not isinstance(name, str):
                raise InvalidInputError(f"select({name!r}): the name of a column is expected, as a string.")
            column_type(self._spec, name)
        return tuple(dict.fromkeys(columns))


class Selection(BaseQuery):
    """A query that returns some columns; it has no `collect_as_pydantic`, because a response needs all of them."""

    def select(self, *columns: str) -> "Selection":
        """Return only these columns."""
        return replace(self, _columns=self._select(columns))


@dataclass(frozen=True)
class Query(BaseQuery, Generic[ResponseT]):
    """A query over one type of resource."""

    def select(self, *columns: str) -> Selection:
        """Return only these columns; only they, and what the filters need, are read.

        Raises:
            InvalidInputError: an unknown column.
        """
        state = {name: getattr(self, name) for name in BaseQuery.__dataclass_fields__}
        return Selection(**{**state, "_columns": self._select(columns)})

    def collect_as_pydantic(self) -> list[ResponseT]:
        """Run the query and return responses."""
        from vxdata.sdk.convert import to_responses

        return cast("list[ResponseT]", to_responses(self._spec, self.collect()))


def columns_of(node: Node) -> set[str]:
    """Return the columns that a predicate reads."""
    match node:
        case And(parts) | Or(parts):
            return set().union(*(columns_of(cast("Node", part)) for part in parts))
        case Not(part):
            return columns_of(cast("Node", part))
    return {getattr(node, "column", "ancestors")}


def read_instant(instant: str | date | datetime) -> datetime:
    """Return an instant in UTC.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        found = to_instant(instant)
    except ValueError:
        found = None
    if not isinstance(found, datetime):
        raise InvalidInputError(f"{instant!r} is no instant; an ISO string, a date or a datetime is expected.")
    return found
