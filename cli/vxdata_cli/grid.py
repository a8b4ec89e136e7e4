"""Frames of stored data for people, cut to the terminal's width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vxdata_cli.shown import escaped, shown_text

if TYPE_CHECKING:
    import polars as pl

_WIDEST, _NARROWEST, _NARROWEST_STEP = range(60, 19, -4), 20, 8
_GAP = 3  # what a table puts between two columns


def shortened(text: str, most: int) -> str:
    """Return text that fits some cells; the middle is left out, because identifiers share long beginnings."""
    if cell_len(text) <= most:
        return text
    head, tail = most // 2, (most - 1) // 2
    while cell_len(text[:head] + "…" + text[len(text) - tail :]) > most:  # wide characters
        head, tail = max(head - 1, 0), max(tail - 1, 0)
    return text[:head] + "…" + text[len(text) - tail :]


def data_table(frame: "pl.DataFrame", width: int) -> tuple[Table, int]:
    """Return rows as a table that fits some columns of a terminal, and how many columns of the frame it leaves out."""
    cells = {name: [shown_text(value) for value in frame[name]] for name in frame.columns}
    natural = {name: max(map(cell_len, (name, *cells[name]))) for name in frame.columns}
    most = next((cap for cap in _WIDEST if _total(natural.values(), cap) <= width), _NARROWEST)
    kept = _that_fit(natural, most, width)
    most = next((cap for cap in _WIDEST if _total((natural[name] for name in kept), cap) <= width), most)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in kept:
        justify: Literal["left", "right"] = "right" if frame.schema[name].is_numeric() else "left"
        table.add_column(Text(escaped(name)), justify=justify, no_wrap=True, overflow="ellipsis")
    for row in range(frame.height):
        table.add_row(*(Text(shortened(cells[name][row], max(most, len(name)))) for name in kept))
    return table, frame.width - len(kept)


def step_table(frame: "pl.DataFrame", width: int) -> Table:
    """Return counted steps as a table with all columns; the text of the first is cut to what the counts leave of it."""
    first, *counts = frame.columns
    cells = {name: [f"{value:,}" for value in frame[name]] for name in counts}
    taken = sum(max(map(cell_len, (name, *cells[name]))) + _GAP for name in counts)
    most = max(width - taken - _GAP, _NARROWEST_STEP)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for name in counts:
        table.add_column(name, justify="right", no_wrap=True)
    for row, text in enumerate(frame[first]):
        table.add_row(Text(shortened(escaped(text), most)), *(cells[name][row] for name in counts))
    return table


def _total(widths: Any, cap: int) -> int:
    return sum(min(width, cap) + _GAP for width in widths)


def _that_fit(natural: dict[str, int], most: int, width: int) -> Sequence[str]:
    """Return the first columns that fit; one at least."""
    kept: list[str] = []
    for name, wanted in natural.items():
        width -= max(min(wanted, most), len(name)) + _GAP
        if width < 0 and kept:
            break
        kept.append(name)
    return kept
