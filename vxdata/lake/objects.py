"""Objects of any bucket as files on this machine, for readers that need files; the lake itself never reads this way."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.lake.aws import find_s3_settings
from vxdata.lake.faults import translated


def fetch_objects(
    address: str,
    folder: Path,
    is_wanted: Callable[[str], bool],
    options: Mapping[str, str] | None = None,
) -> list[tuple[str, Path]]:
    """Copy an object, or the wanted ones below a prefix, into a folder.

    Args:
        address: ``s3://bucket/key`` or ``s3://bucket/prefix``.
        folder: where the files go, under names of our own that keep the suffix.
        is_wanted: tells whether an object below a prefix is wanted, from its name after the prefix.
        options: see `find_s3_settings`.

    Returns:
        The address and the file of each object, sorted by key.

    Raises:
        InvalidInputError: the address names no bucket.
        NotFoundError: nothing wanted is there.
        StorageError: the store refuses or fails.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise InvalidInputError(f"{address!r} names no bucket; 's3://bucket/key' is expected.")
    with translated(address, "read"):
        from obstore.store import S3Store

        store = S3Store(bucket, **find_s3_settings(address, options).obstore_keywords())
        found = []
        for position, name in enumerate(_keys(store, key, is_wanted)):
            path = folder / f"object-{position}{PurePosixPath(name).suffix}"
            _copy(store, name, path)
            found.append((f"s3://{bucket}/{name}", path))
    if not found:
        raise NotFoundError(f"nothing to read at {address}: there is no such object, nor one of a known form below it.")
    return found


def _keys(store: Any, key: str, is_wanted: Callable[[str], bool]) -> list[str]:
    """Return the one object that a key names, else the wanted ones below it."""
    import obstore

    if key and not key.endswith("/"):
        try:
            obstore.head(store, key)
            return [key]
        except FileNotFoundError:
            pass
    prefix = key.rstrip("/")
    below = [str(meta["path"]) for part in obstore.list(store, prefix or None) for meta in part]
    return sorted(name for name in below if is_wanted(name.removeprefix(prefix).lstrip("/")))


def _copy(store: Any, key: str, path: Path) -> None:
    import obstore

    with path.open("wb") as file:
        for part in obstore.get(store, key).stream(min_chunk_size=8 << 20):
            file.write(part)
