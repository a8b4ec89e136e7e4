"""Kept snapshots: manifests that hold all that is needed to open a state again after the log has forgotten it.

A kept snapshot is one object, `_vxdata/snapshots/<percent-encoded name>.zip`, put under the condition that its name is
free. `snapshot.json` inside says what was kept, when, by whom and why; for each table `<namespace>.columns.arrow` holds
the schema, and `<namespace>.files.arrow` the complete list of files with sizes, partitions and statistics, typed as a
snapshot has them.

A keep that races a vacuum must not end with files missing. Each of the two writes first and looks afterwards:

    keep:   write the manifest, then read which files running vacuums are about to delete, then look for the files;
    vacuum: write which files it is about to delete, then read the manifests, then delete.

So at least one of them sees the other: the vacuum spares the files, or the keep takes its manifest back. An erasure
does as a vacuum does, but that it spares nothing: it drops the manifests that it sees.
"""

import io
import json
import struct
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    did_you_mean,
    name_some,
)
from vxdata.lake.doomed import doomed_files
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.snapshot import NO_TABLE, ClosingsReader, Snapshot
from vxdata.lake.store import Store

FOLDER = f"{OWN_FOLDER}/snapshots"
_HEAD, _SUFFIX = "snapshot.json", ".zip"
_MOST_CHARACTERS = 200


@dataclass(frozen=True)
class KeptSnapshot:
    """A state of the lake that stays readable until it is dropped.

    Attributes:
        name: its name.
        token: `Client(uri, snapshot=token)` opens it.
        author: who kept it.
        reason: why, or None.
        kept_at: when, UTC.
        tables: the version of each table in it, by namespace.
    """

    name: str
    token: str
    author: str
    reason: str | None
    kept_at: datetime
    tables: dict[str, int]


def keep(store: Store, record: KeptSnapshot, snapshots: Iterable[Snapshot]) -> None:
    """Write the manifest of a state, and make sure that all its files are there.

    Args:
        store: the lake's store.
        record: what is kept.
        snapshots: one of each table in the state.

    Raises:
        AlreadyExistsError: the name is taken.
        NotFoundError: files are gone already; nothing is kept.
        ConflictError: a vacuum or an erasure is deleting files of this state right now; nothing is kept.
    """
    taken = [snapshot for snapshot in snapshots if snapshot.version != NO_TABLE]
    key, own_id = manifest_key(record.name), uuid.uuid4().hex
    if not store.put_new(key, _encode(record, own_id, taken)) and not _is_ours(store, key, own_id):
        raise AlreadyExistsError(f"a snapshot {record.name!r} is kept already; drop it first, or take another name.")
    try:
        _refuse_incomplete(store, record.name, taken)
    except BaseException:
        store.delete(key)
        raise


def read_kept(store: Store) -> list[KeptSnapshot]:
    """Return what is kept, oldest first.

    Raises:
        StorageError: a manifest is damaged.
    """
    return sorted((m.record() for m in manifests(store)), key=lambda record: (record.kept_at, record.name))


def drop(store: Store, name: str) -> None:
    """Let go of a kept snapshot; its files are for the next vacuum.

    Raises:
        NotFoundError: nothing is kept under this name.
    """
    key = manifest_key(name)
    if not store.exists(key):
        known = did_you_mean(name, (record.name for record in read_kept(store)))
        raise NotFoundError(f"no snapshot {name!r} is kept.{known}")
    store.delete(key)


def kept_files(store: Store) -> set[str]:
    """Return the keys, in the lake, of all files that kept snapshots need.

    Raises:
        StorageError: a manifest is damaged, so that nobody knows which files it needs.
    """
    return {key for manifest in manifests(store) for key in manifest.all_files()}


def find_kept(store: Store, spec: TableSpec, version: int, read_closings: ClosingsReader) -> Snapshot | None:
    """Return one version of a table from a kept snapshot that holds it; None if none does."""
    for manifest in manifests(store):
        if manifest.record().tables.get(spec.namespace) == version:
            return manifest.snapshot(store, spec, read_closings)
    return None


def missing_files(store: Store, namespace: str, keys: Iterable[str]) -> list[str]:
    """Return which of some data files of a table are not there, in one listing."""
    wanted = {f"{namespace}/{key}" for key in keys}
    if wanted:
        wanted.difference_update(store.list_keys(namespace))
    return sorted(wanted)


def manifest_key(name: str) -> str:
    """Return where the manifest of a name is.

    Raises:
        InvalidInputError: the name is empty, too long, or has blanks around it.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"{name!r}: a snapshot's name is a str, not {type(name).__name__}.")
    if not name or name != name.strip() or not name.isprintable() or len(quote(name, safe="")) > _MOST_CHARACTERS:
        raise InvalidInputError(
            f"{name!r} cannot name a snapshot: 1 to {_MOST_CHARACTERS} characters (percent-encoded) that can be "
            "printed, without blanks around them, are expected."
        )
    return f"{FOLDER}/{quote(name, safe='')}{_SUFFIX}"


def _refuse_incomplete(store: Store, name: str, snapshots: Iterable[Snapshot]) -> None:
    doomed = doomed_files(store)
    for snapshot in snapshots:
        namespace, keys = snapshot.spec.namespace, snapshot.files["key"].to_list()
        going = doomed.intersection(f"{namespace}/{key}" for key in keys)
        if going:
            raise ConflictError(
                f"{name!r} was not kept: a vacuum or an erasure is deleting {len(going)} files of this state of "
                f"{namespace} right now. Try again, or keep a newer state."
            )
        gone = missing_files(store, namespace, keys)
        if gone:
            raise NotFoundError(
                f"{name!r} was not kept: a vacuum or an erasure took {len(gone)} files of this state of {namespace} "
                f"({name_some(gone, 2)}). Keep a newer state."
            )


# -- the manifest


def _encode(record: KeptSnapshot, own_id: str, snapshots: list[Snapshot]) -> bytes:
    head = {
        "name": record.name,
        "token": record.token,
        "author": record.author,
        "reason": record.reason,
        "kept_at": record.kept_at.isoformat(),
        "tables": {snapshot.spec.namespace: snapshot.version for snapshot in snapshots},
        "table_ids": {snapshot.spec.namespace: snapshot.table_id for snapshot in snapshots},
        "id": own_id,
    }
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(_HEAD, json.dumps(head, ensure_ascii=False, indent=2))
        for snapshot in snapshots:
            columns = pl.DataFrame(schema=snapshot.columns)
            archive.writestr(f"{snapshot.spec.namespace}.columns.arrow", _to_arrow(columns))
            archive.writestr(f"{snapshot.spec.namespace}.files.arrow", _to_arrow(snapshot.files))
    return sink.getvalue()


def _to_arrow(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_ipc(sink, compression="zstd")
    return sink.getvalue()


@dataclass(frozen=True)
class Manifest:
    """The stored form of a kept snapshot; what is read of it is held against its checksums.

    Attributes:
        uri: the address of the lake.
        key: the manifest's key.
        data: its bytes.
    """

    uri: str
    key: str
    data: bytes

    def record(self) -> KeptSnapshot:
        """Return who kept what."""
        with self._named():
            head = self._head()
            return KeptSnapshot(
                head["name"],
                head["token"],
                head["author"],
                head["reason"],
                datetime.fromisoformat(head["kept_at"]),
                head["tables"],
            )

    def snapshot(self, store: Store, spec: TableSpec, read_closings: ClosingsReader) -> Snapshot:
        """Return the snapshot of one of its tables."""
        with self._named():
            head, columns = self._head(), dict(self._frame(f"{spec.namespace}.columns.arrow").schema)
            version, table_id = head["tables"][spec.namespace], head["table_ids"][spec.namespace]
            return Snapshot(spec, store, version, table_id, columns, self.files(spec.namespace), read_closings)

    def files(self, namespace: str) -> pl.DataFrame:
        """Return the files of one table, as `Snapshot.files` has them."""
        with self._named():
            return self._frame(f"{namespace}.files.arrow")

    def all_files(self) -> Iterator[str]:
        """Return the keys, in the lake, of the files of all its tables."""
        for namespace in self.record().tables:
            yield from (f"{namespace}/{key}" for key in self.files(namespace)["key"])

    def has_id(self, own_id: str) -> bool:
        """Whether this is the manifest that was written with an id."""
        with self._named():
            return bool(self._head()["id"] == own_id)

    def _head(self) -> dict[str, Any]:
        head: dict[str, Any] = json.loads(self._read(_HEAD))
        return head

    def _frame(self, member: str) -> pl.DataFrame:
        return pl.read_ipc(io.BytesIO(self._read(member)))

    def _read(self, member: str) -> bytes:
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return archive.read(member)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the manifest, and the way out, where it is damaged."""
        try:
            yield
        except (zipfile.BadZipFile, ValueError, LookupError, TypeError, RuntimeError, EOFError, struct.error) as error:
            raise StorageError(
                f"the manifest of a kept snapshot, {self.key}, is damaged ({type(error).__name__}: {error}). Restore "
                "it from a backup, or remove it: its files are then for the next vacuum.",
                uri=self.uri,
                operation="read the kept snapshots of",
                retryable=False,
            ) from error


def manifests(store: Store) -> Iterator[Manifest]:
    """Return the manifests of all kept snapshots."""
    for key in sorted(store.list_keys(FOLDER)):
        data = store.get(key) if key.endswith(_SUFFIX) else None
        if data is not None:  # else it was dropped meanwhile
            yield Manifest(store.uri, key, data)


def _is_ours(store: Store, key: str, own_id: str) -> bool:
    """Whether a refused PUT had landed before, and only its answer was lost."""
    data = store.get(key)
    return data is not None and Manifest(store.uri, key, data).has_id(own_id)
