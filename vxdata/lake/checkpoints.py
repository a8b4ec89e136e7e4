"""The files of a table's log: entries, checkpoints of every kind, and which checkpoints are whole.

Source: Delta protocol, "Checkpoints" (classic, multi-part, UUID-named) and "Log Compaction Files".
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from vxdata.lake.log import LOG_FOLDER
from vxdata.lake.store import Store, StoredObject

_NAME = re.compile(
    rf"{LOG_FOLDER}/(?P<version>\d{{20}})\.(?:(?P<entry>json)|(?P<classic>checkpoint\.parquet)"
    r"|checkpoint\.(?P<part>\d{10})\.(?P<parts>\d{10})\.parquet"
    r"|checkpoint\.(?P<uuid>[0-9a-f-]{36})\.(?:json|parquet)"
    r"|(?P<compacted>\d{20})\.compacted\.json|(?P<crc>crc))$"
)


@dataclass(frozen=True)
class LogFiles:
    """What lies in the log of one table; other files there are not of the Delta protocol, and not looked at.

    Attributes:
        entries: the log entries, by version.
        checkpoints: for each version the files of each of its whole checkpoints (there may be more than one).
        others: what belongs to one version and is no entry: parts of checkpoints, checksums, compacted entries (by the
            last version that they hold).
    """

    entries: dict[int, StoredObject] = field(default_factory=dict)
    checkpoints: dict[int, list[list[StoredObject]]] = field(default_factory=dict)
    others: dict[int, list[StoredObject]] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The newest version that has an entry; -1 if there is none."""
        return max(self.entries, default=-1)

    @property
    def newest_checkpoint(self) -> int:
        """The version of the newest whole checkpoint; -1 if there is none."""
        return max(self.checkpoints, default=-1)


def list_log(store: Store, namespace: str, from_version: int = 0) -> LogFiles:
    """Return what lies in the log of a table, from some version on."""
    after = f"{namespace}/{LOG_FOLDER}/{from_version:020d}" if from_version > 0 else None
    return to_log_files(store.list_objects(f"{namespace}/{LOG_FOLDER}", after))


def newest_checkpoint(store: Store, namespace: str, newest: int) -> int:
    """Return the version of the newest whole checkpoint up to a version; -1 if there is none.

    A log may hold the entries of a month, so it is listed from the version that `_last_checkpoint` names, which may lag
    behind; from its beginning only where no checkpoint is found there.
    """
    hint = read_hint(store, namespace)
    for from_version in (hint, 0) if 0 < hint <= newest else (0,):
        found = [version for version in list_log(store, namespace, from_version).checkpoints if version <= newest]
        if found:
            return max(found)
    return -1


def to_log_files(objects: Iterable[StoredObject]) -> LogFiles:
    """Sort the objects of a log by what their names say."""
    log = LogFiles()
    parts: dict[tuple[int, int], dict[int, StoredObject]] = {}
    for found in objects:
        name = _NAME.search(found.key)
        if name is None:
            continue
        version = int(name["compacted"] or name["version"])
        if name["entry"]:
            log.entries[version] = found
            continue
        log.others.setdefault(version, []).append(found)
        if name["classic"] or name["uuid"]:
            log.checkpoints.setdefault(version, []).append([found])
        elif name["part"]:
            parts.setdefault((version, int(name["parts"])), {})[int(name["part"])] = found
    for (version, count), some in parts.items():
        if set(some) == set(range(1, count + 1)):
            log.checkpoints.setdefault(version, []).append([some[number] for number in sorted(some)])
    return log


def read_hint(store: Store, namespace: str) -> int:
    """Return the version that `_last_checkpoint` names; it is only a hint, so a missing or damaged one names none."""
    try:
        return int(json.loads(store.get(f"{namespace}/{LOG_FOLDER}/_last_checkpoint") or b"")["version"])
    except (ValueError, KeyError, TypeError):
        return -1
