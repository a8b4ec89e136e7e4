"""What is left of an erased resource: a look through every file below the lake, decoded.

Data files: identifiers, lineage, lists, and free texts that name an erased resource. The log: entries and checkpoints
with their statistics. The lake's own folder: the archive of commits, kept snapshots.
"""

import io
import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

import polars as pl

from vxdata.errors import StorageError
from vxdata.lake.faults import translated
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.kept import manifests
from vxdata.lake.lake import Lake
from vxdata.lake.log import LOG_FOLDER, json_lines, read_statistics
from vxdata.lake.mentions import Mentions
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.soundness import damaged_files
from vxdata.lake.store import Store
from vxdata.lake.temporary import is_temporary
from vxdata.lake.traces import Traces
from vxdata.schemas.registry import STANDARD_COLUMNS

_DAMAGED = "is damaged, so nobody knows what it holds"
UNREADABLE = "cannot be read, so nobody knows what it holds; look into it, and delete it if nothing needs it"


def find_remains(lake: Lake, known: Traces, now: Traces) -> tuple[str, ...]:
    """Look through every file below the lake for what tells of erased resources.

    Args:
        lake: the lake.
        known: what was found of them before they were erased.
        now: what is found of them now.

    Returns:
        One sentence for each place, with what to do; never what is stored there.
    """
    mentions, unreadable = Mentions.of(known), {key for table in now.tables for key in table.unreadable}
    places = [*_in_files(now), *(f"{key} {UNREADABLE}" for key in sorted(unreadable))]
    places += _damaged(lake.store, unreadable)
    for table in known.tables:
        places += _in_texts(lake.snapshot(table.spec), mentions)
        places += _in_log(lake.snapshot(table.spec), mentions, known.identifier)
    return (*places, *_in_own_folder(lake.store, mentions))


def _in_files(now: Traces) -> Iterator[str]:
    for table in now.tables:
        if table.doomed:
            yield f"{table.spec.namespace}: {len(table.doomed)} data files hold rows of it; run it again"


def still_left(store: Store, left: Iterable[str]) -> tuple[str, ...]:
    """Return what is left of what an earlier look found, damaged files looked at anew: they may have been restored."""
    return (*(words for words in left if _DAMAGED not in words), *_damaged(store, ()))


def _damaged(store: Store, named: Collection[str]) -> Iterator[str]:
    """Name the files that are damaged, but for those that are named already."""
    for key in damaged_files(store):
        if key not in named:
            yield f"{key} {_DAMAGED}; restore it, or delete it if no state needs it"


def _in_texts(snapshot: Snapshot, mentions: Mentions) -> Iterator[str]:
    """Free texts that name an erased resource: nobody but a person can say what to do with them."""
    texts = [n for n, dtype in snapshot.all_columns.items() if dtype == pl.String and n not in STANDARD_COLUMNS]
    names = sorted(mentions.identifiers)
    for name in texts:
        may_name = pl.col(name).str.contains_any(names)
        found = snapshot.collect(snapshot.rows.select(name).filter(may_name)).to_series()
        count = sum(map(mentions.are_in, found))
        if count:
            yield f"{snapshot.spec.namespace}.{name}: {count} rows of other resources name it; edit and erase them"


def _in_log(newest: Snapshot, mentions: Mentions, identifier: str) -> Iterator[str]:
    """The texts of log entries and checkpoints; paths of a datasource's files name it until the log is trimmed.

    Statistics of live files say no more than their rows, which are looked at by themselves.
    """
    store, namespace, live = newest.store, newest.spec.namespace, set(newest.files["key"])
    skipped = {"path", "partitionValues"} if identifier.startswith("datasource/") else set()
    for key in store.list_keys(f"{namespace}/{LOG_FOLDER}"):
        data = store.get(key)
        if data is None or is_temporary(key.removeprefix(f"{namespace}/")):
            continue  # of a writer at work: older ones were deleted
        actions = _actions(key, data)
        if actions is None:
            yield f"{key} {UNREADABLE}"
        elif any(_tells(namespace, action, mentions, skipped) for action in actions if _added(action) not in live):
            yield f"{key} still tells of it; run it again"


def _actions(key: str, data: bytes) -> list[Any] | None:
    """Return what a file of a log says; None if that cannot be read, as of a file that is none of Delta's."""
    try:
        with translated(key, "read"):
            actions = _checkpoint_actions(data) if key.endswith(".parquet") else json_lines(data)
    except (StorageError, ValueError):
        return None
    return [action if _is_action(action) else {"content": action} for action in actions]


def _is_action(content: Any) -> bool:
    """Whether content has the form of a Delta action; a file of others may hold any JSON."""
    if not isinstance(content, dict):
        return False
    add = content.get("add", {"path": ""})
    return isinstance(add, dict) and isinstance(add.get("path"), str) and isinstance(add.get("stats"), str | None)


def _added(action: dict[str, Any]) -> str | None:
    return unquote(action["add"]["path"]) if "add" in action else None


def _checkpoint_actions(data: bytes) -> list[Any]:
    frame = pl.read_parquet(io.BytesIO(data))
    return [{kind: action for kind, action in row.items() if action is not None} for row in frame.iter_rows(named=True)]


def _tells(namespace: str, action: dict[str, Any], mentions: Mentions, skipped: set[str]) -> bool:
    """Whether an action names an erased resource, or holds statistics of its rows."""
    stats = read_statistics(action.get("add") or {})
    if any(map(mentions.are_in, _texts(stats, skipped))) or any(map(mentions.are_in, _texts(action, skipped))):
        return True
    bounds = (pair for end in ("minValues", "maxValues") for pair in (stats.get(end) or {}).items())
    return any(mentions.are_bound(namespace, column, bound) for column, bound in bounds)


def _in_own_folder(store: Store, mentions: Mentions) -> Iterator[str]:
    for key in store.list_keys(OWN_FOLDER):
        data = store.get(key) if key.endswith((".json", ".ndjson")) else None
        if data is not None and any(map(mentions.are_in, _texts(_json_actions_of(key, data), set()))):
            yield f"{key} still tells of it; run it again"
    for manifest in manifests(store):
        frames = (manifest.files(namespace) for namespace in manifest.record().tables)
        if any(mentions.are_in(text) for frame in frames for text in _texts(frame.to_dicts(), set())):
            yield f"{manifest.key} still tells of it; run it again"


def _json_actions_of(key: str, data: bytes) -> Any:
    return json_lines(data) if key.endswith(".ndjson") else json.loads(data)


def _texts(content: Any, skipped: set[str]) -> Iterator[str]:
    """Return all texts in JSON content; statistics, which are JSON in a text, are looked at by themselves."""
    match content:
        case str():
            yield content
        case dict():
            for name, value in content.items():
                if name not in skipped and name != "stats":
                    yield from _texts(value, skipped)
        case list() | tuple():
            for value in content:
                yield from _texts(value, skipped)
