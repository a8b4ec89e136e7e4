"""Tables for people: reports and data frames as rich shows them."""

from collections.abc import Mapping
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
