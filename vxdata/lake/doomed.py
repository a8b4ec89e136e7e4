"""What running vacuums, erasures and trimmings are about to delete, written down before they delete it.

`_vxdata/vacuum/<id>.txt` names one file a line. Who keeps a snapshot reads it after its manifest is written (see
`kept.py`): whichever of the two came first, one of them sees the other. What a killed one left behind is for the next
vacuum. The announcement also shows the store's clock: with one that is ahead of it, young files would look old.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from vxdata.errors import StorageError
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.store import Store

FOLDER = f"{OWN_FOLDER}/vacuum"
MOST_CLOCK_DIFFERENCE = timedelta(hours=1)


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
    """Return the keys of all files that running vacuums and erasures are about to delete."""
    texts = (store.get(key) for key in store.list_keys(FOLDER) if key.endswith(".txt"))
    return {key for text in texts if text for key in text.decode().split("\n")}


def refuse_clock_ahead(store: Store, announcement: str, judged_at: datetime, operation: str) -> None:
    """Compare the clock by which files were judged to be old with the store's, which dated the announcement.

    In a local folder both are this machine's: only a clock that was set back meanwhile is found out.

    Args:
        store: the lake's store.
        announcement: its key.
        judged_at: what this machine's clock showed when it was decided which files are old, before the announcement.
        operation: what deletes them.

    Raises:
        StorageError: it was more than an hour ahead.
    """
    written = next((o.modified for o in store.list_objects(FOLDER) if o.key == announcement), None)
    if written is None or judged_at - written > MOST_CLOCK_DIFFERENCE:
        raise StorageError(
            f"this machine's clock showed {judged_at:%Y-%m-%d %H:%M:%S} UTC, but the store's shows {written} later; "
            "nothing was deleted. Set the clock.",
            uri=store.uri,
            operation=operation,
            retryable=False,
        )
