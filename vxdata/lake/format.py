"""What makes a folder or prefix a lake: `_vxdata/lake.json`, which holds the format version."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from vxdata import __version__
from vxdata.errors import InvalidInputError, NotFoundError, StorageError
from vxdata.lake.store import Store

FORMAT_VERSION = 1
OWN_FOLDER = "_vxdata"
FORMAT_KEY = f"{OWN_FOLDER}/lake.json"


@dataclass(frozen=True)
class LakeFormat:
    """The content of `lake.json`.

    Attributes:
        lake_id: tells a lake from another one that was made at the same address.
        version: the format version.
    """

    lake_id: str
    version: int


def read_format(store: Store) -> LakeFormat | None:
    """Return the format of the lake at a store; None where no lake is.

    Raises:
        StorageError: the lake has a format that this version does not know, or its `lake.json` is damaged.
    """
    data = store.get(FORMAT_KEY)
    if data is None:
        return None
    try:
        content = json.loads(data)
        found = LakeFormat(str(content["lake_id"]), int(content["format"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{FORMAT_KEY} is damaged ({error}); restore it from a backup.",
            uri=store.uri,
            operation="open",
            retryable=False,
        ) from error
    if found.version != FORMAT_VERSION:
        raise StorageError(
            f"the lake has format {found.version}, and VxData {__version__} knows format {FORMAT_VERSION} only. "
            "Install a newer VxData: pip install --upgrade vxdata.",
            uri=store.uri,
            operation="open",
            retryable=False,
        )
    return found


def require_format(store: Store) -> LakeFormat:
    """Return the format of the lake at a store.

    Raises:
        NotFoundError: no lake is there.
    """
    found = read_format(store)
    if found is None:
        raise NotFoundError(
            f"no lake at {store.uri}. The first write makes one; to load real data run 'vxdata demo' or "
            "'vxdata ingest idc', or check the address (VXDATA_URI)."
        )
    return found


def make_lake(store: Store) -> LakeFormat:
    """Return the format of the lake at a store, and make the lake where the folder or prefix is empty.

    Two processes that do this at once end with one lake. A kill on the way leaves nothing that hinders the next try.

    Raises:
        InvalidInputError: the folder holds something else.
        StorageError: the store does not honour conditional writes.
    """
    store.probe()
    found = read_format(store) or find_place(store)
    if found is not None:
        return found
    content = {
        "format": FORMAT_VERSION,
        "lake_id": uuid.uuid4().hex,
        "created_at": datetime.now(UTC).isoformat(),
        "created_by": f"vxdata {__version__}",
    }
    store.put_new(FORMAT_KEY, json.dumps(content, indent=2).encode())
    return require_format(store)


def find_place(store: Store) -> LakeFormat | None:
    """Look whether a lake can be made here; return the format if another process made it since we looked.

    Raises:
        InvalidInputError: the folder holds something else.
    """
    foreign = next((key for key in store.list_keys() if not key.startswith(f"{OWN_FOLDER}/")), None)
    if foreign is None:
        return None
    found = read_format(store)
    if found is None:
        raise InvalidInputError(
            f"{store.uri} is no lake and holds something else ({foreign!r}); a lake is made in an empty folder or "
            "prefix."
        )
    return found
