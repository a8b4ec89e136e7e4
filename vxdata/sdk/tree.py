"""What lies below a resource: counts of each type, and the identifiers down to a depth.

Level by level: the children of the nodes that are shown are found by their parent, so that a wide or deep tree costs
what is shown of it; the counts come from one pass over each table that can hold descendants.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, TableSpec, child_specs, descendant_specs
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.lake.lake import SteadyView
from vxdata.lake.past import describe_missing
from vxdata.lake.snapshot import Snapshot
from vxdata.sdk.session import Session

NODE_SCHEMA: dict[str, pl.DataType] = {
    "identifier": pl.String(),
    "parent_identifier": pl.String(),
    "type": pl.String(),
    "depth": pl.Int64(),
}
COUNT_SCHEMA: dict[str, pl.DataType] = {"identifier": pl.String(), "type": pl.String(), "descendants": pl.Int64()}


@dataclass(frozen=True, eq=False)
class Tree:
    """A resource and what lies below it.

    Attributes:
        identifier: the resource.
        nodes: the descendants that are shown, parents first, each level in the order of the identifiers: identifier,
            parent_identifier, type, depth (1 for a child).
        counts: for the resource and each shown node, how many live descendants of each type it has, at any depth:
            identifier, type, descendants.
        hidden: how many children of each shown node are not shown, by identifier.
    """

    identifier: str
    nodes: pl.DataFrame
    counts: pl.DataFrame
    hidden: dict[str, int]


def read_tree(session: Session, spec: TableSpec, identifier: str, depth: int, limit: int) -> Tree:
    """Return the tree below a resource; see `Resources.tree`."""
    for name, number in (("depth", depth), ("limit", limit)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InvalidInputError(f"tree: {name}={number!r}: a whole number, 0 or more, is expected.")
    reader = _Reader(session, spec, identifier)
    reader.require_root()
    levels, hidden = [pl.DataFrame(schema=NODE_SCHEMA)], dict[str, int]()
    parents = [(identifier, spec.type_name)]
    for level in range(1, depth + 1):
        found = list(reader.children(parents))
        children = pl.concat(
            [pl.DataFrame(schema=NODE_SCHEMA), *(f.with_columns(depth=pl.lit(level, pl.Int64)) for f in found)]
        )
        children = children.sort("identifier")
        is_shown = pl.int_range(pl.len()).over("parent_identifier") < limit
        levels.append(children.filter(is_shown))
        cut = children.filter(~is_shown).group_by("parent_identifier").len()
        hidden |= dict(cut.iter_rows())
        parents = list(levels[-1].select("identifier", "type").iter_rows())
    nodes = pl.concat(levels)
    return Tree(identifier, nodes, reader.counts([identifier, *nodes["identifier"]]), hidden)


class _Reader:
    """Reads one state of the tables that can hold descendants of one resource."""

    def __init__(self, session: Session, spec: TableSpec, identifier: str) -> None:
        self._view, self._at = SteadyView(session.view), session.instant
        self._spec, self._identifier = spec, identifier

    def require_root(self) -> None:
        root = self._seen(self._spec, pl.col("identifier") == self._identifier).select("identifier")
        if self._snapshot(self._spec).collect(root).is_empty():
            words = describe_missing(self._view, pl.Series([self._identifier]), self._at)
            raise NotFoundError(f"not found: {words}.")

    def children(self, parents: list[tuple[str, str]]) -> Iterator[pl.DataFrame]:
        """Return the children of some resources, a frame for each type of child."""
        specs = dict.fromkeys(child for _, name in parents for child in child_specs(name))
        identifiers = [identifier for identifier, _ in parents]
        for spec in specs:
            where = pl.col("parent_identifier").is_in(identifiers)
            rows = self._seen(spec, where).select("identifier", "parent_identifier")
            yield self._snapshot(spec).collect(rows.with_columns(type=pl.lit(spec.type_name)))

    def counts(self, shown: list[str]) -> pl.DataFrame:
        """Return the descendants of some resources of the tree by type."""
        found = [pl.DataFrame(schema=COUNT_SCHEMA)]
        wanted = pl.LazyFrame({"ancestors": shown}, schema={"ancestors": pl.String()})
        for spec in descendant_specs(self._spec.type_name):
            lines = self._seen(spec, self._below(spec)).select("ancestors").explode("ancestors")
            counted = lines.join(wanted, on="ancestors", how="semi").group_by("ancestors").len()
            rows = self._snapshot(spec).collect(counted)
            columns = pl.col("ancestors").alias("identifier"), pl.lit(spec.type_name).alias("type")
            found.append(rows.select(*columns, pl.col("len").cast(pl.Int64).alias("descendants")))
        return pl.concat(found)

    def _below(self, spec: TableSpec) -> pl.Expr:
        column = LINEAGE_COLUMNS.get(self._spec.type_name)
        if column is None or spec == self._spec:
            return pl.col("ancestors").list.contains(self._identifier)
        return pl.col(column) == self._identifier

    def _seen(self, spec: TableSpec, where: pl.Expr) -> pl.LazyFrame:
        snapshot = self._snapshot(spec)
        return snapshot.current(where) if self._at is None else snapshot.as_of(self._at, where)

    def _snapshot(self, spec: TableSpec) -> Snapshot:
        return self._view.snapshot(spec)
