"""The object store of a lake: a local folder or an S3 prefix, behind one small interface.

Everything that VxData itself puts or gets goes through here; deltalake and Polars get their options from here.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from vxdata.errors import InvalidInputError, StorageError
from vxdata.lake.aws import Credentials, S3Settings, find_s3_settings
from vxdata.lake.faults import translated


class Store(Protocol):
    """A flat name space of keys below a lake's root."""

    uri: str

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes; None where there is none."""

    def exists(self, key: str) -> bool:
        """Whether an object is there."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object, durably, over whatever is there."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object if the key is free, atomically; return whether it was."""

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys below a prefix (a folder), in no order."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    def probe(self) -> None:
        """Check that a conditional write is honoured here.

        Raises:
            StorageError: two writers of one key would both win.
        """

    def settle(self, key: str) -> None:
        """Make durable what another library wrote under this key."""

    def is_unfinished(self, key: str) -> bool:
        """Whether an object that should hold something is empty, as after a crash of the machine."""

    def url(self, key: str) -> str:
        """Return the address of a key as deltalake and Polars take it."""

    def delta_options(self) -> dict[str, str] | None:
        """Return deltalake's storage options, with credentials of now; equal ones may share a handle."""

    def scan_options(self) -> dict[str, Any]:
        """Return the keywords that Polars' scans need here."""


def open_store(uri: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> Store:
    """Return the store behind an address.

    Args:
        uri: a folder, a ``file://`` address, or ``s3://bucket/prefix``.
        options: see `find_s3_settings`; only for S3.

    Raises:
        InvalidInputError: an address of another scheme, without a bucket, or with a '%'.
    """
    text = os.fspath(uri)
    if "%" in text:
        raise InvalidInputError(f"{text!r}: '%' in a lake's address would be read as an escape; choose another name.")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(Path(rest))
    if scheme != "s3":
        raise InvalidInputError(
            f"{text!r}: the scheme {scheme!r} is not known; a folder or 's3://bucket/prefix' is expected."
        )
    bucket, _, prefix = rest.strip("/").partition("/")
    if not bucket:
        raise InvalidInputError(f"{text!r} names no bucket; 's3://bucket/prefix' is expected.")
    return S3Store(bucket, prefix, options)


class LocalStore:
    """A folder. Writes are made durable (fsync) before they are named."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def get(self, key: str) -> bytes | None:
        """See `Store`."""
        with translated(self.uri, f"read {key} of"):
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self, key: str) -> bool:
        """See `Store`."""
        with translated(self.uri, f"look for {key} in"):
            return (self.root / key).exists()

    def put(self, key: str, data: bytes) -> None:
        """See `Store`."""
        with translated(self.uri, f"write {key} to"):
            temporary = self._write_temporary(key, data)
            os.replace(temporary, self.root / key)
            self._sync_folders(key)

    def put_new(self, key: str, data: bytes) -> bool:
        """See `Store`."""
        with translated(self.uri, f"write {key} to"):
            temporary = self._write_temporary(key, data)
            try:
                os.link(temporary, self.root / key)
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            self._sync_folders(key)
            return True

    def _sync_folders(self, key: str) -> None:
        """Make a name durable, and that of its folder, which may be new."""
        folder = (self.root / key).parent
        _sync_folder(folder)
        if folder != self.root:
            _sync_folder(folder.parent)

    def _write_temporary(self, key: str, data: bytes) -> Path:
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """See `Store`."""
        with translated(self.uri, "list"):
            for folder, _, files in os.walk(self.root / prefix):
                for name in files:
                    yield (Path(folder) / name).relative_to(self.root).as_posix()

    def delete(self, key: str) -> None:
        """See `Store`."""
        with translated(self.uri, f"delete {key} of"):
            (self.root / key).unlink(missing_ok=True)

    def probe(self) -> None:
        """A file system's link is atomic: nothing to ask."""

    def settle(self, key: str) -> None:
        """See `Store`."""
        with translated(self.uri, f"make {key} durable in"):
            descriptor = os.open(self.root / key, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._sync_folders(key)

    def is_unfinished(self, key: str) -> bool:
        """See `Store`."""
        try:
            return (self.root / key).stat().st_size == 0
        except FileNotFoundError:
            return False

    def url(self, key: str) -> str:
        """See `Store`."""
        return f"{self.uri}/{key}"

    def delta_options(self) -> dict[str, str] | None:
        """See `Store`."""
        return None

    def scan_options(self) -> dict[str, Any]:
        """See `Store`."""
        return {}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Store:
    """A prefix of a bucket, at AWS or at any store that speaks its protocol."""

    def __init__(self, bucket: str, prefix: str, options: Mapping[str, str] | None = None) -> None:
        self._bucket, self._prefix = bucket, prefix
        self._options = dict(options or {})
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._copy: Credentials | None = None

    @cached_property
    def _settings(self) -> S3Settings:
        return find_s3_settings(self.uri, self._options)

    @cached_property
    def _objects(self) -> Any:
        from obstore.store import S3Store as Objects

        return Objects(self._bucket, prefix=self._prefix or None, **self._settings.obstore_keywords())

    def get(self, key: str) -> bytes | None:
        """See `Store`."""
        with translated(self.uri, f"read {key} of"):
            try:
                return bytes(self._objects.get(key).bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def exists(self, key: str) -> bool:
        """See `Store`."""
        with translated(self.uri, f"look for {key} in"):
            try:
                self._objects.head(key)
            except FileNotFoundError:
                return False
            return True

    def put(self, key: str, data: bytes) -> None:
        """See `Store`."""
        with translated(self.uri, f"write {key} to"):
            self._objects.put(key, data)

    def put_new(self, key: str, data: bytes) -> bool:
        """See `Store`."""
        from obstore.exceptions import AlreadyExistsError

        with translated(self.uri, f"write {key} to"):
            try:
                self._objects.put(key, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """See `Store`."""
        with translated(self.uri, "list"):
            for page in self._objects.list(prefix or None):
                yield from (entry["path"] for entry in page)

    def delete(self, key: str) -> None:
        """See `Store`."""
        with translated(self.uri, f"delete {key} of"):
            self._objects.delete(key)

    def probe(self) -> None:
        """See `Store`."""
        key = f"_vxdata/probe-{uuid.uuid4().hex}"
        self.put(key, b"1")
        refused = not self.put_new(key, b"2")
        self.delete(key)
        if not refused:
            raise StorageError(
                "the store ignores If-None-Match: two writers of one commit would both win and rows would be lost. "
                "Use a store with conditional writes (AWS S3, MinIO, Ceph, R2).",
                uri=self.uri,
                operation="write to",
                retryable=False,
            )

    def settle(self, key: str) -> None:
        """An answered PUT is durable: nothing to do."""

    def is_unfinished(self, key: str) -> bool:
        """A PUT is whole or not there."""
        return False

    def url(self, key: str) -> str:
        """See `Store`."""
        return f"{self.uri}/{key}"

    def delta_options(self) -> dict[str, str] | None:
        """See `Store`."""
        from datetime import UTC, datetime

        if self._copy is None or datetime.now(UTC) >= self._copy.renew_at:
            self._copy = self._settings.credentials()
        return self._settings.delta_options(self._copy)

    def scan_options(self) -> dict[str, Any]:
        """See `Store`."""
        return self._settings.polars_options()
