"""What a query would read, in words: files, filters that go down to them, closings, and Polars' own plan.

The files are those that the plan scans.
"""

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from vxdata.expr.select import Select
from vxdata.expr.to_python import to_python
from vxdata.expr.tree import subqueries_of
from vxdata.lake.lake import View
from vxdata.sdk.plan import files_read, plan_select, snapshot_for, split_filters

_MEGABYTE = 1e6
MOST_VALUES = 8
"""How many values of a list a person is shown."""


def explain(select: Select, view: View, instant: datetime | None) -> str:
    """Return the explanation of a query and of its subqueries."""
    at = select.instant or instant
    lines = [line for part in _with_subqueries(select) for line in _table(part, view, at)]
    return "\n".join([*lines, "", plan_select(select, view, instant).explain()])


def _with_subqueries(select: Select) -> Iterator[Select]:
    yield select
    for node in select.filters:
        for subquery in subqueries_of(node):
            yield from _with_subqueries(subquery.select)


def _table(select: Select, view: View, instant: datetime | None) -> list[str]:
    snapshot, needed = view.snapshot(select.spec), snapshot_for(select, view, instant)
    read, parts = files_read(select, needed, instant), split_filters(select)
    closings = needed.closings_for(read)
    size = f"{int(read['size'].sum()) / _MEGABYTE:.1f} of {int(snapshot.files['size'].sum()) / _MEGABYTE:.1f} MB"
    known = "none needed" if closings is None else f"{closings.select(pl.len()).collect().item()}, by an anti-join"
    return [
        f"{select.spec.namespace}, version {snapshot.version}" + (f", as of {instant.isoformat()}" if instant else ""),
        f"  files       {read.height} of {snapshot.files.height} are read ({size} at most)",
        f"  closings    {known}",
        *(f"  goes down   {to_python(node, MOST_VALUES)}" for node in parts.pushed),
        *(f"  afterwards  {to_python(node, MOST_VALUES)}" for node in (*parts.derived, *parts.joined)),
    ]
