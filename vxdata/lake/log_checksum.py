"""The checksum of what actions of a log say: Delta has none, and a bit that flips may leave a log that opens.

An entry of ours holds it in its `commitInfo`; those of other writers have none. It is of what is said and not of the
bytes: two writers of one checkpoint (see `seals`) may put it into other bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

METADATA_KEY = "vxdata"
"""Our own metadata stands under this key of a commit's `commitInfo`."""
CHECKSUM_KEY = "vxdata_sha256"
"""The checksum of an entry stands under this key of its `commitInfo`."""

_SAID = {
    "commitInfo": (METADATA_KEY,),
    "add": ("path", "partitionValues", "size", "modificationTime", "stats"),
    "remove": ("path",),
    "txn": ("appId", "version"),
    "metaData": ("id", "schemaString", "partitionColumns", "configuration"),
    "protocol": ("minReaderVersion", "minWriterVersion", "readerFeatures", "writerFeatures"),
}
"""What each action says that a reader of the table goes by."""


def checksum(actions: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256, in hexadecimal digits, of what some actions say, in whatever order."""
    said = (json.dumps(_said(kind, fields), sort_keys=True) for one in actions for kind, fields in one.items())
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(text.encode()).digest() for text in said))).hexdigest()


def _said(kind: str, fields: Mapping[str, Any]) -> list[Any]:
    said = {name: fields[name] for name in _SAID.get(kind, ()) if fields.get(name) not in (None, {}, [])}
    return [kind, said | {"path": unquote(said["path"])} if "path" in said else said]


def with_checksum(entry: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the actions of an entry with the checksum of what they say now, if it had one."""

    def renewed(action: Mapping[str, Any]) -> dict[str, Any]:
        info = action.get("commitInfo", {})
        return {"commitInfo": {**info, CHECKSUM_KEY: checksum(entry)}} if CHECKSUM_KEY in info else dict(action)

    return [renewed(action) for action in entry]


def is_as_written(entry: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the actions of an entry say what its checksum says, or it has none; one elsewhere was misplaced."""
    sealed = {kind: said[CHECKSUM_KEY] for action in entry for kind, said in action.items() if CHECKSUM_KEY in said}
    return not sealed or sealed == {"commitInfo": checksum(entry)}
