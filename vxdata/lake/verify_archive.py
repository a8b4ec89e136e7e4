"""Verifying what lies beside the tables: the archive of commits, the kept snapshots, and the records of erasures."""

from collections import Counter
from collections.abc import Iterator, Set

from vxdata.errors import StorageError, name_some
from vxdata.lake.archive import archived_ranges
from vxdata.lake.checkpoints import LogFiles
from vxdata.lake.erasure_record import FOLDER as ERASURES
from vxdata.lake.erasure_record import read_records
from vxdata.lake.faults import refuse_unanswered
from vxdata.lake.findings import Finding, found
from vxdata.lake.format import OWN_FOLDER
from vxdata.lake.kept import manifests
from vxdata.lake.log import json_lines
from vxdata.lake.store import Store


def check_archive(store: Store, namespace: str, log: LogFiles) -> Iterator[Finding]:
    """Check that the archive and the log together know of every commit, and that the archive can be read."""
    known: set[int] = set(log.entries)
    for first, last, key in archived_ranges(store, namespace):
        try:
            records = [record["version"] for record in json_lines(store.get(key) or b"")]
        except (ValueError, LookupError, TypeError) as error:
            yield found("archive-damaged", namespace, key, f"{type(error).__name__}: {error}")
            continue
        if records != list(range(first, last + 1)):
            yield found("archive-damaged", namespace, key, f"it does not hold the versions {first} to {last}")
        known.update(records)
    missing = sorted(set(range(log.newest + 1)) - known)
    if missing:
        detail = f"neither the log nor the archive has the versions {name_some(map(str, missing), 5)}"
        yield found("archive-gap", namespace, f"{OWN_FOLDER}/commits/{namespace}", detail)


def check_kept(store: Store, listed: Set[str], checked: Counter[str]) -> Iterator[Finding]:
    """Check that each kept snapshot can be read and has all its files.

    Args:
        store: the lake's store.
        listed: the keys, in the lake, of all objects below the tables' folders.
        checked: counts the kept snapshots.
    """
    for manifest in manifests(store):
        checked["kept_snapshots"] += 1
        try:
            gone = sorted(key for key in manifest.all_files() if key not in listed)
        except StorageError as error:
            yield found("kept-snapshot-damaged", None, manifest.key, str(error))
            continue
        gone = [key for key in gone if not store.exists(key)]
        if gone:
            detail = f"{len(gone)} of its files are gone: {name_some(gone, 2)}"
            yield found("kept-snapshot-incomplete", None, manifest.record().name, detail)


def check_erasures(store: Store) -> Iterator[Finding]:
    """Check that the records of erasures can be read, and that each erasure is done."""
    try:
        records = read_records(store)
    except StorageError as error:
        refuse_unanswered(error)
        yield found("erasure-record-damaged", None, ERASURES, str(error))
        return
    for record in records:
        if not record.is_done:
            detail = f"it was begun at {record.begun_at} by {record.author}"
            yield found("erasure-not-done", None, f"{ERASURES}/{record.record_id}.json", detail)
