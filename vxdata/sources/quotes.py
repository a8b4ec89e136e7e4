"""The quotes of CSV: whether each one opens or closes a cell, told fast of a whole text, and exactly cell by cell.

A cell that begins with a quote ends with one, and holds each quote twice; another cell holds none.

Source: RFC 4180, section 2.
"""

import re
from collections.abc import Iterable, Iterator

import polars as pl

_CLOSED = re.compile(r'[^"]*+(?:""[^"]*+)*+"')
"""The rest of a quoted cell, up to the quote that closes it."""


class QuoteWatch:
    """Watches a text that comes in parts; it is sound as long as every quote stands where one opens or closes a cell.

    Args:
        delimiter: what parts the cells: one ASCII character.
    """

    def __init__(self, delimiter: str) -> None:
        self._beside = [ord(mark) for mark in f'\n\r"{delimiter}']
        self._last, self._count = b"\n", 0
        self.is_sound = True

    def see(self, part: bytes) -> None:
        """Look at the next part, in UTF-8; an empty one is the end."""
        if not part:
            self.is_sound = self.is_sound and self._count % 2 == 0
        elif self.is_sound and (b'"' in part or self._last == b'"'):
            self._check(self._last + part)
        self._last = part[-1:]

    def _check(self, text: bytes) -> None:
        """Check a part after the last byte before it: by turns a quote opens, with a border before it, and closes.

        The two quotes that stand for one are a closing one and an opening one side by side.
        """
        codes = _codes(text)
        is_quote = codes == ord('"')
        before = codes.head(-1).filter(is_quote.tail(-1))
        after = codes.tail(-1).filter(is_quote.head(-1))
        begun = self._last == b'"'  # a quote at the end of the last part: what comes before it was seen
        opens = before.gather_every(2, self._count % 2)
        closes = after.gather_every(2, (self._count + 1 - begun) % 2)
        self.is_sound = bool(opens.is_in(self._beside).all() and closes.is_in(self._beside).all())
        self._count += len(before)


def _codes(text: bytes) -> pl.Series:
    import pyarrow as pa

    codes = pl.from_arrow(pa.Array.from_buffers(pa.uint8(), len(text), [None, pa.py_buffer(text)]))
    assert isinstance(codes, pl.Series)
    return codes


class OpenQuoteError(ValueError):
    """A quote is not closed: all that comes after it is one cell.

    Attributes:
        row: the record, from 1.
        line: where that begins, from 1.
        text: the start of the cell.
    """

    def __init__(self, row: int, line: int, text: str) -> None:
        super().__init__(f"a quote is not closed in the record of line {line} (row {row}): {text!r}")
        self.row, self.line, self.text = row, line, text


def records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record: the line where it begins, from 1, and its cells as they are written, quotes and all.

    Args:
        lines: the text, each line with its end.
        delimiter: what parts the cells.

    Raises:
        OpenQuoteError: a quote is not closed.
    """
    row, start = 1, 1
    cells, opened = list[str](), list[str]()
    for number, line in enumerate(lines, 1):
        found, rest = _cells_of(line, delimiter, is_open=bool(opened))
        if opened and found:
            found[0], opened = "".join([*opened, found[0]]), []
        cells += found
        if rest:
            opened.append(rest)
            continue
        yield start, cells
        row, start, cells = row + 1, number + 1, []
    if opened:
        raise OpenQuoteError(row, start, opened[0][:60])


def _cells_of(line: str, delimiter: str, *, is_open: bool) -> tuple[list[str], str]:
    """Return the cells that end in a line, and the start of one whose quote is not closed there."""
    if not is_open and '"' not in line:
        return line.rstrip("\r\n").split(delimiter), ""
    cells, start, length = list[str](), 0, len(line.rstrip("\r\n"))
    while start <= length or is_open:
        end = start
        if is_open or line.startswith('"', start):
            closed = _CLOSED.match(line, start + (not is_open))
            if closed is None:
                return cells, line[start:]
            end = closed.end()
        end = found if (found := line.find(delimiter, end)) >= 0 else length
        cells.append(line[start:end])
        start, is_open = end + 1, False
    return cells, ""


def quote_fault(cell: str) -> str | None:
    """Return what is wrong with the quotes of a cell as it is written, to follow its name; None if nothing is."""
    if not cell.startswith('"'):
        return "holds a quote inside, but does not begin with one" if '"' in cell else None
    if len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', ""):
        return None
    return "has text behind a closing quote" if _CLOSED.match(cell, 1) else "begins with a quote that is not closed"


def cell_text(cell: str) -> str | None:
    """Return the text of a cell as it is written; None if it is empty, and the whole if its quotes are at fault."""
    if not cell:
        return None
    return cell[1:-1].replace('""', '"') if cell.startswith('"') and not quote_fault(cell) else cell
