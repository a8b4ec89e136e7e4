"""Compaction: each partition's tail is folded into sorted files of current and of closed versions.

A round rewrites some files of one partition (`foldable` says which, `fold` writes the new ones) and commits through the
one primitive, beside writers and other compactors: what others append meanwhile still closes what was rewritten, and if
another compaction took a file first, the work is dropped.

Source: design of record, section 5 (compaction folds); the rules stand in `scd2`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN, TableSpec
from vxdata.errors import StorageError
from vxdata.lake.commit import rewrite
from vxdata.lake.datafile import CheckedFiles, checked_files
from vxdata.lake.faults import translated
from vxdata.lake.fold import HELD_IN, Chosen, fold_files, is_full
from vxdata.lake.foldable import (
    CURRENT,
    TAIL,
    FoldPolicy,
    chosen_tail,
    file_facts,
    partitions_to_fold,
    with_crowds,
    with_targets,
)
from vxdata.lake.intent import Rewrite, Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.lookup import FEW
from vxdata.lake.seals import refuse_damaged_state
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas.columns import INSTANT

_NAMED = ["identifier", "closes"]
_SEARCHED_ROWS = 1_000_000
NO_CLOSINGS = pl.DataFrame(schema={"identifier": pl.String(), "closes": INSTANT})


@dataclass(frozen=True)
class Folded:
    """What one round of compaction did to one partition.

    Attributes:
        namespace: the table.
        datasource_id: the partition.
        files_before, files_after: how many files were rewritten, and how many stand for them.
        rows: how many rows were read.
        folded: how many closings became the ends of the versions that they close.
        bytes_before, bytes_after: of those files.
    """

    namespace: str
    datasource_id: str
    files_before: int
    files_after: int
    rows: int
    folded: int
    bytes_before: int
    bytes_after: int


Progress = Callable[[Folded], None]
"""Told after each round."""


def compact(
    lake: Lake,
    specs: Iterable[TableSpec],
    policy: FoldPolicy,
    stamp: Stamp,
    *,
    datasources: Sequence[str] | None = None,
    progress: Progress = lambda _: None,
) -> list[Folded]:
    """Fold the partitions of some tables that want it; one that is damaged does not keep the others from it.

    Args:
        lake: the lake.
        specs: the tables.
        policy: what is worth folding, and how the files shall be.
        stamp: who and why; all commits share its id.
        datasources: only these partitions; None for all.
        progress: told after each round.

    Raises:
        StorageError: a file is damaged or missing, told when all else is folded; or the store does not answer.
    """
    done: list[Folded] = []
    damaged: list[StorageError] = []
    for spec in specs:
        newest = lake.snapshot(spec)
        wanted = [name for name in partitions_to_fold(newest, policy) if datasources is None or name in datasources]
        with _gathered(damaged):
            if wanted:
                refuse_damaged_state(lake.store, spec.namespace, newest.version, "compact")
            for datasource_id in wanted:
                with _gathered(damaged):
                    for folded in _fold_partition(lake, spec, datasource_id, policy, stamp):
                        progress(folded)
                        done.append(folded)
    if damaged:
        raise damaged[0]
    return done


@contextmanager
def _gathered(damaged: list[StorageError]) -> Iterator[None]:
    """Gather what is damaged, so that all else is folded; a store that does not answer ends it."""
    try:
        yield
    except StorageError as error:
        if error.retryable:
            raise
        damaged.append(error)


def _fold_partition(
    lake: Lake, spec: TableSpec, datasource_id: str, policy: FoldPolicy, stamp: Stamp
) -> Iterator[Folded]:
    """Fold one partition, round after round, until nothing is left to do."""
    done: list[pl.DataFrame] = []
    facts = pl.DataFrame()

    def fold(base: Snapshot) -> Rewrite | None:
        nonlocal facts
        facts = file_facts(base).filter(pl.col(PARTITION_COLUMN) == datasource_id).drop("key").sort(pl.all())
        if any(facts.equals(before) for before in done):
            return None  # no files satisfy the policy: a round has left what there was before
        with checked_files(base.store, spec.namespace) as checked, translated(base.store.uri, "compact"):
            chosen = choose_files(base, datasource_id, policy, checked)
            return None if chosen is None else rewrite_chosen(base, chosen, checked)

    while (landed := rewrite(lake.table(spec), fold, stamp, lake.patience)) is not None:
        done.append(facts)
        yield landed.rewrite.report


def rewrite_chosen(base: Snapshot, chosen: Chosen, checked: CheckedFiles) -> Rewrite:
    """Fold some files of one partition, as a rewrite for the commit primitive."""
    written = fold_files(base, chosen, checked)
    report = Folded(
        base.spec.namespace,
        str(chosen.files[PARTITION_COLUMN][0]),
        chosen.files.height,
        len(written.files),
        written.rows,
        written.folded,
        int(chosen.files["size"].sum()),
        sum(file.size for file in written.files),
    )
    counts = {"files_before": report.files_before, "files_after": report.files_after, "folded": report.folded}
    return Rewrite(written.files, _files(base, chosen.files), counts, report=report)


def choose_files(base: Snapshot, datasource_id: str, policy: FoldPolicy, checked: CheckedFiles) -> Chosen | None:
    """Return what the next round of a partition rewrites; None if there is nothing to do."""
    facts = file_facts(base).filter(pl.col(PARTITION_COLUMN) == datasource_id)
    tail = chosen_tail(facts, policy)
    held = _held(base, facts.filter(pl.col("key").is_in(list(tail)), ~is_full(policy.file_rows)), checked)
    edges, gone = _targets(base, facts, held) if tail else ([], NO_CLOSINGS)
    keys = with_targets(tail, edges) | _covering(facts, gone)
    return as_chosen(facts, with_crowds(facts, keys, policy), gone, policy, held)


def _held(base: Snapshot, facts: pl.DataFrame, checked: CheckedFiles) -> pl.DataFrame:
    """Return the rows of small files, each with the key of its file."""
    files, root = _files(base, facts), checked.root(facts["key"])
    rows = base.collect(base.rows_of(files, path_column=HELD_IN, root=root))
    keys = {str(root / key): key for key in files["key"]}
    return rows.with_columns(pl.col(HELD_IN).replace_strict(keys, return_dtype=pl.String))


def as_chosen(
    facts: pl.DataFrame, keys: set[str], gone: pl.DataFrame, policy: FoldPolicy, held: pl.DataFrame | None = None
) -> Chosen | None:
    """Return some files of one partition as what is rewritten; None if there are none."""
    is_chosen = pl.col("key").is_in(list(keys))
    rest = facts.filter(~is_chosen)
    kept = rest.filter(pl.col("kind") == CURRENT, is_full(policy.file_rows))
    ranges = list(kept.select("low", "high").iter_rows())
    closing = rest.filter(pl.col("kind") == TAIL)
    return Chosen(facts.filter(is_chosen), closing, ranges, gone, policy.file_rows, held) if keys else None


def _targets(base: Snapshot, facts: pl.DataFrame, held: pl.DataFrame) -> tuple[list[tuple[str, str]], pl.DataFrame]:
    """Return which file closes versions in which file, and the closings that name a version in no file.

    Args:
        base: the table.
        facts: of the partition's files.
        held: the rows of some of them, each with its file.
    """
    keys = {base.file_url(key): key for key in facts["key"]}
    tail = facts.filter(pl.col("kind") == TAIL, ~pl.col("key").is_in(held[HELD_IN].unique().implode()))
    others = base.rows_of(_files(base, tail), path_column=HELD_IN)
    others = others.with_columns(pl.col(HELD_IN).replace_strict(keys, return_dtype=pl.String))
    named = (rows.filter(pl.col("closes").is_not_null()).select(*_NAMED, HELD_IN) for rows in (held.lazy(), others))
    closings = pl.concat([base.collect(rows) for rows in named]).rename({HELD_IN: ":from"}).with_row_index(":n")
    low, high = (closings["identifier"].min() or "", closings["identifier"].max() or "")
    reached = facts.filter((pl.col("low") <= str(high)) & (pl.col("high") >= str(low)))
    begun = pl.col("begins") <= pl.lit(closings["closes"].max(), INSTANT)  # a version that is named had begun by then
    reached = reached.filter(begun.fill_null(True))
    found = pl.concat(_versions_in(base, files, closings) for files in _by_rows(reached))
    edges = found.join(closings.select(":n", ":from"), on=":n").select(":from", ":to").unique()
    gone = closings.join(found, on=":n", how="anti").select(_NAMED).unique()
    _refuse_false_log(base, gone)
    return [(one, keys[other]) for one, other in edges.iter_rows()], gone


def _refuse_false_log(base: Snapshot, gone: pl.DataFrame) -> None:
    """Refuse to take closings for done if the versions that they name are there: then the log tells lies of a file.

    Raises:
        StorageError: they are, outside the partition or the range where the log says that they could be.
    """
    if gone.is_empty():
        return
    all_files = base.files.clone()  # a scan of chosen files carries no statistics
    rows = base.rows_of(all_files).select("identifier", pl.col("valid_from").alias("closes"))
    found = base.collect(rows.join(gone.lazy(), on=_NAMED, how="semi"))
    if found.height:
        raise StorageError(
            f"the log of {base.spec.namespace} is wrong about the file that holds {found['identifier'][0]!r} (its "
            "partition or its statistics), so nothing was folded; 'vxdata verify' names it.",
            uri=base.store.uri, operation="compact", retryable=False,
        )  # fmt: skip


def _by_rows(facts: pl.DataFrame) -> list[pl.DataFrame]:
    """Return files in groups of so many rows that their identifiers fit into memory; one group if there are none."""
    group = pl.col("rows").cum_sum() // _SEARCHED_ROWS
    return [files for _, files in facts.group_by(group, maintain_order=True)] or [facts]


def _versions_in(base: Snapshot, facts: pl.DataFrame, closings: pl.DataFrame) -> pl.DataFrame:
    """Return the closings (`:n`) that name a version in some files, each with the file (`:to`) of that version.

    No identifiers: one text that is kept keeps the memory of its whole column.
    """
    rows, names = base.rows_of(_files(base, facts), path_column=":to"), closings["identifier"].unique()
    if len(names) <= FEW:  # so that row groups are skipped
        rows = rows.filter(pl.col("identifier").is_in(names.to_list()))
    versions = rows.select("identifier", pl.col("valid_from").alias("closes"), ":to")
    return base.collect(versions.join(closings.lazy(), on=_NAMED, how="inner").select(":n", ":to"))


def _covering(facts: pl.DataFrame, gone: pl.DataFrame) -> set[str]:
    """Return the files that may hold what closings name in vain: only who reads them all knows that it is gone."""
    return {
        key
        for name in gone["identifier"].unique()
        for key in facts.filter((pl.col("low") <= name) & (pl.col("high") >= name))["key"]
    }


def _files(base: Snapshot, facts: pl.DataFrame) -> pl.DataFrame:
    return base.files.filter(pl.col("key").is_in(facts["key"].implode()))
