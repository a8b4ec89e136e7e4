"""What running vacuums are about to delete, written down before they look which snapshots are kept.

`_vxdata/vacuum/<id>.txt` names one file a line. Who keeps a snapshot reads it after its manifest is written (see
`kept.py`): whichever of the two came first, one of them sees the other. What a killed vacuum left behind is for the
next one.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.store import Store

FOLDER = f"{OWN_FOLDER}/vacuum"


@contextmanager
def announced(store: Store, keys: Iterable[str]) -> Iterator[str]:
    """Announce that files will be deleted, while the block runs; give the key of the announcement."""
    own = f"{FOLDER}/{uuid.uuid4().hex}.txt"
    store.put(own, "\n".join(keys).encode())
    try:
        yield own
    finally:
        store.delete(own)


def doomed_files(store: Store) -> set[str]:
    """Return the keys of all files that running vacuums are about to delete."""
    texts = (store.get(key) for key in store.list_keys(FOLDER) if key.endswith(".txt"))
    return {key for text in texts if text for key in text.decode().split("\n")}
