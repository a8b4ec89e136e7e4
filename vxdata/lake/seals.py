"""Seals: checksums of checkpoints, which deltalake writes without.

What a checkpoint says, and its bytes, are sealed right after it was written, in
`_vxdata/checkpoints/<namespace>/<version>.json`; the same said in other bytes is as good. Who builds on a state, and
could carry damage on, looks first whether the checkpoint and the entries that make it are as they were written: a new
checkpoint, compaction, vacuum, erasure, trimming. A checkpoint whose writer was killed in between, or that another
writer made, has no seal and is accepted.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

from vxdata.errors import StorageError
from vxdata.lake.checkpoints import newest_checkpoint
from vxdata.lake.faults import translated
from vxdata.lake.findings import KINDS
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.log import LOG_FOLDER, LogEntry, read_sound_entries
from vxdata.lake.log_checksum import checksum
from vxdata.lake.store import Store

FOLDER = f"{OWN_FOLDER}/checkpoints"
_SEALED = ["add", "txn", "metaData", "protocol"]
"""Not `remove`: how long a checkpoint remembers files that are gone depends on when it is written."""
_BATCH = 500


def unseal(store: Store, namespace: str, version: int) -> None:
    """Delete the seal of a checkpoint that is about to be written anew; one that is left would be of another state.

    A table that was restored from a backup comes to the same version again, and says something else.
    """
    store.delete(seal_key(namespace, version))


def seal_checkpoint(store: Store, namespace: str, version: int) -> None:
    """Put the checksum of what a checkpoint says that was just written.

    Raises:
        StorageError: the checkpoint cannot be read, or the store failed.
    """
    data = store.get(checkpoint_key(namespace, version))
    if data is not None:  # else it was deleted meanwhile: a newer one stands for it
        content = {"version": version, "bytes_sha256": _sha256(data), "sha256": checksum(_actions(data, store.uri))}
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
        if sealed is None:
            return True
        content = json.loads(sealed)
        if content.get("bytes_sha256") == _sha256(data):
            return True  # quickly seen; another writer may have said the same in other bytes since
        return bool(content["sha256"] == checksum(_actions(data, store.uri)))
    except (StorageError, ValueError, KeyError, TypeError, AttributeError):
        return False


def refuse_damaged_state(store: Store, namespace: str, newest: int, operation: str) -> dict[int, LogEntry]:
    """Refuse to build on a version of a table whose newest checkpoint, or an entry since, is not as it was written.

    Args:
        store: the lake's store.
        namespace: the table.
        newest: the version.
        operation: what is refused, for the error.

    Returns:
        The entries since the checkpoint, by version.

    Raises:
        StorageError: it is damaged.
    """
    checkpoint = newest_checkpoint(store, namespace, newest)
    refuse_unsealed(store, namespace, checkpoint, operation)
    return read_sound_entries(store, namespace, range(checkpoint + 1, newest + 1))


def drop_seals(store: Store, namespace: str, below: int) -> None:
    """Delete the seals of checkpoints below a version: what they are of is gone, or is not needed any more."""
    for key in list(store.list_keys(f"{FOLDER}/{namespace}")):
        if key < seal_key(namespace, below):
            store.delete(key)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _actions(data: bytes, uri: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with translated(uri, "read a checkpoint of"):
        for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches(_BATCH, columns=_SEALED):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                yield {kind: fields for kind, fields in row.items() if fields is not None}


def checkpoint_key(namespace: str, version: int) -> str:
    """Return the key of a checkpoint as deltalake writes it: classic, in one file."""
    return f"{namespace}/{LOG_FOLDER}/{version:020d}.checkpoint.parquet"


def seal_key(namespace: str, version: int) -> str:
    """Return the key of a checkpoint's checksum."""
    return f"{FOLDER}/{namespace}/{version:020d}.json"
