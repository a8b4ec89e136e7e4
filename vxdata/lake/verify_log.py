"""Verifying a table's log: each entry parses, none is missing, and replaying it gives the state that readers see.

The log is read here by our own eyes, not by deltalake, so that the two hold each other to account: an action whose name
was damaged, or a row of a checkpoint that is lost, is skipped by readers without a word.

Source: Delta protocol, "Action Reconciliation" and "Checkpoints".
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import polars as pl

from vxdata.errors import StorageError
from vxdata.lake.checkpoints import LogFiles, read_hint
from vxdata.lake.faults import refuse_unanswered, translated
from vxdata.lake.findings import Finding, found
from vxdata.lake.log import LOG_FOLDER, entry_key, json_lines
from vxdata.lake.log_checksum import is_as_written
from vxdata.lake.seals import checkpoint_key, is_as_sealed, seal_key
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.store import Store

_ACTIONS = frozenset({"add", "remove", "metaData", "protocol", "commitInfo", "txn", "cdc", "domainMetadata"})

_READERS = 8

State = dict[str, int]
"""The live files of a table: their keys and sizes."""


def check_log(store: Store, namespace: str, log: LogFiles, newest: Snapshot | None) -> Iterator[Finding]:
    """Check the log of one table from its newest checkpoint on.

    Args:
        store: the lake's store.
        namespace: the table.
        log: what lies in the log, listed before the snapshot was taken.
        newest: the newest state, as deltalake reads it; None if it cannot.
    """
    reader, checkpoint = LogReader(store, namespace, log), log.newest_checkpoint
    yield from _check_hint(store, namespace, checkpoint)
    yield from _check_entries(reader, range(max(checkpoint, 0), log.newest + 1))
    try:
        state = reader.replay(checkpoint, log.newest)
    except LogDamageError as damage:
        if damage.is_checkpoint:
            yield found("checkpoint-damaged", namespace, damage.key, damage.detail)
        return  # a damaged entry was reported above
    if state is not None and newest is not None and newest.version == log.newest:
        read = dict(newest.files.select("key", "size").iter_rows())
        yield from _compare(namespace, "read by us and by deltalake", state, read)
    yield from _check_checkpoint(reader)


def check_entries(store: Store, namespace: str, log: LogFiles) -> Iterator[Finding]:
    """Check every log entry that is there, those that the newest checkpoint stands for included."""
    keys = [entry_key(namespace, version) for version in sorted(log.entries)]
    with ThreadPoolExecutor(_READERS) as pool:
        for key, data in zip(keys, pool.map(store.get, keys), strict=True):
            try:
                _parse_entry(key, data or b"")
            except LogDamageError as damage:
                yield found("log-entry-damaged", namespace, damage.key, damage.detail)


def _check_hint(store: Store, namespace: str, checkpoint: int) -> Iterator[Finding]:
    hint = read_hint(store, namespace)
    if hint != checkpoint:
        key = f"{namespace}/{LOG_FOLDER}/_last_checkpoint"
        yield found("log-hint-wrong", namespace, key, f"it names version {hint}, the newest whole one is {checkpoint}")


def _check_entries(reader: "LogReader", versions: range) -> Iterator[Finding]:
    for version in versions:
        if version not in reader.log.entries:
            key = entry_key(reader.namespace, version)
            yield found("log-entry-missing", reader.namespace, key, "versions have no gaps")
            continue
        try:
            reader.actions(version)
        except LogDamageError as damage:
            yield found("log-entry-damaged", reader.namespace, damage.key, damage.detail)


def _check_checkpoint(reader: "LogReader") -> Iterator[Finding]:
    """Hold the newest checkpoint against the one before and the entries in between, if they are there still."""
    newest = reader.log.newest_checkpoint
    before = max((version for version in reader.log.checkpoints if version < newest), default=-1)
    if newest < 0 or any(version not in reader.log.entries for version in range(before + 1, newest + 1)):
        return
    try:
        stored, expected = reader.replay(newest, newest), reader.replay(before, newest)
    except LogDamageError:
        return  # what lies below the newest checkpoint is not needed to read
    if stored is not None and expected is not None:
        yield from _compare(reader.namespace, f"in checkpoint {newest} and by the entries before it", stored, expected)


def _compare(namespace: str, words: str, one: State, other: State) -> Iterator[Finding]:
    differing = sorted({key for key, _ in one.items() ^ other.items()})
    if differing:
        detail = f"the live files {words} differ: {len(one)} and {len(other)}, among them {differing[0]}"
        yield found("log-state-differs", namespace, f"{namespace}/{LOG_FOLDER}", detail)


class LogDamageError(Exception):
    """A file of a log that cannot be what was written.

    Attributes:
        key: its key in the lake.
        detail: what is wrong with it.
    """

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(f"{key}: {detail}")
        self.key, self.detail = key, detail

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint, and not an entry."""
        return ".checkpoint." in self.key


class LogReader:
    """Reads the log of one table, each entry once.

    Args:
        store: the lake's store.
        namespace: the table.
        log: what lies in the log.
    """

    def __init__(self, store: Store, namespace: str, log: LogFiles) -> None:
        self.namespace, self.log = namespace, log
        self._store = store
        self._actions: dict[int, list[dict[str, Any]]] = {}

    def actions(self, version: int) -> list[dict[str, Any]]:
        """Return the actions of one entry.

        Raises:
            LogDamageError: it is empty, is no JSON, or holds an action that Delta does not know.
        """
        if version not in self._actions:
            key = entry_key(self.namespace, version)
            self._actions[version] = _parse_entry(key, self._store.get(key) or b"")
        return self._actions[version]

    def replay(self, checkpoint: int, upto: int) -> State | None:
        """Return the live files of a version, replayed from a checkpoint (-1: from the beginning).

        Returns:
            None if the checkpoint is of a kind whose files live elsewhere (sidecars).

        Raises:
            LogDamageError: an entry or the checkpoint is damaged.
        """
        state: State | None = {} if checkpoint < 0 else self._checkpoint(checkpoint)
        for version in range(checkpoint + 1, upto + 1):
            if state is not None and version in self.log.entries:
                for action in self.actions(version):
                    _apply(state, action)
        return state

    def _checkpoint(self, version: int) -> State | None:
        state: State = {}
        for part in self.log.checkpoints[version][0]:
            if part.key.endswith(".json"):
                return None
            data = self._store.get(part.key) or b""
            with _damage_named(part.key):
                is_sealed = part.key == checkpoint_key(self.namespace, version)
                if is_sealed and not is_as_sealed(self._store, self.namespace, version, data):
                    raise ValueError(f"it does not say what its checksum says, {seal_key(self.namespace, version)}")
                frame = pl.read_parquet(io.BytesIO(data))
                if "sidecar" in frame.columns and frame["sidecar"].count():
                    return None
                adds = frame.select(pl.col("add").struct.field("path", "size")).drop_nulls("path")
                state |= {unquote(path): size for path, size in adds.iter_rows()}
        return state


def _parse_entry(key: str, data: bytes) -> list[dict[str, Any]]:
    with _damage_named(key):
        actions: list[dict[str, Any]] = json_lines(data)
        if not is_as_written(actions):
            raise ValueError("its checksum is wrong")
        unknown = {name for action in actions for name in action} - _ACTIONS
        if unknown or not actions:
            raise ValueError(f"unknown actions: {sorted(unknown)}" if unknown else "it is empty")
        for action in actions:
            _apply({}, action)
        return actions


def _apply(state: State, action: dict[str, Any]) -> None:
    if "remove" in action:
        state.pop(unquote(action["remove"]["path"]), None)
    elif "add" in action:
        state[unquote(action["add"]["path"])] = int(action["add"]["size"])


@contextmanager
def _damage_named(key: str) -> Iterator[None]:
    """Turn what damaged bytes can raise into a `LogDamageError` that names the file."""
    try:
        with translated(key, "read"):
            yield
    except (StorageError, ValueError, LookupError, TypeError, AttributeError) as error:
        refuse_unanswered(error)
        raise LogDamageError(key, f"{type(error).__name__}: {error}") from error
