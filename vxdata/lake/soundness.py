"""What an erasure looks at because it removes what could tell of damage: logs before it, data files after it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from vxdata.catalog.table import TableSpec, all_specs
from vxdata.errors import StorageError
from vxdata.lake.checkpoints import to_log_files
from vxdata.lake.datafile import checked_parts, named_checksum
from vxdata.lake.faults import refuse_unanswered
from vxdata.lake.findings import Finding, found
from vxdata.lake.lake import Lake
from vxdata.lake.log import LOG_FOLDER
from vxdata.lake.store import Store
from vxdata.lake.verify_log import check_entries, check_log

_READERS = 4
_LOOKS = 3


def refuse_damaged_logs(lake: Lake) -> None:
    """Refuse to go on if a log is not as it was written, or names a data file that is not there.

    A damaged checkpoint may still open; a new one that is made from it would be all that is left.

    Raises:
        StorageError: it is damaged; says how, and what to do.
    """
    for spec in all_specs():
        for _ in range(_LOOKS):
            faults = [finding for finding in _check(lake, spec) if finding.severity == "error"]
            if not faults:
                break
        else:
            raise StorageError(
                f"{faults[0].subject}: {faults[0].kind}: {faults[0].detail}. What to do: {faults[0].remedy}.",
                uri=lake.store.uri, operation="erase from", retryable=False,
            )  # fmt: skip


def _check(lake: Lake, spec: TableSpec) -> list[Finding]:
    """Check one log; what others delete while it is read, an erasure or a trimming, looks like damage."""
    objects = {listed.key: listed for listed in lake.store.list_objects(spec.namespace)}
    if not any(f"/{LOG_FOLDER}/" in key for key in objects):
        return []
    log, newest = to_log_files(objects.values()), lake.table(spec).listed_snapshot()
    findings = [*check_log(lake.store, spec.namespace, log, newest), *check_entries(lake.store, spec.namespace, log)]
    named = [f"{spec.namespace}/{key}" for key in newest.files["key"]]
    lost = [key for key in named if key not in objects and not lake.store.exists(key)]  # one may have come meanwhile
    return findings + [found("file-missing", spec.namespace, key, "the log names it") for key in lost]


def damaged_files(store: Store) -> Iterator[str]:
    """Return the data files, live or not, whose bytes are not those that were written."""
    keys = [key for spec in all_specs() for key in store.list_keys(spec.namespace) if named_checksum(key)]

    def is_damaged(key: str) -> bool:
        try:
            for _ in checked_parts(store, key):
                pass
        except StorageError as error:
            refuse_unanswered(error)
            return store.exists(key)
        return False

    with ThreadPoolExecutor(_READERS) as pool:
        yield from (key for key, damaged in zip(keys, pool.map(is_damaged, keys), strict=True) if damaged)
