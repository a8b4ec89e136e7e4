"""Verifying the rows of a table against the rule book (`scd2.py`): versions, intervals, closings, lineage.

Of each row the protocol's columns are read, and the lineage is judged while it is scanned, so that the long lists of
ancestors are never in memory as a whole.

Source: design of record, sections 1 (lineage), 3 (valid_from, created_at) and 5 (storage protocol).
"""

from collections.abc import Iterator, Mapping

import polars as pl

from vxdata.catalog.table import LINEAGE_COLUMNS, TableSpec
from vxdata.lake import scd2
from vxdata.lake.findings import Finding, found_each
from vxdata.lake.snapshot import Snapshot

_KEY = ("identifier", "valid_from")
_SEPARATOR = "\n"


def read_rows(snapshot: Snapshot, files: pl.DataFrame) -> pl.DataFrame:
    """Return the protocol's columns of some files' rows, with a verdict on each row's lineage.

    Returns:
        identifier, parent_identifier, valid_from, valid_to, closes, created_at, is_deleted; above and line: hashes of
        the row's ancestors and of the lineage that its children have; is_incomplete, is_astray.
    """
    own_line = pl.concat_list("ancestors", "identifier").list.join(_SEPARATOR).hash()
    plan = snapshot.rows_of(files).select(
        *("identifier", "parent_identifier", "valid_from", "valid_to", "closes", "created_at", "is_deleted"),
        pl.col("ancestors").list.join(_SEPARATOR).hash().alias("above"),
        own_line.alias("line"),
        _is_incomplete(snapshot.spec).alias("is_incomplete"),
        _is_astray(snapshot.spec).alias("is_astray"),
    )
    return snapshot.collect(plan)


def _is_incomplete(spec: TableSpec) -> pl.Expr:
    needed = ("identifier", "valid_from", "created_at", "is_deleted", "commit_id", "ancestors")
    is_foreign = ~pl.col("identifier").str.starts_with(f"{spec.type_name}/")
    closes_nothing = pl.col("is_deleted") & pl.col("closes").is_null()
    return pl.any_horizontal(*(pl.col(name).is_null() for name in needed), is_foreign, closes_nothing).fill_null(True)


def _is_astray(spec: TableSpec) -> pl.Expr:
    """Whether a row's parent and lineage columns are not what its ancestors say."""
    parent, ancestors = pl.col("parent_identifier"), pl.col("ancestors")
    fits = [parent.eq_missing(ancestors.list.last())]
    parents = spec.payload.parent_types
    fits.append(
        pl.any_horizontal(*(parent.str.starts_with(f"{name}/") for name in parents)) if parents else parent.is_null()
    )
    for type_name, column in LINEAGE_COLUMNS.items():
        of_type = ancestors.list.eval(pl.element().filter(pl.element().str.starts_with(f"{type_name}/"))).list.first()
        expected = pl.col("identifier") if spec.type_name == type_name else of_type
        fits.append(pl.col(column).eq_missing(expected))
    return ~pl.all_horizontal(*(fit.fill_null(False) for fit in fits))


def current_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the current versions among rows of a whole table."""
    return scd2.current(rows.lazy(), scd2.closings_of(rows.lazy())).collect()


def check_rows(spec: TableSpec, rows: pl.DataFrame, *, is_sure: bool) -> Iterator[Finding]:
    """Check the rows of one table.

    Args:
        spec: the table's spec.
        rows: from `read_rows`.
        is_sure: whether all files of the table could be read.
    """
    checks = {
        "row-incomplete": (rows.filter("is_incomplete"), "a protocol column is null or contradicts another"),
        "lineage-wrong": (rows.filter("is_astray"), "parent, lineage columns and ancestors do not agree"),
        "row-double": (_twice(rows, *_KEY), "two rows have the same valid_from"),
        "two-current-versions": (_twice(current_rows(rows), "identifier"), "a resource has one current version"),
        **_closing_checks(rows),
        **_interval_checks(rows),
    }
    for kind, (bad, detail) in checks.items():
        yield from found_each(kind, spec.namespace, bad["identifier"].sort(), detail, is_sure=is_sure)


def _twice(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    return rows.group_by(columns).len().filter(pl.col("len") > 1)


_Checks = dict[str, tuple[pl.DataFrame, str]]


def _closing_checks(rows: pl.DataFrame) -> _Checks:
    closings = rows.filter(pl.col("closes").is_not_null()).select("identifier", "closes", end="valid_from")
    versions = rows.filter(~pl.col("is_deleted")).select("identifier", "valid_to", closes="valid_from")
    named = closings.join(versions, on=["identifier", "closes"], how="left", coalesce=True)
    lost = closings.join(versions, on=["identifier", "closes"], how="anti")
    contradicted = named.filter(pl.col("valid_to") != pl.col("end"))
    ends = closings.unique().group_by("identifier", "closes").len().filter(pl.col("len") > 1)
    twice = pl.concat([contradicted.select("identifier"), ends.select("identifier")])
    return {
        "closing-without-version": (lost, "the version that a closing names is not there"),
        "closed-twice": (twice, "a version ends at two different instants"),
    }


def _interval_checks(rows: pl.DataFrame) -> _Checks:
    """Check the intervals of versions with their derived ends (R4), and W4: created_at."""
    closings = scd2.closings_of(rows.lazy()).unique(["identifier", "closes"])
    versions = scd2.versions(rows.lazy(), closings).collect().sort(_KEY)
    before = pl.col("valid_to", "created_at", "valid_from").shift().over("identifier").name.suffix("_before")
    seen = versions.with_columns(before, (pl.int_range(pl.len()).over("identifier") > 0).alias("has_before"))
    empty = versions.filter(pl.col("valid_to") <= pl.col("valid_from"))
    overlaps = (pl.col("valid_to_before") > pl.col("valid_from")) | pl.col("valid_to_before").is_null()
    continues = (pl.col("valid_to_before") == pl.col("valid_from")).fill_null(False)
    expected = pl.when(continues).then("created_at_before").otherwise("valid_from")
    is_known = pl.col("closes").is_null() | continues  # of a version whose predecessor was erased nothing is known
    return {
        "interval-empty": (empty, "valid_from is not earlier than valid_to"),
        "interval-overlap": (seen.filter("has_before", overlaps), "a version begins before the one before it ends"),
        "created-at-wrong": (
            seen.filter(is_known, pl.col("created_at") != expected),
            "created_at is not the valid_from of the first version since the resource was absent",
        ),
    }


def find_orphans(spec: TableSpec, current: pl.DataFrame, live: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the live resources of a table whose parent is not live, or has another lineage than they say.

    Args:
        spec: the table's spec.
        current: its current rows, from `read_rows`.
        live: the live resources of each parent type: identifier, line.

    Returns:
        identifier, parent_identifier, is_absent (whether it is the parent that is not live).
    """
    if not spec.payload.parent_types:
        return current.head(0).select("identifier", "parent_identifier", is_absent=pl.lit(True))
    parents = pl.concat([live[name].select(parent_identifier="identifier", said="line") for name in live])
    joined = current.join(parents, on="parent_identifier", how="left")
    return joined.filter(pl.col("said").ne_missing(pl.col("above"))).select(
        "identifier", "parent_identifier", is_absent=pl.col("said").is_null()
    )
