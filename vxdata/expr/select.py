"""`Select`: a query as a frozen value: what a builder has put together, and what a subquery is made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vxdata.catalog.table import TableSpec
    from vxdata.expr.tree import Node


@dataclass(frozen=True)
class Select:
    """One SELECT over one table: filters are ANDed, then sort, limit, select.

    Attributes:
        lake: the address of the lake.
        spec: the table.
        filters: bound predicates.
        sort: columns, and whether each is descending.
        limit: how many rows at most.
        columns: the columns that were selected; None for all visible ones.
        instant: see the table as of this instant; None for the client's own.
        all_versions: all versions, not only the one that is seen.
        fixed: the past or the snapshot that the client of the query sees, in words; None for the newest state.
    """

    lake: str
    spec: "TableSpec"
    filters: "tuple[Node, ...]" = ()
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    columns: tuple[str, ...] | None = None
    instant: datetime | None = None
    all_versions: bool = False
    fixed: str | None = None


class HasSelect(ABC):
    """Anything that a predicate takes as a subquery."""

    @abstractmethod
    def as_select(self) -> Select:
        """Return the query as a value."""
