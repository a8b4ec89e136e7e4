"""Making the log, the archive and kept snapshots forget erased rows.

Log entries are not deleted: a warm client looks for the entry after the one it knows, and a writer PUTs its entry where
none is; both would be wrong if one vanished that is young. An entry is put again without the statistics of files that
are gone, and without words that name what was erased. Old checkpoints are deleted once a newer one stands for them.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from vxdata.catalog.table import TableSpec
from vxdata.errors import NotFoundError, StorageError
from vxdata.lake.archive import archived_ranges
from vxdata.lake.checkpoint import settle_log
from vxdata.lake.checkpoints import list_log
from vxdata.lake.kept import drop, manifests
from vxdata.lake.lake import Lake
from vxdata.lake.log import json_lines, read_statistics
from vxdata.lake.log_checksum import with_checksum
from vxdata.lake.mentions import Mentions
from vxdata.lake.seals import drop_seals
from vxdata.lake.store import Store
from vxdata.lake.table import Table
from vxdata.lake.traces import TableTraces, Traces

_READERS = 8


def forget(lake: Lake, traces: Traces, *, is_first_run: bool) -> None:
    """Make everything but data files forget what was erased.

    Args:
        lake: the lake.
        traces: what was found of it, before and after its rows were taken out.
        is_first_run: whether no run before this one took rows out. Else the traces may not say all that there was
            (files that are gone told of it), so that no table's older checkpoints are trusted to know nothing.

    Raises:
        StorageError: the store failed; running it again goes on.
    """
    mentions = Mentions.of(traces)
    for table in traces.tables:
        if not is_first_run or table.doomed or table.identifiers:
            _forget_checkpoints(lake.table(table.spec))
        _forget_entries(lake, table, mentions)
        _forget_archive(lake.store, table.spec, mentions)
    for name in kept_of(lake.store, traces):
        with suppress(NotFoundError):  # whoever kept it just now saw that its files are about to go
            drop(lake.store, name)


def kept_of(store: Store, traces: Traces) -> tuple[str, ...]:
    """Return the names of the kept snapshots that need files which hold erased rows."""
    doomed = {f"{table.spec.namespace}/{key}" for table in traces.tables for key in table.doomed}
    return tuple(m.record().name for m in manifests(store) if doomed.intersection(m.all_files()))


def named_by_log(store: Store, namespace: str) -> set[str]:
    """Return the keys of all files that entries of a table's log add or remove."""
    return {key for _, actions in _entries(store, _entry_keys(store, namespace)) for key in _paths(actions)}


def _paths(actions: Iterable[dict[str, Any]]) -> Iterator[str]:
    for action in actions:
        for kind in ("add", "remove"):
            if kind in action:
                yield unquote(action[kind]["path"])


def _entry_keys(store: Store, namespace: str) -> list[str]:
    return [found.key for _, found in sorted(list_log(store, namespace).entries.items())]


def _entries(store: Store, keys: list[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Return each log entry that is there: its key and its actions."""
    with ThreadPoolExecutor(_READERS) as pool:
        for key, data in zip(keys, pool.map(store.get, keys), strict=True):
            if data:
                yield key, json_lines(data)


def _forget_checkpoints(table: Table) -> None:
    """Write a checkpoint of the newest version, make sure that it opens, and delete the older ones."""
    version = table.listed_snapshot().version
    settle_log(table)
    log = list_log(table.store, table.spec.namespace)
    newest = log.newest_checkpoint
    if newest < version or Table(table.store, table.spec).open_from_log(newest) is None:
        raise StorageError(
            "the new checkpoint cannot be read, so the older ones were not deleted; run it again.",
            uri=table.uri, operation="erase from", retryable=True,
        )  # fmt: skip
    for older in (v for v in log.checkpoints if v < newest):
        for files in log.checkpoints[older]:
            for found in files:
                table.store.delete(found.key)
    drop_seals(table.store, table.spec.namespace, newest)


def _forget_entries(lake: Lake, table: TableTraces, mentions: Mentions) -> None:
    store, namespace = lake.store, table.spec.namespace
    entries = _entry_keys(store, namespace)  # before the files: what a later entry adds is not looked for there
    present = {key.removeprefix(f"{namespace}/") for key in store.list_keys(namespace)}
    live = set(lake.snapshot(table.spec).files["key"])
    for key, actions in _entries(store, entries):
        redacted = [_redacted(action, table.doomed, live, present, mentions) for action in actions]
        if redacted != actions:
            redacted = with_checksum(redacted)
            lines = (json.dumps(action, ensure_ascii=False, separators=(",", ":")) for action in redacted)
            store.put(key, ("\n".join(lines) + "\n").encode())


def _redacted(
    action: dict[str, Any], doomed: set[str], live: set[str], present: set[str], mentions: Mentions
) -> dict[str, Any]:
    """Return an action without the statistics of a file that is gone or will be, and without telling words."""
    if "commitInfo" in action:
        return {"commitInfo": mentions.without(action["commitInfo"])}
    add = action.get("add")
    if add is None or not add.get("stats"):
        return action
    key = unquote(add["path"])
    if key in live or (key in present and key not in doomed):
        return action
    return {"add": {**add, "stats": json.dumps({"numRecords": read_statistics(add).get("numRecords")})}}


def _forget_archive(store: Store, spec: TableSpec, mentions: Mentions) -> None:
    for _, _, key in archived_ranges(store, spec.namespace):
        records = _records(store, key)
        redacted = [mentions.without(record) for record in records]
        if redacted != records:
            store.put(key, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in redacted).encode())


def _records(store: Store, key: str) -> list[Any]:
    try:
        return json_lines(store.get(key) or b"")
    except ValueError as error:
        raise StorageError(
            f"{key} is damaged ({error}) and cannot be made to forget; restore it from a backup, or remove it: it is "
            "written anew while the log has its entries.",
            uri=store.uri, operation="erase from", retryable=False,
        ) from error  # fmt: skip
