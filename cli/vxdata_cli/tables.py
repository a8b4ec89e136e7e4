"""Tables for people: reports and data frames as rich shows them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    import polars as pl

    from vxdata.lake.upsert import UpsertReport

_COUNTS = ("created", "updated", "unchanged", "deleted")


def report_table(title: str, reports: Mapping[str, "UpsertReport"]) -> Table:
    """Return what was done in each namespace: one row each, with the counts."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("namespace")
    for name in _COUNTS:
        table.add_column(name, justify="right")
    for namespace, report in reports.items():
        table.add_row(namespace, *(f"{getattr(report, name):,}" for name in _COUNTS))
    return table


def count_table(title: str, counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Return what was done in each namespace, a column for each kind: kind → namespace → count."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("namespace")
    for kind in counts:
        table.add_column(kind, justify="right")
    for namespace in dict.fromkeys(name for of_kind in counts.values() for name in of_kind):
        table.add_row(namespace, *(f"{of_kind.get(namespace, 0):,}" for of_kind in counts.values()))
    return table


def commit_table(commits: "pl.DataFrame") -> Table:
    """Return commits as lines; the id is never cut, what comes after it is where the terminal is too narrow."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("committed (UTC)", no_wrap=True, min_width=16)
    table.add_column("commit", no_wrap=True, min_width=32)
    for name in ("operation", "namespace", "rows", "author", "reason"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in commits.iter_rows(named=True):
        at = f"{row['committed_at']:%Y-%m-%d %H:%M}" if row["committed_at"] else ""
        told = (row[name] or "" for name in ("author", "reason"))
        table.add_row(at, row["commit_id"] or "", row["operation"] or "", row["namespace"], _changes(row), *told)
    return table


def _changes(row: Mapping[str, Any]) -> str:
    signs = (("created", "+"), ("updated", "~"), ("deleted", "-"))
    return " ".join(f"{sign}{row[name]:,}" for name, sign in signs if row[name])


def fault_table(title: str, rejected: "pl.DataFrame", most: int) -> Table:
    """Return what is wrong with rows of files: one line for each fault."""
    rest = f"and {rejected.height - most:,} more" if rejected.height > most else None
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False,
        caption=rest, caption_justify="left",
    )  # fmt: skip
    for name in ("file", "row", "field", "value"):
        table.add_column(name, justify="right" if name == "row" else "left", max_width=40, overflow="fold")
    table.add_column("reason")
    for file, row, field, value, reason in rejected.head(most).iter_rows():
        table.add_row(file, f"{row}", field or "", _one_line(value), reason)
    return table


def rows_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    """Return rows of text as a table."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_one_line, row))
    return table


def _one_line(value: str | None) -> str:
    """Return a value that may hold anything as text without control characters, cut."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value[:80]) + ("..." if len(value) > 80 else "")


def frame_table(frame: "pl.DataFrame", most: int = 10) -> Table:
    """Return the first rows of a data frame; where the terminal is too narrow, the last column is cut."""
    rest = f"and {frame.height - most:,} more rows" if frame.height > most else None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, caption=rest, caption_justify="left")
    for name, dtype in frame.schema.items():
        justify: Literal["left", "right"] = "right" if dtype.is_numeric() else "left"
        table.add_column(name, justify=justify, no_wrap=name != frame.columns[-1], overflow="ellipsis")
    for row in frame.head(most).iter_rows():
        table.add_row(*map(_cell, row))
    return table


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:,.1f}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)
