"""Passes over rows that may exceed memory: batch by batch, and of many columns some at a time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

_COLUMNS_AT_ONCE = 32


def pass_over(rows: pl.LazyFrame, columns: Iterable[str], look: Callable[[pl.DataFrame], None]) -> None:
    """Look at all rows.

    Each file is opened once for so many columns, not once for each of them: on S3 that is a request or more.

    Args:
        rows: the rows.
        columns: what is looked at.
        look: takes a batch of some of the columns; each column is in one batch of each row.
    """
    names = list(columns)
    for start in range(0, len(names), _COLUMNS_AT_ONCE):
        rows.select(names[start : start + _COLUMNS_AT_ONCE]).sink_batches(look)


def distinct_texts(rows: pl.LazyFrame, among: Mapping[str, pl.Series | None]) -> dict[str, pl.Series]:
    """Return the texts in some columns, each once.

    Args:
        rows: the rows.
        among: the columns, and of each the texts that are looked for; None: all.
    """
    found = {name: _Distinct() for name in among}

    def look(batch: pl.DataFrame) -> None:
        for texts in batch:
            wanted, here = among[texts.name], texts.drop_nulls().unique()
            found[texts.name].add(here if wanted is None else here.filter(here.is_in(wanted.implode())))

    pass_over(rows, among, look)
    return {name: texts.all() for name, texts in found.items()}


@dataclass
class _Distinct:
    """Texts, each once in the end; never held much more often than that."""

    once: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))
    more: list[pl.Series] = field(default_factory=list)

    def add(self, texts: pl.Series) -> None:
        self.more.append(texts)
        if sum(map(len, self.more)) > len(self.once):
            self.once, self.more = self.all(), []

    def all(self) -> pl.Series:
        return pl.concat([self.once, *(texts.alias("") for texts in self.more)]).unique()
