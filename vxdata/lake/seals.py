"""Seals: checksums of checkpoints, which deltalake writes without.

What a checkpoint says is sealed right after it was written, in `_vxdata/checkpoints/<namespace>/<version>.json`; who
builds on it, and could carry damage on, looks at the seal first: a new checkpoint, compaction, erasure, trimming. A
checkpoint whose writer was killed in between, or that another writer made, has no seal and is accepted.
"""

import io
import json
from collections.abc import Iterator
from typing import Any

from vxdata.errors import StorageError
from vxdata.lake.faults import translated
from vxdata.lake.findings import KINDS
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.log import LOG_FOLDER
from vxdata.lake.log_checksum import checksum
from vxdata.lake.store import Store

FOLDER = f"{OWN_FOLDER}/checkpoints"
_SEALED = ["add", "txn", "metaData", "protocol"]
"""Not `remove`: how long a checkpoint remembers files that are gone depends on when it is written."""


def seal_checkpoint(store: Store, namespace: str, version: int) -> None:
    """Put the checksum of what a checkpoint says that was just written.

    Raises:
        StorageError: the checkpoint cannot be read, or the store failed.
    """
    data = store.get(checkpoint_key(namespace, version))
    if data is not None:  # else it was deleted meanwhile: a newer one stands for it
        content = {"version": version, "sha256": checksum(_actions(data, store.uri))}
        store.put(seal_key(namespace, version), json.dumps(content).encode())


def refuse_unsealed(store: Store, namespace: str, version: int, operation: str) -> None:
    """Refuse to build on a checkpoint that does not say what it said when it was written.

    Args:
        store: the lake's store.
        namespace: the table.
        version: of the checkpoint; what is not there, or has no checksum, is accepted.
        operation: what is refused, for the error.

    Raises:
        StorageError: it says something else, or has a checksum and cannot be read.
    """
    data = store.get(checkpoint_key(namespace, version)) if version >= 0 else None
    if data is not None and not is_as_sealed(store, namespace, version, data):
        raise StorageError(
            f"{checkpoint_key(namespace, version)} is damaged: it does not say what its checksum says, "
            f"{seal_key(namespace, version)}. What to do: {KINDS['checkpoint-damaged'][1]}; 'vxdata verify' lists all "
            "that is damaged.",
            uri=store.uri, operation=operation, retryable=False,
        )  # fmt: skip


def is_as_sealed(store: Store, namespace: str, version: int, data: bytes) -> bool:
    """Whether the bytes of a checkpoint can be read and say what its checksum says; those of one without a seal do."""
    sealed = store.get(seal_key(namespace, version))
    try:
        return sealed is None or bool(json.loads(sealed)["sha256"] == checksum(_actions(data, store.uri)))
    except (StorageError, ValueError, KeyError, TypeError):
        return False


def drop_seals(store: Store, namespace: str, below: int) -> None:
    """Delete the seals of checkpoints below a version: what they are of is gone, or is not needed any more."""
    for key in list(store.list_keys(f"{FOLDER}/{namespace}")):
        if key < seal_key(namespace, below):
            store.delete(key)


def _actions(data: bytes, uri: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with translated(uri, "read a checkpoint of"):
        rows = pq.read_table(io.BytesIO(data), columns=_SEALED).to_pylist(maps_as_pydicts="strict")
    return ({kind: fields} for row in rows for kind, fields in row.items() if fields is not None)


def checkpoint_key(namespace: str, version: int) -> str:
    """Return the key of a checkpoint as deltalake writes it: classic, in one file."""
    return f"{namespace}/{LOG_FOLDER}/{version:020d}.checkpoint.parquet"


def seal_key(namespace: str, version: int) -> str:
    """Return the key of a checkpoint's checksum."""
    return f"{FOLDER}/{namespace}/{version:020d}.json"
