"""A lake in a local folder: every write is durable before it has its name."""

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vxdata.errors import InvalidInputError
from vxdata.lake.faults import translated
from vxdata.lake.store import StoredObject

_PART_BYTES = 4 * 2**20


class LocalStore:
    """A folder. Writes are made durable (fsync) before they are named."""

    def __init__(self, root: Path) -> None:
        absolute = root.expanduser().absolute()
        self.root = absolute.resolve() if ".." in absolute.parts else absolute  # one lake has one address
        if self.root.is_file():
            raise InvalidInputError(f"{str(self.root)!r} is a file; a lake is a folder.")
        self.uri = str(self.root)

    def get(self, key: str) -> bytes | None:
        """See `Store`."""
        with translated(self.uri, f"read {key} of"):
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def stream(self, key: str) -> Iterator[bytes]:
        """See `Store`."""
        with translated(self.uri, f"read {key} of"), (self.root / key).open("rb") as file:
            while part := file.read(_PART_BYTES):
                yield part

    def local_folder(self, prefix: str) -> Path | None:
        """See `Store`."""
        return self.root / prefix

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
                below = Path(folder).relative_to(self.root).as_posix()
                yield from files if below == "." else (f"{below}/{name}" for name in files)

    def list_folders(self) -> list[str]:
        """See `Store`."""
        with translated(self.uri, "list"):
            try:
                return [found.name for found in self.root.iterdir() if found.is_dir()]
            except FileNotFoundError:
                return []

    def list_objects(self, prefix: str = "", after: str | None = None) -> Iterator[StoredObject]:
        """See `Store`. A file that goes away while we look is not listed."""
        for key in (key for key in self.list_keys(prefix) if after is None or key > after):
            with translated(self.uri, "list"):
                try:
                    found = os.stat(f"{self.root}/{key}")  # a Path takes longer to make than to look up
                except FileNotFoundError:
                    continue
            yield StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def delete(self, key: str) -> None:
        """See `Store`."""
        with translated(self.uri, f"delete {key} of"):
            (self.root / key).unlink(missing_ok=True)

    def keeps_old_objects(self) -> bool:
        """See `Store`."""
        return False

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
