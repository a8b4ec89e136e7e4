"""What is left of an erased resource: a look through every file in the tables' folders and the lake's own, decoded.

Data files: identifiers, lineage, lists, and texts that name an erased resource, at any depth. The log: entries and
checkpoints with their statistics. The lake's own folder: the archive of commits, kept snapshots. Files of others.

The names of its descendants are known only to the run that erased them: no record may hold them. So what names only
these is told in words of its own, which later runs, that look for the resource itself, hand on.
"""

import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import polars as pl

from vxdata.errors import StorageError
from vxdata.lake.faults import translated
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.kept import FOLDER as KEPT
from vxdata.lake.kept import manifests
from vxdata.lake.lake import Lake
from vxdata.lake.log import LOG_FOLDER, json_lines, read_statistics
from vxdata.lake.mentions import Mentions
from vxdata.lake.snapshot import Snapshot
from vxdata.lake.soundness import damaged_files
from vxdata.lake.store import Store
from vxdata.lake.temporary import is_temporary
from vxdata.lake.texts import json_texts, rows_naming, texts_naming
from vxdata.lake.traces import Traces, is_data_file
from vxdata.schemas.registry import STANDARD_COLUMNS

UNREADABLE = "it cannot be read, so nobody knows what it holds; look into it, and delete it if nothing needs it"
_DAMAGED = "it is damaged, so nobody knows what it holds; restore it, or delete it if no state needs it"
_IT, _BELOW = "it", "descendants of it (whose names no later run knows)"
_FORGETS = re.compile(rf"[^/]+/{LOG_FOLDER}/\d+\.(json|checkpoint\..*)|{OWN_FOLDER}/commits/.*\.ndjson")
"""The files that are made to forget by running an erasure again."""


@dataclass(frozen=True)
class _Names:
    """What must not be told any more: `every` of it, and by the words for whom it names."""

    every: Mentions
    identifier: str

    @cached_property
    def by_whom(self) -> dict[str, Mentions]:
        below = replace(self.every.only(self.every.identifiers - {self.identifier}), values={})
        of_it = self.every.only({self.identifier})
        return {_IT: of_it, _BELOW: below} if below.identifiers else {_IT: of_it}

    def whom(self, texts: Sequence[str]) -> list[str]:
        """Return for whom texts have names."""
        return [whom for whom, names in self.by_whom.items() if any(map(names.are_in, texts))]


def find_remains(lake: Lake, known: Traces, now: Traces) -> tuple[str, ...]:
    """Look through every file of the lake for what tells of erased resources; blobs beside its tables are none.

    Args:
        lake: the lake.
        known: what was found of them before they were erased.
        now: what is found of them now.

    Returns:
        One sentence for each place, with what to do; never what is stored there.
    """
    names, unreadable = _Names(Mentions.of(known), known.identifier), {key for t in now.tables for key in t.unreadable}
    places = [*_in_files(now), *(f"{key}: {UNREADABLE}" for key in sorted(unreadable))]
    places += (f"{key}: {_DAMAGED}" for key in damaged_files(lake.store) if key not in unreadable)
    for table in known.tables:
        places += _in_texts(lake.snapshot(table.spec), names)
        places += _in_log(lake.snapshot(table.spec), names)
        places += _in_files_of_others(lake.store, table.spec.namespace, names)
    places += _in_own_folder(lake.store, names)
    return tuple(names.every.without(places))


def handed_on(store: Store, left: Iterable[str]) -> Iterator[str]:
    """Return what an earlier run found that a later one cannot look for; files that are gone tell nothing any more."""
    for words in left:
        places = [words[: found.start()] for found in re.finditer(": ", words)]
        if _BELOW in words and ("/" not in places[0] or any(map(store.exists, places))):
            yield words


def _in_files(now: Traces) -> Iterator[str]:
    for table in now.tables:
        if table.doomed:
            yield f"{table.spec.namespace}: {len(table.doomed)} data files hold rows of it; run it again"


def _in_texts(snapshot: Snapshot, names: _Names) -> Iterator[str]:
    """Texts that name an erased resource: nobody but a person can say what to do with them."""
    columns = {n: t for n, t in snapshot.all_columns.items() if n not in STANDARD_COLUMNS or n == "license"}
    with translated(snapshot.store.uri, f"read {snapshot.spec.namespace} of"):
        every = rows_naming(snapshot.rows, columns, names.every)
        current = rows_naming(snapshot.current(), {name: columns[name] for name in every}, names.every)
    for name, rows in every.items():
        for whom in names.whom(rows["text"].to_list()):
            count, of_now = (_count(found, names.by_whom[whom]) for found in (rows, current.get(name)))
            edit = f", {of_now} of them current: edit these" if of_now else ""
            yield (
                f"{snapshot.spec.namespace}.{name}: {count} rows of other resources name {whom}{edit}. Past versions "
                "keep their texts until their resource is erased"
            )


def _count(rows: pl.DataFrame | None, mentions: Mentions) -> int:
    return 0 if rows is None else len({row for row, text in rows.iter_rows() if mentions.are_in(text)})


# -- the log


def _in_log(newest: Snapshot, names: _Names) -> Iterator[str]:
    """The texts of log entries and checkpoints; paths of a datasource's files name it until the log is trimmed.

    Statistics of live files say no more than their rows, which are looked at by themselves.
    """
    store, namespace, live = newest.store, newest.spec.namespace, set(newest.files["key"])
    paths = frozenset({"path", "partitionValues"} if names.identifier.startswith("datasource/") else ())
    batches: dict[str, None] = {}
    for key in store.list_keys(f"{namespace}/{LOG_FOLDER}"):
        data = store.get(key)
        if data is None or is_temporary(key.removeprefix(f"{namespace}/")):
            continue  # of a writer at work: older ones were deleted
        actions = _actions(key, data)
        if actions is None:
            yield f"{key}: {UNREADABLE}"
            continue
        superseded = [action for action in actions if _added(action) not in live]
        for whom, mentions in names.by_whom.items():
            telling = [action for action in superseded if _tells(namespace, action, mentions, paths)]
            if any("txn" in action for action in telling):
                batches[whom] = None
            if any("txn" not in action for action in telling):
                yield _still_tells(key, whom)
    for whom in batches:
        yield (
            f"{namespace}: the id of a batch names {whom}. It stays in the log, for ever, because without it the batch "
            "could be written again; give batches ids that name nobody"
        )


def _still_tells(key: str, whom: str) -> str:
    if whom == _IT and _FORGETS.fullmatch(key):
        return f"{key}: it still tells of {whom}; run it again"
    is_needed = _FORGETS.fullmatch(key) or key.startswith(f"{OWN_FOLDER}/")
    return f"{key}: it still tells of {whom}; take that out{' by hand' if is_needed else ', or delete it'}"


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


def _tells(namespace: str, action: dict[str, Any], mentions: Mentions, paths: Collection[str]) -> bool:
    """Whether an action names an erased resource, or holds statistics of its rows; these are JSON in a text."""
    stats, skipped = read_statistics(action.get("add") or {}), frozenset({"stats", *paths})
    if any(map(mentions.are_in, json_texts([stats, action], skipped))):
        return True
    bounds = (pair for end in ("minValues", "maxValues") for pair in (stats.get(end) or {}).items())
    return any(mentions.are_bound(namespace, column, bound) for column, bound in bounds)


# -- beside the tables


def _in_own_folder(store: Store, names: _Names) -> Iterator[str]:
    for key in store.list_keys(OWN_FOLDER):
        path = key.removeprefix(f"{OWN_FOLDER}/")
        if not is_temporary(path) and not (key.startswith(f"{KEPT}/") and key.endswith(".zip")):
            yield from _in_file(store, key, names)
    for manifest in manifests(store):
        record = manifest.record()
        frames = (manifest.files(namespace) for namespace in record.tables)
        for whom in names.whom([text for frame in frames for text in json_texts(frame.to_dicts())]):
            yield f"the snapshot kept at {record.kept_at}: it still tells of {whom}; drop it"
        for whom in names.whom([record.name, record.reason or "", record.author]):
            yield (
                f"the snapshot kept at {record.kept_at}: its name or reason names {whom}; keep it anew in other words "
                "(snapshots.keep(name, token=...)), then drop it"
            )


def _in_files_of_others(store: Store, namespace: str, names: _Names) -> Iterator[str]:
    """Files in a table's folder that VxData does not know: who put them there has to look after them."""
    for key in sorted(store.list_keys(namespace)):
        path = key.removeprefix(f"{namespace}/")
        if not (path.startswith(f"{LOG_FOLDER}/") or is_data_file(path) or is_temporary(path)):
            yield from _in_file(store, key, names)


def _in_file(store: Store, key: str, names: _Names) -> Iterator[str]:
    texts = texts_naming(store, key, names.every)
    if texts is None:
        yield f"{key}: {UNREADABLE}"
    else:
        yield from (_still_tells(key, whom) for whom in names.whom(texts))
