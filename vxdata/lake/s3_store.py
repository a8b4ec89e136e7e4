"""A lake in a bucket, at AWS or at any store that speaks its protocol."""

import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from vxdata.errors import StorageError
from vxdata.lake.again import MOST_TRIES, again
from vxdata.lake.aws import Credentials, S3Settings, find_s3_settings
from vxdata.lake.faults import is_broken_answer, translated
from vxdata.lake.store import StoredObject

_PART_BYTES = 4 * 2**20


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
                return again(lambda: bytes(self._objects.get(key).bytes()))
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def stream(self, key: str) -> Iterator[bytes]:
        """See `Store`."""
        with translated(self.uri, f"read {key} of"):
            for part in self._objects.get(key).stream(min_chunk_size=_PART_BYTES):
                yield bytes(part)

    def local_folder(self, prefix: str) -> None:
        """See `Store`."""

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
        """See `Store`. The client itself does not try a conditional PUT again whose connection broke."""
        from obstore.exceptions import AlreadyExistsError

        with translated(self.uri, f"write {key} to"):
            try:
                again(lambda: self._objects.put(key, data, mode="create"))
            except AlreadyExistsError:
                return False
            return True

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """See `Store`."""
        return (found.key for found in self.list_objects(prefix))

    def list_folders(self) -> list[str]:
        """See `Store`."""
        with translated(self.uri, "list"):
            return [str(name) for name in again(self._objects.list_with_delimiter)["common_prefixes"]]

    def list_objects(self, prefix: str = "", after: str | None = None) -> Iterator[StoredObject]:
        """See `Store`."""
        tries, last = MOST_TRIES, after
        while tries:
            try:
                for found in self._list_after(prefix, last):
                    yield found
                    last = found.key
                return
            except StorageError as error:
                tries -= 1
                if not tries or not is_broken_answer(error.__cause__ or error):
                    raise

    def _list_after(self, prefix: str, last: str | None) -> Iterator[StoredObject]:
        with translated(self.uri, "list"):
            for page in self._objects.list(prefix or None, offset=last):
                yield from (StoredObject(entry["path"], entry["size"], entry["last_modified"]) for entry in page)

    def delete(self, key: str) -> None:
        """See `Store`."""
        with translated(self.uri, f"delete {key} of"):
            again(lambda: self._objects.delete(key))

    def keeps_old_objects(self) -> bool:
        """See `Store`. Who may not ask is told so by no answer, and the worse is assumed."""
        return self._settings.is_versioned(self._bucket)

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
        if self._copy is None or datetime.now(UTC) >= self._copy.renew_at:
            self._copy = self._settings.credentials()
        return self._settings.delta_options(self._copy)

    def scan_options(self) -> dict[str, Any]:
        """See `Store`."""
        return self._settings.polars_options()
