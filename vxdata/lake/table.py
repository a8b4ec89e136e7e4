"""One Delta table of a lake: the only place that holds a `DeltaTable` handle.

The handle is warm: it is refreshed, not reopened, and it is reopened only when its copy of the credentials is renewed
or when the table was made anew. Snapshots taken from it are values and outlive every refresh.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import polars as pl

from vxdata.catalog.evolution import missing_columns
from vxdata.catalog.table import PARTITION_COLUMN, TableSpec
from vxdata.errors import NotFoundError, StorageError
from vxdata.lake import scd2
from vxdata.lake.again import again
from vxdata.lake.faults import LOST_COLUMN, is_lower_layer, is_unanswered, to_storage_error, translated
from vxdata.lake.log import entry_key
from vxdata.lake.log_checksum import CHECKSUM_KEY, METADATA_KEY, checksum
from vxdata.lake.snapshot import NO_TABLE, Snapshot
from vxdata.lake.store import Store
from vxdata.schemas.columns import INSTANT, to_arrow_schema

if TYPE_CHECKING:
    from deltalake import DeltaTable, Transaction

    from vxdata.lake.datafile import DataFile

_CONFIGURATION = {
    "delta.dataSkippingNumIndexedCols": "-1",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "1000000000",
}
LISTING_LIFE_SECONDS = 3600.0
_SCHEMA_TRIES = 10
_NO_CLOSINGS = {name: pl.String() if name == "identifier" else INSTANT for name in scd2.CLOSING_COLUMNS}
_FILE_COLUMNS = {"key": pl.String(), "size": pl.Int64(), "num_records": pl.Int64(), PARTITION_COLUMN: pl.String()}


class Table:
    """A table of a lake, for reading and for the commit primitive.

    Args:
        store: the lake's store.
        spec: the table's spec.
    """

    def __init__(self, store: Store, spec: TableSpec) -> None:
        self.store, self.spec = store, spec
        self.uri = store.url(spec.namespace)
        self._lock = threading.RLock()
        self._handle: DeltaTable | None = None
        self._options: dict[str, str] | None = None
        self._latest: Snapshot | None = None
        self._listed_at = (0.0, 0.0)
        self.checkpoint_version: int | None = None
        self.is_told_to_want_compaction = False
        self._closings: dict[str, pl.DataFrame] = {}
        self._transactions: dict[tuple[str, int, str], int | None] = {}

    # -- reading

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot.

        A warm table asks for the one log entry that would follow: versions have no gaps, so if it is not there nothing
        was committed. That is one GET in place of a LIST. Entries are trimmed after 30 days at the earliest; a table
        that was not listed for an hour is listed, by a clock that stands still while the machine sleeps, or by one
        that may be set.

        Raises:
            StorageError: the log cannot be read.
        """
        with self._lock, translated(self.uri, "look at the log of"):
            if self._latest is not None and self._is_newest(self._latest):
                return self._latest
        return self.listed_snapshot()

    def listed_snapshot(self) -> Snapshot:
        """Return the newest snapshot by the store's listing of the log, which sees past entries that are missing."""
        with self._lock, translated(self.uri, "read the log of"):
            handle = self._refreshed()
            if handle is None:
                self._latest = self._nothing()
                return self._latest
            if self._latest is None or self._latest.version != handle.version():
                self._refuse_unfinished(handle.version())
                self._latest = self._take(handle)
            return self._latest

    def _is_newest(self, known: Snapshot) -> bool:
        ages = (now - then for now, then in zip(_clocks(), self._listed_at, strict=True))
        if max(ages) > LISTING_LIFE_SECONDS or self.store.delta_options() != self._options:
            return False
        return not self.store.exists(entry_key(self.spec.namespace, known.version + 1))

    def at(self, version: int) -> Snapshot:
        """Return the snapshot of an older version: from the log, else from a kept snapshot that holds it.

        Raises:
            NotFoundError: vacuum or log trimming took it.
        """
        from vxdata.lake.kept import find_kept

        if version == NO_TABLE:
            return self._nothing()
        with self._lock:
            if self._latest is not None and self._latest.version == version:
                return self._latest
        found = self.open_from_log(version) or find_kept(self.store, self.spec, version, self._read_closings)
        gone = [] if found is None else self._missing_files(found)
        if found is None or gone:
            why = f" ({len(gone)} of its files are gone)" if gone else ""
            raise NotFoundError(
                f"version {version} of {self.spec.namespace} is not there any more{why}: it is older than the "
                "retention of vacuum and of the log. Keep a snapshot that must last: client.snapshots.keep(name)."
            )
        return found

    def open_from_log(self, version: int) -> Snapshot | None:
        """Return a version as the log alone gives it; None if it cannot any more."""
        from deltalake.exceptions import DeltaError

        try:
            return self._take(again(lambda: self._opened(version)))
        except (DeltaError, OSError) as error:
            fault = to_storage_error(error, uri=self.uri, operation=f"open version {version} of")
            if fault.retryable and not isinstance(error, DeltaError):
                raise fault from error
            return None

    def _missing_files(self, past: Snapshot) -> list[str]:
        """Return which files of a past state are gone; those that the newest state has are never deleted."""
        from vxdata.lake.kept import missing_files

        live = self.snapshot().files["key"]
        superseded = past.files["key"].filter(~past.files["key"].is_in(live.implode()))
        return missing_files(self.store, self.spec.namespace, superseded)

    def _refreshed(self) -> "DeltaTable | None":
        from deltalake.exceptions import TableNotFoundError

        options, known = self.store.delta_options(), self._options
        self._options = options
        try:
            if self._handle is None or options != known:
                self._handle = again(self._opened)
            else:
                again(self._handle.update_incremental)
        except TableNotFoundError:
            self._handle = None
        self._listed_at = _clocks()
        return self._handle

    def _opened(self, version: int | None = None) -> "DeltaTable":
        from deltalake import DeltaTable

        return DeltaTable(self.uri, version=version, storage_options=self.store.delta_options())

    def _refuse_unfinished(self, version: int) -> None:
        if self.store.is_unfinished(entry_key(self.spec.namespace, version)):
            raise StorageError(
                f"the newest log entry, version {version}, is empty, as after a crash of the machine: what it held is "
                f"lost. Remove {entry_key(self.spec.namespace, version)} and run the write again.",
                uri=self.uri, operation="read the log of", retryable=False,
            )  # fmt: skip

    def _nothing(self) -> Snapshot:
        empty = {**_FILE_COLUMNS, **dict.fromkeys(("null_count", "min", "max"), pl.Struct({}))}
        return Snapshot(
            self.spec,
            self.store,
            NO_TABLE,
            "",
            {},
            pl.DataFrame(schema=empty),
            lambda *_: pl.DataFrame(schema=["identifier"]),
        )

    def _take(self, handle: "DeltaTable") -> Snapshot:
        columns = dict(pl.Schema(handle.schema()))
        missing_columns(self.spec.namespace, self.spec.columns, columns)  # refuses a column of another type
        return Snapshot(
            self.spec,
            self.store,
            handle.version(),
            str(handle.metadata().id),
            columns,
            _live_files(handle),
            self._read_closings,
            self._read_transaction,
        )  # fmt: skip

    def _read_transaction(self, snapshot: Snapshot, app_id: str) -> int | None:
        """Return what a version of the log notes of an application; checkpoints and trimming keep it."""
        key = (snapshot.table_id, snapshot.version, app_id)
        with self._lock, translated(self.uri, "look for a batch in the log of"):
            if key not in self._transactions:
                handle = self._handle_at(snapshot.version)
                found = again(lambda: handle.transaction_version(app_id))
                of_now = {k: v for k, v in self._transactions.items() if k[:2] == key[:2]}
                self._transactions = {**of_now, key: None if found is None else int(found)}
            return self._transactions[key]

    def _handle_at(self, version: int) -> "DeltaTable":
        if self._handle is not None and self._handle.version() == version:
            return self._handle
        return again(lambda: self._opened(version))

    def _read_closings(self, snapshot: Snapshot, needed: pl.DataFrame) -> pl.DataFrame:
        """Return the closings in some of a snapshot's files; files never change, so each is read once."""
        with self._lock:
            missing = needed.filter(~pl.col("key").is_in(list(self._closings)))
            if not missing.is_empty():
                if self._latest is not None and snapshot.version == self._latest.version:
                    live = set(snapshot.closing_files["key"])
                    self._closings = {key: found for key, found in self._closings.items() if key in live}
                self._closings |= _closings_per_file(snapshot, missing)
            found = [self._closings[key] for key in needed["key"]]
        return pl.concat(found) if found else pl.DataFrame(schema=_NO_CLOSINGS)

    # -- writing

    def ensure(self) -> Snapshot:
        """Return the newest snapshot of a table that has every column of the spec: make or widen it if needed.

        Raises:
            InvalidInputError: a column exists with another type.
            ConflictError: other writers changed the schema again and again.
        """
        for _ in range(_SCHEMA_TRIES):
            found = self.snapshot()
            if found.version == NO_TABLE:
                self._create()
                continue
            lacking = missing_columns(self.spec.namespace, self.spec.columns, found.columns)
            if not lacking:
                return found
            self._add_columns(lacking)
        raise StorageError("the table's schema kept changing.", uri=self.uri, operation="widen", retryable=True)

    def _create(self) -> None:
        """Make the table; the loser of a race finds it made."""
        from deltalake import DeltaTable, Schema
        from deltalake.exceptions import DeltaError

        with translated(self.uri, "create"):
            try:
                again(
                    lambda: DeltaTable.create(
                        self.uri,
                        Schema.from_arrow(to_arrow_schema(self.spec.columns)),
                        partition_by=[PARTITION_COLUMN],
                        configuration=_CONFIGURATION,
                        storage_options=self.store.delta_options(),
                    )
                )
                self.store.settle(entry_key(self.spec.namespace, 0))
            except (DeltaError, OSError):
                if self.snapshot().version == NO_TABLE:
                    raise

    def _add_columns(self, columns: Mapping[str, pl.DataType]) -> None:
        """Add nullable columns in a commit of its own; the loser of a race finds them, or tries again."""
        from deltalake import CommitProperties, PostCommitHookProperties, Schema
        from deltalake.exceptions import DeltaError

        with self._lock, translated(self.uri, "add columns to"):
            assert self._handle is not None, "only called after a snapshot"
            before = self._handle.version()
            try:
                self._handle.alter.add_columns(
                    Schema.from_arrow(to_arrow_schema(columns)).fields,
                    commit_properties=CommitProperties(max_commit_retries=0),
                    post_commithook_properties=PostCommitHookProperties(
                        create_checkpoint=False, cleanup_expired_logs=False
                    ),
                )
            except (DeltaError, OSError):
                if self.snapshot().version == before:
                    raise

    def put_commit(
        self,
        base: Snapshot,
        added: "Sequence[DataFile]",
        removed: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, Any],
        app_ids: Sequence[str] = (),
    ) -> None:
        """Try once to write the log entry that follows a base version. The caller decides what any exception means.

        Args:
            base: the snapshot that the commit builds on.
            added: data files that were written.
            removed: rows of `base.files` to take out of the log.
            metadata: our own metadata.
            app_ids: the applications whose transactions the entry notes, with its own version.
        """
        from deltalake import CommitProperties, PostCommitHookProperties, Schema, Transaction
        from deltalake.transaction import AddAction, RemoveAction

        with self._lock:
            handle = self._handle_at(base.version)
            data_change = metadata.get("operation") != "compact"
            adds = [
                AddAction(f.key, f.size, {PARTITION_COLUMN: f.datasource_id}, f.modified, data_change, f.statistics)
                for f in added
            ]
            transactions = [Transaction(app_id, base.version + 1) for app_id in app_ids]
            said = _said(added, removed, metadata, transactions)
            removes = [
                RemoveAction(f["key"], data_change, f["deleted_at"], f["size"], {PARTITION_COLUMN: f[PARTITION_COLUMN]})
                for f in removed
            ]
            handle.create_write_transaction(
                [*adds, *removes],
                mode="append",
                schema=Schema.from_arrow(to_arrow_schema(base.columns)),
                partition_by=[PARTITION_COLUMN],
                commit_properties=CommitProperties(
                    max_commit_retries=0,
                    custom_metadata={METADATA_KEY: dict(metadata), CHECKSUM_KEY: checksum(said)},
                    app_transactions=transactions,
                ),
                post_commithook_properties=PostCommitHookProperties(
                    create_checkpoint=False, cleanup_expired_logs=False
                ),
            )
        self.store.settle(entry_key(self.spec.namespace, base.version + 1))

    def write_checkpoint(self, version: int) -> None:
        """Write a checkpoint of a version.

        Raises:
            StorageError: it could not be written, or the log is damaged and would be so for ever; no commit depends on
                it.
        """
        with self._lock, translated(self.uri, "write a checkpoint of"):
            handle = self._handle_at(version)
            self._refuse_lost_columns(handle)
            again(handle.create_checkpoint)

    def _refuse_lost_columns(self, handle: "DeltaTable") -> None:
        """Refuse a state that lacks a column of its newest data file, which has all columns of its time.

        The entries that make and widen a table have no checksum: a bit that flips there may leave another name.
        """
        files = pl.DataFrame(handle.get_add_actions()).select("path", "modification_time")
        if files.is_empty():
            return
        key = f"{self.spec.namespace}/{unquote(files.sort('modification_time')['path'][-1])}"
        options = self.store.scan_options()
        try:
            held = pl.scan_parquet(self.store.url(key), glob=False, hive_partitioning=False, **options).collect_schema()
        except BaseException as error:  # a panic of a Rust library is no Exception
            if not is_lower_layer(error) or is_unanswered(error):
                raise
            return  # a damaged file tells nothing here; who reads it says so
        if lost := sorted(held.keys() - {field.name for field in handle.schema().fields}):
            raise StorageError(
                f"{LOST_COLUMN} ({lost[0]!r} of {key}).",
                uri=self.uri, operation="write a checkpoint of", retryable=False,
            )  # fmt: skip


def _said(
    added: "Sequence[DataFile]",
    removed: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, Any],
    transactions: "Sequence[Transaction]",
) -> Iterator[dict[str, Any]]:
    """Return what the actions of an entry will say, as its checksum takes them."""
    yield {"commitInfo": {METADATA_KEY: dict(metadata)}}
    for file in added:
        yield {
            "add": {
                "path": quote(file.key),
                "partitionValues": {PARTITION_COLUMN: file.datasource_id},
                "size": file.size,
                "modificationTime": file.modified,
                "stats": file.statistics,
            }
        }
    yield from ({"remove": {"path": quote(file["key"])}} for file in removed)
    yield from ({"txn": {"appId": noted.app_id, "version": noted.version}} for noted in transactions)


def _clocks() -> tuple[float, float]:
    """Return two clocks in seconds: the first cannot be set but may stand still while a machine sleeps."""
    return time.monotonic(), time.time()


def _live_files(handle: "DeltaTable") -> pl.DataFrame:
    actions = pl.DataFrame(handle.get_add_actions())
    statistics = {"num_records": pl.Int64(), **dict.fromkeys(("null_count", "min", "max"), pl.Struct({}))}
    return actions.select(
        pl.Series("key", [unquote(path) for path in actions["path"]], dtype=pl.String),
        pl.col("size_bytes").alias("size"),
        pl.col("partition").struct.field(PARTITION_COLUMN),
        # a file of another writer may come without statistics: nothing is known of it
        *(name if name in actions.columns else pl.lit(None, dtype).alias(name) for name, dtype in statistics.items()),
    )


def _closings_per_file(snapshot: Snapshot, files: pl.DataFrame) -> dict[str, pl.DataFrame]:
    rows = snapshot.rows_of(files, path_column="_url")
    wanted = rows.filter(pl.col("closes").is_not_null()).select(*scd2.CLOSING_COLUMNS, "_url")
    found = snapshot.collect(wanted).partition_by("_url", as_dict=True, include_key=False)
    nothing = pl.DataFrame(schema={name: snapshot.columns[name] for name in scd2.CLOSING_COLUMNS})
    return {key: found.get((snapshot.file_url(key),), nothing) for key in files["key"]}
