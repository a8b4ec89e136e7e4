"""`Query`: an immutable builder. Nothing is read before its last step.

A query is one SELECT over one table: filters are ANDed, then sort, limit, select. All of it reads one version of the
table, fixed when the last step starts.

Source: design of record, section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from operator import index
from typing import Any, Generic, NoReturn, SupportsIndex, TypeVar, cast

import polars as pl

from vxdata.errors import InvalidInputError
from vxdata.expr.bind import bind, column_type
from vxdata.expr.select import HasSelect, Select
from vxdata.expr.tree import Node, Predicate, require_predicate, subqueries_of
from vxdata.lake.faults import translated
from vxdata.lake.lake import SteadyView
from vxdata.schemas.instant import to_instant
from vxdata.schemas.response import ResourceResponse
from vxdata.sdk.plan import plan_select
from vxdata.sdk.session import Session

QueryT = TypeVar("QueryT", bound="BaseQuery")
ResponseT = TypeVar("ResponseT", bound=ResourceResponse[Any])


@dataclass(frozen=True, eq=False)
class Preview:
    """The beginning of an answer.

    Attributes:
        rows: the first rows.
        total: how many rows there are.
    """

    rows: pl.DataFrame
    total: int


@dataclass(frozen=True)
class BaseQuery(HasSelect):
    """The steps that every query has."""

    _session: Session = field(repr=False)
    _select: Select

    def as_select(self) -> Select:
        """Return the query as a value, for subqueries."""
        return self._select

    def filter(self: QueryT, *predicates: Predicate) -> QueryT:
        """Keep the rows for which all predicates are true; null is not true.

        Raises:
            InvalidInputError: an unknown field, a literal of a wrong type, a subquery of another lake or with an as-of
                instant of its own, or a `.limit` before.
        """
        self._refuse_after_limit("filter")
        bound = tuple(bind(require_predicate(predicate), self._select.spec) for predicate in predicates)
        for node in bound:
            self._refuse_foreign(node)
        return self._with(filters=self._select.filters + bound)

    def sort(self: QueryT, *columns: str, descending: bool | Sequence[bool] = False) -> QueryT:
        """Sort by columns, nulls last; without it the order is unspecified.

        Args:
            columns: names of scalar columns.
            descending: for all columns, or one for each.
        """
        self._refuse_after_limit("sort")
        flags = [descending] * len(columns) if isinstance(descending, bool) else descending
        if not isinstance(flags, (list, tuple)) or not all(isinstance(flag, bool) for flag in flags):
            raise InvalidInputError(f"sort: descending={descending!r}: True, False, or a list of them is expected.")
        if not columns or len(flags) != len(columns):
            raise InvalidInputError(
                f"sort: {len(columns)} columns, {len(flags)} values of descending; name one for each."
            )
        for name in columns:
            _require_name("sort", name)
            if isinstance(column_type(self._select.spec, name), (pl.List, pl.Struct)):
                raise InvalidInputError(f"sort: {name!r} is no scalar column.")
        return self._with(sort=tuple(zip(columns, flags, strict=True)))

    def limit(self: QueryT, n: int) -> QueryT:
        """Keep the first n rows at most."""
        n = _require_rows("limit", n)
        return self._with(limit=n if self._select.limit is None else min(n, self._select.limit))

    def as_of(self: QueryT, instant: str | date | datetime) -> QueryT:
        """See the lake as of an instant (valid time), subqueries included; naive means UTC."""
        at, own = read_instant(instant), self._session.instant
        if own is not None and at > own:
            raise InvalidInputError(f"as_of({instant!r}): this client sees the lake as of {own.isoformat()} only.")
        return self._with(instant=at)

    def versions(self: QueryT) -> QueryT:
        """Return all versions, not only the current one, with their ends in `valid_to`."""
        return self._with(all_versions=True)

    def lazy(self) -> pl.LazyFrame:
        """Return the plan over the newest state, for grouping, joins, batches and sinks in Polars."""
        with translated(self._select.lake, f"plan a query of {self._select.spec.namespace} at"):
            return plan_select(self._select, SteadyView(self._session.view), self._session.instant)

    def collect(self) -> pl.DataFrame:
        """Run the query.

        Returns:
            The selected columns; without `.select` the metadata in the order of the responses, then the payload's.
        """
        return self._run(self.lazy())

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._run(self.lazy().select(pl.len())).item())

    def preview(self, n: int = 20) -> "Preview":
        """Return the first n rows and the number of all of them, from one state of the lake."""
        _require_rows("preview", n)
        plan = self.lazy()
        with translated(self._select.lake, f"read {self._select.spec.namespace} of"):
            rows, count = pl.collect_all([plan.head(n), plan.select(pl.len())])
        return Preview(rows, int(count.item()))

    def __contains__(self, value: object) -> NoReturn:
        raise InvalidInputError(f"{value!r} in a query: write .is_in(query) with one selected column.")

    def explain(self) -> str:
        """Say what the query would read: files out of all, filters that go down to them, closings, and the plan."""
        from vxdata.sdk.explain import explain

        return explain(self._select, SteadyView(self._session.view), self._session.instant)

    def to_sql(self) -> str:
        """Return the same question as DuckDB SQL over views named like the namespaces; see docs/sql.md."""
        from vxdata.expr.to_sql import to_sql

        return to_sql(self._select, self._session.instant)

    def to_python(self) -> str:
        """Return the same question as a Python script that runs."""
        from vxdata.expr.to_python import to_script

        at = self._select.instant or self._session.instant
        asked, session = replace(self._select, instant=at), self._session
        return to_script(asked, self._select.lake, session.snapshot_token, session.profile)

    def funnel(self) -> pl.DataFrame:
        """Count what each filter leaves, in their order and in one pass.

        Returns:
            One row for all rows and one for each filter: filter (as Python), resources (versions, in a query of
            `.versions()`), patients, studies (left after it), removed (resources), removed_null (those of them whose
            filter was neither true nor false, because a value is null).
        """
        from vxdata.sdk.funnel import plan_funnel, to_funnel

        self._refuse_after_limit("funnel")
        plan = plan_funnel(self._select, SteadyView(self._session.view), self._session.instant)
        return to_funnel(self._select, self._run(plan))

    def funnel_chart(self) -> str:
        """Return the funnel as text, for a paper's flow chart."""
        from vxdata.sdk.funnel import funnel_chart

        return funnel_chart(self._select, self.funnel())

    def _run(self, plan: pl.LazyFrame) -> pl.DataFrame:
        with translated(self._select.lake, f"read {self._select.spec.namespace} of"):
            return plan.collect()

    def _with(self: QueryT, **changes: Any) -> QueryT:
        return replace(self, _select=replace(self._select, **changes))

    def _refuse_after_limit(self, verb: str) -> None:
        if self._select.limit is not None:
            raise InvalidInputError(f".{verb} after .limit would act on the rows before the limit; call .limit last.")

    def _refuse_foreign(self, node: Node) -> None:
        for subquery in subqueries_of(node):
            if subquery.select.lake != self._select.lake:
                raise InvalidInputError(f"the subquery is of another lake, {subquery.select.lake}.")
            if subquery.select.instant is not None:
                raise InvalidInputError("a subquery has no as_of of its own; call .as_of on the outer query.")
            if subquery.select.fixed not in (None, self._select.fixed):
                raise InvalidInputError(
                    f"the subquery is one {subquery.select.fixed}, the outer query is not; build both from one client."
                )

    def _selected(self, columns: Sequence[str]) -> Select:
        if not columns:
            raise InvalidInputError("select(): name at least one column.")
        for name in columns:
            _require_name("select", name)
            column_type(self._select.spec, name)
        return replace(self._select, columns=tuple(dict.fromkeys(columns)))


@dataclass(frozen=True)
class Selection(BaseQuery):
    """A query that returns some columns; it has no `collect_as_pydantic`, because a response needs all of them."""

    def select(self, *columns: str) -> "Selection":
        """Return only these columns."""
        return Selection(self._session, self._selected(columns))


@dataclass(frozen=True)
class Query(BaseQuery, Generic[ResponseT]):
    """A query over one type of resource."""

    def select(self, *columns: str) -> Selection:
        """Return only these columns; only they, and what the filters need, are read.

        Raises:
            InvalidInputError: an unknown column.
        """
        return Selection(self._session, self._selected(columns))

    def collect_as_pydantic(self) -> list[ResponseT]:
        """Run the query and return responses."""
        from vxdata.sdk.convert import to_responses

        return cast("list[ResponseT]", to_responses(self._select.spec, self.collect()))


def _require_rows(verb: str, n: Any) -> int:
    is_int = isinstance(n, SupportsIndex) and not isinstance(n, bool)  # also numpy's
    if not is_int or not 0 <= index(n) < 2**63:
        raise InvalidInputError(f"{verb}({n!r}): a number of rows, 0 or more (and below 2^63), is expected.")
    return index(n)


def _require_name(verb: str, name: object) -> None:
    if not isinstance(name, str):
        raise InvalidInputError(f"{verb}({name!r}): the name of a column is expected, as a string.")


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
