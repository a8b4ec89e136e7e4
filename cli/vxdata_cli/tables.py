"""Tables for people: reports and data frames as rich shows them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vxdata_cli.shown import escaped

if TYPE_CHECKING:
    import polars as pl

    from vxdata.lake.upsert import UpsertReport

_COUNTS = ("created", "updated", "unchanged", "deleted")


def report_table(title: str, reports: Mapping[str, "UpsertReport"]) -> Group:
    """Return what was done in each namespace: one row each, with the counts; a cascade adds to what was deleted."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("namespace")
    for name in _COUNTS:
        table.add_column(name, justify="right")
    cascaded = cascaded_counts(reports)
    for namespace in dict.fromkeys([*reports, *cascaded]):
        counts = {name: getattr(reports.get(namespace), name, 0) for name in _COUNTS}
        counts["deleted"] += cascaded.get(namespace, 0)
        table.add_row(namespace, *(f"{count:,}" for count in counts.values()))
    return _titled(title, table)


def cascaded_counts(reports: Mapping[str, "UpsertReport"]) -> dict[str, int]:
    """Return how many resources of each namespace were closed with what hung on others that the files lack."""
    counts: Counter[str] = Counter()
    for report in reports.values():
        counts.update(report.cascaded)
    return dict(counts)


def _titled(title: str, table: Table) -> Group:
    """Return a table below its title, which may be wider than the table."""
    return Group(Text(title, style="bold"), table)


def count_table(title: str, counts: Mapping[str, Mapping[str, int]]) -> Group:
    """Return what was done in each namespace, a column for each kind: kind → namespace → count."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("namespace")
    for kind in counts:
        table.add_column(kind, justify="right")
    for namespace in dict.fromkeys(name for of_kind in counts.values() for name in of_kind):
        table.add_row(namespace, *(f"{of_kind.get(namespace, 0):,}" for of_kind in counts.values()))
    return _titled(title, table)


def commit_lines(commits: "pl.DataFrame") -> str:
    """Return commits as paragraphs, one for each operation: when, what, who and why, then its id and its types."""
    rows = commits.iter_rows(named=True)
    paragraphs: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        paragraphs.setdefault(operation_of(row), []).append(row)
    return "\n\n".join("\n".join(_commit_paragraph(rows)) for rows in paragraphs.values()) or "No commits."


def operation_of(commit: Mapping[str, Any]) -> Any:
    """Return what the commits of one operation share; those of others, such as the making of a table, have no id."""
    return commit["commit_id"] or (commit["operation"], commit["author"], commit["reason"])


def _commit_paragraph(rows: list[dict[str, Any]]) -> Iterator[str]:
    first = rows[0]
    at = f"{first['committed_at']:%Y-%m-%d %H:%M} UTC" if first["committed_at"] else "at an unknown time"
    who = f" by {escaped(first['author'])}" if first["author"] else ""
    why = f": {escaped(first['reason'])}" if first["reason"] else ""
    yield f"{at}  {escaped(first['operation'] or 'unknown')}{who}{why}"
    if first["commit_id"]:
        yield f"    {first['commit_id']}"
    width = max(len(row["namespace"]) for row in rows)
    for row in rows:
        yield f"    {row['namespace']:{width}}  {_changes(row)}".rstrip()


def _changes(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{row[name]:,} {name}" for name in ("created", "updated", "deleted") if row[name])


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
        table.add_row(escaped(file), f"{row}", escaped(field or ""), _one_line(value), reason)
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
