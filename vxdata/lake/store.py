"""The object store of a lake: a local folder or an S3 prefix, behind one small interface.

Everything that VxData itself puts or gets goes through here; deltalake and Polars get their options from here.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from vxdata.errors import InvalidInputError


@dataclass(frozen=True)
class StoredObject:
    """One object of a store, as a listing shows it.

    Attributes:
        key: its key in the lake.
        size: bytes.
        modified: when it was written, by the store's clock, UTC.
    """

    key: str
    size: int
    modified: datetime


class Store(Protocol):
    """A flat name space of keys below a lake's root."""

    uri: str

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes; None where there is none."""

    def stream(self, key: str) -> Iterator[bytes]:
        """Return an object's bytes in parts of some megabytes.

        Raises:
            StorageError: it is missing, or cannot be read.
        """

    def local_folder(self, prefix: str) -> Path | None:
        """Return the local folder of a prefix; None where the objects are remote."""

    def exists(self, key: str) -> bool:
        """Whether an object is there."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object, durably, over whatever is there."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object if the key is free, atomically; return whether it was.

        False too if our own write landed and only its answer was lost: the caller has to look whose it is.
        """

    def list_keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys below a prefix (a folder), in no order."""

    def list_folders(self) -> list[str]:
        """List the names of the folders right below the root, in no order."""

    def list_objects(self, prefix: str = "", after: str | None = None) -> Iterator[StoredObject]:
        """List the objects below a prefix (a folder) with their sizes and ages, in no order.

        Args:
            prefix: the folder.
            after: only objects whose keys sort after this text.
        """

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    def keeps_old_objects(self) -> bool:
        """Whether what is deleted or written over stays readable, as in a bucket with object versioning."""

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
    if not isinstance(uri, (str, os.PathLike)):
        raise InvalidInputError(f"{uri!r}: an address is a str or a path, not {type(uri).__name__}.")
    text = str(os.fspath(uri))
    if not text:
        raise InvalidInputError("the lake's address is empty; a folder or 's3://bucket/prefix' is expected.")
    if "%" in text:
        raise InvalidInputError(f"{text!r}: '%' in a lake's address would be read as an escape; choose another name.")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        from vxdata.lake.local_store import LocalStore

        return LocalStore(Path(rest if separator else text))
    if scheme != "s3":
        raise InvalidInputError(
            f"{text!r}: the scheme {scheme!r} is not known; a folder or 's3://bucket/prefix' is expected."
        )
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if not bucket:
        raise InvalidInputError(f"{text!r} names no bucket; 's3://bucket/prefix' is expected.")
    from vxdata.lake.s3_store import S3Store

    return S3Store(bucket, prefix, options)
