"""Tables whose payload type is not registered in this process: there is such a table, and nobody here can read it.

A team's own type comes in by `register` or by an installed package, so that a process without it would take a lake for
whole that it sees in part. What must see every table refuses to work then; the listing costs one request, and one more
for each folder that is no table known here.
"""

from vxdata.catalog.table import all_specs
from vxdata.errors import InvalidInputError, name_some
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.log import LOG_FOLDER
from vxdata.lake.store import Store

REGISTER_THEM = "import or install what declares the type"


def unregistered_tables(store: Store) -> tuple[str, ...]:
    """Return the names of the folders that hold a Delta log and are the table of no registered type, sorted."""
    known = {OWN_FOLDER, *(spec.namespace for spec in all_specs())}
    return tuple(name for name in sorted(store.list_folders()) if name not in known and _has_log(store, name))


def _has_log(store: Store, folder: str) -> bool:
    return next(iter(store.list_keys(f"{folder}/{LOG_FOLDER}")), None) is not None


def refuse_unregistered(store: Store, operation: str) -> None:
    """Refuse an operation that has to see every table.

    Args:
        store: the lake's store.
        operation: what is tried, in words.

    Raises:
        InvalidInputError: there are tables whose type is not registered here; names them.
    """
    names = unregistered_tables(store)
    if names:
        raise InvalidInputError(
            f"{operation}: every table has to be seen, and the payload types of {name_some(names)} are not registered "
            f"here: {REGISTER_THEM}. If nobody needs such a table any more, move its folder out of the lake."
        )
