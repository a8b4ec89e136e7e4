"""The entries of a table's Delta log, read by themselves: who committed what.

Readers of the log accept commits of others, which have no commit id: creation, `add_columns`, vacuum.

Source: Delta protocol, "Delta Log Entries"; design of record, section 5 (one commit primitive, the log).
"""

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from vxdata.errors import StorageError
from vxdata.lake.log_checksum import CHECKSUM_KEY, METADATA_KEY, is_as_written
from vxdata.lake.store import Store

LOG_FOLDER = "_delta_log"
_ENTRY = re.compile(rf"{LOG_FOLDER}/(\d{{20}})\.json$")

_READERS = 8

ENTRY_REMEDY = (
    "restore it from a backup (or an older object version); where there is none, look through what it says, and take "
    f"{CHECKSUM_KEY} out of it to accept that; if a later checkpoint is whole, it is not needed to read"
)
"""What a person can do about a damaged log entry."""

REWRITES = frozenset({"compact"})
"""Operations that move rows between files and change no state."""


@dataclass(frozen=True)
class LogEntry:
    """One commit of one table.

    Attributes:
        version: the Delta version.
        metadata: our own metadata (commit_id, operation, author, reason, counts, ...); empty for commits of others.
        timestamp: milliseconds since 1970, by the writer's clock; None if the entry does not say.
        operation: what Delta calls it.
        added: keys of the files that it adds.
        removed: keys of the files that it removes.
        moves_rows_only: whether it changes no row's state, as a compaction does.
        changes_table: whether it changes the table's metadata or protocol, as `add_columns` does.
        app_ids: the applications whose transactions it notes: the parts of batches that it completes.
        is_as_written: whether it says what its checksum says, if it has one.
    """

    version: int
    metadata: dict[str, Any]
    timestamp: int | None
    operation: str | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moves_rows_only: bool
    changes_table: bool
    app_ids: tuple[str, ...] = ()
    is_as_written: bool = True

    @property
    def commit_id(self) -> str | None:
        """The id of the VxData operation; None for commits of others."""
        return self.metadata.get("commit_id")


def entry_key(namespace: str, version: int) -> str:
    """Return the key of a log entry in the lake."""
    return f"{namespace}/{LOG_FOLDER}/{version:020d}.json"


def entry_version(key: str) -> int | None:
    """Return the version of the log entry at a key; None if something else is there."""
    found = _ENTRY.search(key)
    return int(found.group(1)) if found else None


def json_lines(data: bytes) -> list[Any]:
    """Return the JSON values of a text with one on each line; other line breaks than LF may stand in their texts.

    Raises:
        ValueError: a line is damaged.
    """
    return [json.loads(line.decode()) for line in data.split(b"\n") if line.strip()]


def read_statistics(add: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics of an add action; damaged ones as one text, so that what they tell is still seen."""
    text = add.get("stats") or "{}"
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"damaged": text}


def read_entry(store: Store, namespace: str, version: int) -> LogEntry | None:
    """Return one log entry; None if it is not there (not yet, or not any more).

    Raises:
        StorageError: the entry is empty or not readable, as after a crash of the machine.
    """
    data = store.get(entry_key(namespace, version))
    return None if data is None else parse_entry(data, version, f"{store.uri}/{entry_key(namespace, version)}")


def read_sound_entry(store: Store, namespace: str, version: int) -> LogEntry | None:
    """Return one log entry for who carries on what it says; None if it is not there.

    Raises:
        StorageError: the entry cannot be read, or does not say what its checksum says.
    """
    entry = read_entry(store, namespace, version)
    if entry is not None:
        refuse_damaged(entry, f"{store.uri}/{entry_key(namespace, version)}")
    return entry


def refuse_damaged(entry: LogEntry, uri: str) -> None:
    """Refuse an entry that does not say what its checksum says.

    Raises:
        StorageError: it does not; says what to do.
    """
    if not entry.is_as_written:
        raise StorageError(
            f"the log entry is damaged: it does not say what its checksum says. What to do: {ENTRY_REMEDY}.",
            uri=uri, operation="read", retryable=False,
        )  # fmt: skip


def read_sound_entries(store: Store, namespace: str, versions: Iterable[int]) -> dict[int, LogEntry]:
    """Return some log entries, by version; those that are not there are left out. See `read_sound_entry`."""
    wanted = list(versions)
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda version: read_sound_entry(store, namespace, version), wanted)
        return {version: entry for version, entry in zip(wanted, found, strict=True) if entry is not None}


def parse_entry(data: bytes, version: int, uri: str) -> LogEntry:
    """Parse the text of a log entry.

    Raises:
        StorageError: it is empty, or is none.
    """
    if not data.strip():
        raise StorageError(
            "the log entry is empty, as after a crash of the machine; remove the file by hand if it is the newest one.",
            uri=uri, operation="read", retryable=False,
        )  # fmt: skip
    try:
        return _to_entry(json_lines(data), version)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise StorageError(f"the log entry is damaged: {detail}", uri=uri, operation="read", retryable=False) from error


def _to_entry(actions: list[dict[str, Any]], version: int) -> LogEntry:
    info: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    metadata = info.get(METADATA_KEY) or {}
    return LogEntry(
        version=version,
        metadata=metadata,
        timestamp=info.get("timestamp"),
        operation=info.get("operation"),
        added=tuple(unquote(a["add"]["path"]) for a in actions if "add" in a),
        removed=tuple(unquote(a["remove"]["path"]) for a in actions if "remove" in a),
        moves_rows_only=metadata.get("operation") in REWRITES,
        changes_table=any("metaData" in a or "protocol" in a for a in actions),
        app_ids=tuple(a["txn"]["appId"] for a in actions if "txn" in a),
        is_as_written=is_as_written(actions),
    )
