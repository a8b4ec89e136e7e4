"""Spans: the ranges of identifiers that a fold goes through one after another, so that its memory is bounded. Pure.

All rows of one identifier lie in one span. Files that stay where they are (*kept*) are not split: what is rewritten in
their range goes to a file of its own, and the files written before and after it do not reach over it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Span:
    """Identifiers from `low` to before `high`.

    Attributes:
        low: the first identifier.
        high: the first one after it; None if there is no end.
        is_kept: whether a kept file lies here.
    """

    low: str
    high: str | None
    is_kept: bool

    def overlaps(self, low: str, high: str) -> bool:
        """Whether a range, both ends included, shares an identifier with the span."""
        return high >= self.low and (self.high is None or low < self.high)

    def holds(self) -> pl.Expr:
        """Return the filter of the span's rows."""
        column = pl.col("identifier")
        return column >= self.low if self.high is None else (column >= self.low) & (column < self.high)


def plan_spans(sample: pl.Series, every: int, kept: Iterable[tuple[str, str]]) -> list[Span]:
    """Return spans that cover all identifiers, in their order.

    Args:
        sample: identifiers of the rewritten rows, at even distances.
        every: how many of the sample a span shall hold.
        kept: the ranges of kept files, both ends included.
    """
    closed = _merged((low, after(high)) for low, high in kept)
    picked = sample.sort().gather_every(every, offset=every).to_list()
    bounds = sorted({"", *picked, *(end for interval in closed for end in interval)})
    spans = []
    for low, high in zip(bounds, [*bounds[1:], None], strict=True):
        while closed and closed[0][1] <= low:
            closed = closed[1:]
        spans.append(Span(low, high, bool(closed) and closed[0][0] <= low))
    return spans


def after(identifier: str) -> str:
    """Return the first text after an identifier; identifiers hold printable characters only."""
    return identifier + "\0"


def _merged(intervals: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    merged: list[tuple[str, str]] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
