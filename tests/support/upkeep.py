"""Lakes with a past for the tests of upkeep: told, rewritten as a compaction rewrites them, and made old."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.stepping import Clock, open_client
from vxdata.catalog.table import TableSpec, all_specs
from vxdata.lake.checkpoint import CHECKPOINT_COMMITS
from vxdata.lake.datafile import write_data_files
from vxdata.lake.local_store import LocalStore
from vxdata.lake.log import entry_key
from vxdata.lake.table import Table
from vxdata.schemas import Resource
from vxdata.sdk import Client

SOURCE = "datasource/a b=c"
TOLD = ("datasources", "patients", "volumes", "pathology_specimens")


def clock_of_today() -> Clock:
    """Return a clock that shows the true time until it is turned: the age of files comes from the store."""
    clock = Clock()
    clock.now = datetime.now(UTC)
    return clock


def resource(identifier: str, parent: str | None = None, **payload: Any) -> Resource:
    return Resource(identifier=identifier, parent_identifier=parent, payload=payload)


def tell(uri: str | Path, clock: Clock) -> Client:
    """Tell a story in a new lake: updates, a delete, a re-creation, loaded history, specimens within specimens."""
    client = open_client(str(uri), clock.patience())
    patients = [resource(f"patient/{n}", SOURCE, birthyear=n) for n in range(4)]
    specimens = [resource("pathologyspecimen/1", "patient/1"), resource("pathologyspecimen/2", "pathologyspecimen/1")]
    client.resources.create(
        [resource(SOURCE, name="A"), *patients, *specimens, resource("imagingstudy/1", "patient/1")]
    )
    client.volumes.create([resource(f"volume/{n}", "imagingstudy/1", volume_type="T2") for n in range(3)])
    for year in (1950, 1960):
        client.patients.update("patient/1", {"birthyear": year})
    client.patients.delete("patient/2")
    client.patients.create(resource("patient/2", SOURCE, birthyear=2000))
    old = pl.DataFrame({"identifier": ["patient/old"], "parent_identifier": [SOURCE], "birthyear": [1900]})
    client.patients.upsert(old, valid_from="2005-01-01")
    return client


def table_of(client: Client, namespace: str) -> Table:
    return client._session.lake.table(spec_of(namespace))


def rewrite(client: Client, namespace: str) -> None:
    """Write all rows of a table into new files and take the old ones out, as a compaction does."""
    table = table_of(client, namespace)
    base = table.listed_snapshot()
    live = base.files.select("key", "size", "datasource_id").with_columns(deleted_at=pl.lit(int(time.time() * 1000)))
    files = write_data_files(table.store, namespace, base.collect(base.rows))
    metadata = {"commit_id": uuid.uuid4().hex, "operation": "compact", "author": "tester"}
    table.put_commit(base, files, list(live.iter_rows(named=True)), metadata)


def append(client: Client, namespace: str, rows: pl.DataFrame) -> None:
    """Commit rows as they are, whatever the rules say."""
    table = table_of(client, namespace)
    base = table.listed_snapshot()
    metadata = {"commit_id": uuid.uuid4().hex, "operation": "upsert", "author": "a careless writer"}
    table.put_commit(base, write_data_files(table.store, namespace, rows), (), metadata)


def rows_of(client: Client, namespace: str) -> pl.DataFrame:
    """Return all physical rows of a table."""
    base = table_of(client, namespace).listed_snapshot()
    return base.collect(base.rows).sort("identifier", "valid_from")


def contents(client: Client) -> dict[str, pl.DataFrame]:
    """Return what a client sees of the types that the story tells of: all versions of their resources."""
    queries = {name: client.namespace(spec_of(name).payload).query() for name in TOLD}
    return {name: query.versions().sort("identifier", "valid_from").collect() for name, query in queries.items()}


def same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> bool:
    return one.keys() == other.keys() and all(one[name].equals(other[name]) for name in one)


def keys_of(client: Client) -> set[str]:
    """Return the keys of all objects of a lake."""
    return set(client._session.lake.store.list_keys())


def write_until_checkpoint(client: Client, commits: int = CHECKPOINT_COMMITS) -> None:
    for n in range(commits):
        client.patients.update("patient/3", {"birthyear": 1000 + n, "sex": uuid.uuid4().hex})


def write_checkpoint(table: Table) -> int:
    """Write a checkpoint of the newest version without a checksum, as another writer does; return the version."""
    version = table.listed_snapshot().version
    table.write_checkpoint(version)
    return version


def make_older(lake: str | Path, by: timedelta, *patterns: str) -> None:
    """Make files of a local lake older for its store."""
    for pattern in patterns or ("**/*",):
        for path in Path(lake).glob(pattern):
            then = path.stat().st_mtime - by.total_seconds()
            os.utime(path, (then, then))


def edit_entry(lake: str | Path, namespace: str, version: int, change: Any) -> None:
    """Change the actions of a log entry of a local lake; its age for the store stays."""
    path = Path(lake, entry_key(namespace, version))
    times = path.stat()
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    change(actions)
    path.write_text("\n".join(json.dumps(action) for action in actions))
    os.utime(path, (times.st_atime, times.st_mtime))


CALLS = ("get", "put", "put_new", "delete", "exists", "list_objects", "list_keys")
CONTESTED = re.compile(r"_vxdata/(snapshots|vacuum)|patients(/_delta_log)?$|patients/datasource_id=")
"""What keeping and vacuum both look at or change."""
ANY_OF_PATIENTS = re.compile("patients")


@contextmanager
def interrupting(
    monkeypatch: pytest.MonkeyPatch, number: int, action: Any, keys: re.Pattern[str] = CONTESTED
) -> Iterator[list[str]]:
    """Run an action right before the n-th call of a local store for some keys; gives the list of those calls."""
    made: list[str] = []
    is_busy = False

    def wrapped(name: str, original: Any) -> Any:
        def call(store: LocalStore, *args: Any) -> Any:
            nonlocal is_busy
            if not is_busy and keys.match(str(args[0] if args else "")):
                made.append(name)
                if len(made) == number:
                    is_busy = True
                    try:
                        action()
                    finally:
                        is_busy = False
            return original(store, *args)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(LocalStore, name, wrapped(name, getattr(LocalStore, name)))
        yield made


def spec_of(namespace: str) -> TableSpec:
    return next(spec for spec in all_specs() if spec.namespace == namespace)
