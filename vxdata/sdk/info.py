"""The state of a lake's tables: how much there is, how it lies in files, and what wants upkeep.

From the logs alone: counts come from the files' statistics. A table with updates or deletes that no compaction has
folded yet is counted by one pass over the few columns that tell what is current.
"""

from dataclasses import dataclass, replace

import polars as pl

from vxdata.catalog.table import PARTITION_COLUMN, TableSpec, all_specs
from vxdata.errors import InvalidInputError
from vxdata.lake.checkpoint import CHECKPOINT_COMMITS, CHECKPOINT_SHARE, last_checkpoint
from vxdata.lake.foldable import BY_SCHEDULE, partitions_to_fold
from vxdata.lake.lake import FixedView, SteadyView
from vxdata.lake.snapshot import NO_TABLE, Snapshot
from vxdata.lake.unregistered import unregistered_tables
from vxdata.sdk.session import Session

_LATE_CHECKPOINT = 2  # times what is due


@dataclass(frozen=True)
class TableInfo:
    """The state of one table.

    Attributes:
        namespace: the table.
        version: its Delta version.
        resources: how many are current.
        versions: how many versions there are, the current ones included.
        rows: physical rows, tombstones included.
        files: live data files.
        bytes: their size.
        tail_files: those of them that hold closings: updates and deletes that no compaction has folded.
        datasources: in how many datasources the rows are.
        partitions_to_fold: datasources whose tail is worth a compaction, by the policy of scheduled jobs.
        commits_since_checkpoint: log entries that opening the table reads one by one.
        wants: the upkeep that it wants: "compaction", "checkpoint".
    """

    namespace: str
    version: int
    resources: int
    versions: int
    rows: int
    files: int
    bytes: int
    tail_files: int
    datasources: int
    partitions_to_fold: int
    commits_since_checkpoint: int
    wants: tuple[str, ...] = ()


@dataclass(frozen=True)
class LakeInfo:
    """The state of a lake.

    Attributes:
        uri: its address.
        lake_id: its id.
        tables: the tables that exist, root first.
        datasources: the identifiers of the datasources that hold rows, sorted.
        unregistered: the tables whose payload type is not registered here (of a snapshot: where it was taken), so that
            nothing else is known of them.
    """

    uri: str
    lake_id: str
    tables: tuple[TableInfo, ...]
    datasources: tuple[str, ...]
    unregistered: tuple[str, ...] = ()


def read_info(session: Session) -> LakeInfo:
    """Return the state of a lake; see `Client.info`."""
    if session.instant is not None:
        raise InvalidInputError("info: it tells of files, not of an instant; use the client that this one came from.")
    view, lake = SteadyView(session.view), session.lake
    unregistered = _unregistered(session)
    specs = [spec for spec in all_specs() if spec.namespace not in unregistered]
    found = [snapshot for spec in specs if (snapshot := view.snapshot(spec)).version != NO_TABLE]
    named = {name for snapshot in found for name in snapshot.files[PARTITION_COLUMN].unique()}
    tables = (table_info(snapshot, _tail_of_log(session, snapshot.spec, snapshot.version)) for snapshot in found)
    return LakeInfo(lake.store.uri, lake.lake_id, tuple(tables), tuple(sorted(named)), unregistered)


def _unregistered(session: Session) -> tuple[str, ...]:
    """Return the tables that nobody knows here; of a snapshot, those that nobody knew where it was taken."""
    if isinstance(session.view, FixedView):
        return session.view.state.unregistered
    return unregistered_tables(session.lake.store)


def table_info(snapshot: Snapshot, commits_since_checkpoint: int) -> TableInfo:
    """Return the state of one table."""
    rows = _total(snapshot.files["num_records"])
    resources, versions = _counts(snapshot, rows)
    table = TableInfo(
        namespace=snapshot.spec.namespace,
        version=snapshot.version,
        resources=resources,
        versions=versions,
        rows=rows,
        files=snapshot.files.height,
        bytes=_total(snapshot.files["size"]),
        tail_files=snapshot.closing_files.height,
        datasources=snapshot.files[PARTITION_COLUMN].n_unique(),
        partitions_to_fold=len(partitions_to_fold(snapshot, BY_SCHEDULE)),
        commits_since_checkpoint=commits_since_checkpoint,
    )
    return replace(table, wants=upkeep_wanted(table))


def upkeep_wanted(table: TableInfo) -> tuple[str, ...]:
    """Return what a table wants; pure."""
    wants = ["compaction"] if table.partitions_to_fold else []
    due = max(CHECKPOINT_COMMITS, CHECKPOINT_SHARE * table.files)
    if table.commits_since_checkpoint >= _LATE_CHECKPOINT * due:
        wants.append("checkpoint")
    return tuple(wants)


def _counts(snapshot: Snapshot, rows: int) -> tuple[int, int]:
    """Return how many versions are current, and how many there are."""
    tail, nulls = snapshot.closing_files, snapshot.files["null_count"].struct
    if tail.is_empty() and (snapshot.files.is_empty() or "valid_to" in nulls.fields):
        return (_total(nulls.field("valid_to")) if rows else 0), rows
    is_tombstone = pl.col("closes").is_not_null() & pl.col("is_deleted")
    counts = pl.collect_all(
        [snapshot.current().select(pl.len()), snapshot.rows_of(tail).filter(is_tombstone).select(pl.len())]
    )
    current, tombstones = (int(count.item()) for count in counts)
    return current, rows - tombstones


def _total(numbers: pl.Series) -> int:
    return int(numbers.sum() or 0)


def _tail_of_log(session: Session, spec: TableSpec, version: int) -> int:
    return version - max(last_checkpoint(session.lake.table(spec), version), -1)
