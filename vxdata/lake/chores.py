"""What scheduled jobs note in the lake for each other: when all of it was last found whole."""

import json
from datetime import datetime

from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.store import Store
from vxdata.schemas.instant import to_instant

_KEY = f"{OWN_FOLDER}/verified.json"


def last_verified(store: Store) -> datetime | None:
    """Return when the whole lake was last found whole; a note that is missing or damaged says never."""
    try:
        found = to_instant(json.loads(store.get(_KEY) or b"")["verified_at"])
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, datetime) else None


def note_verified(store: Store, now: datetime) -> None:
    """Note that the whole lake was found whole."""
    store.put(_KEY, json.dumps({"verified_at": now.isoformat()}).encode())
