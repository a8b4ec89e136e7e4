"""Temporary files: what a writer has under another name until it is whole. A kill leaves them; no reader looks at them.

Our own are `.<hex>.tmp` beside their target. deltalake stages an entry as `_commit_<id>.json.tmp`, and whatever it puts
into a local folder as `<name>#<number>`, such as `<version>.json#1`, which is then linked to its name.
"""

import re
from collections.abc import Iterator

from vxdata.catalog.table import all_specs
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.log import LOG_FOLDER
from vxdata.lake.store import Store, StoredObject

_TEMPORARY = re.compile(rf"(.*/)?\.[^/]+\.tmp|{LOG_FOLDER}/(_commit_[^/]+\.json\.tmp|[^/]+#\d+)")


def is_temporary(path: str) -> bool:
    """Whether a file is temporary, by its path inside a table's folder or the lake's own."""
    return _TEMPORARY.fullmatch(path) is not None


def temporary_files(store: Store) -> Iterator[StoredObject]:
    """Return the temporary files of a lake, those of writers at work included."""
    for folder in (OWN_FOLDER, *(spec.namespace for spec in all_specs())):
        for found in store.list_objects(folder):
            if is_temporary(found.key.removeprefix(f"{folder}/")):
                yield found
