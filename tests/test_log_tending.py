"""Checkpoints and the archive of commit metadata are made apart from commits."""

import json
import logging
from pathlib import Path

import polars as pl
import pytest

from vxdata.catalog.table import table_spec
from vxdata.errors import StorageError
from vxdata.lake.archive import archive_commits, archived_commits, find_archived
from vxdata.lake.table import Table
from vxdata.schemas.payload import DatasourcePayload
from vxdata.sdk import Client

COMMITS = 32


def volumes_of(client: Client) -> Table:
    return client._session.lake.table(table_spec(DatasourcePayload))


@pytest.fixture
def client(lake_uri: str) -> Client:
    client = Client(lake_uri, author="night job")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a"]}), reason="first")
    return client


def write(client: Client, commits: int) -> None:
    for n in range(commits):
        client.datasources.update("datasource/a", {"name": f"name {n}"}, reason=f"reason {n}")


def test_a_checkpoint_and_its_archive_come_every_15_commits_and_a_cold_client_reads_the_same(client: Client) -> None:
    write(client, COMMITS)
    store = client._session.lake.store
    checkpoint = json.loads(store.get("datasources/_delta_log/_last_checkpoint") or b"{}")
    assert checkpoint["version"] == 29
    assert Client(client.uri).datasources.retrieve("datasource/a").payload.name == f"name {COMMITS - 1}"
    assert len(Client(client.uri).datasources.history("datasource/a")) == COMMITS + 1
    records = list(archived_commits(volumes_of(client)))
    assert [record["version"] for record in records] == list(range(30))
    assert records[0]["delta_operation"] == "CREATE TABLE"
    assert records[1] | {"operation": "upsert", "author": "night job", "reason": "first"} == records[1]
    assert records[5]["counts"] == {"created": 0, "updated": 1, "deleted": 0}
    assert find_archived(volumes_of(client), records[7]["commit_id"]) == 7
    assert find_archived(volumes_of(client), "nobody") is None


def test_a_writer_that_did_not_make_the_checkpoint_knows_of_it(client: Client) -> None:
    write(client, 20)
    other = Client(client.uri)
    write(other, 1)
    assert volumes_of(other).checkpoint_version in (None, 14)
    store = client._session.lake.store
    assert json.loads(store.get("datasources/_delta_log/_last_checkpoint") or b"{}")["version"] == 14


def test_archiving_again_adds_nothing(client: Client) -> None:
    write(client, 3)
    table = volumes_of(client)
    assert archive_commits(table, 3) == 4
    assert archive_commits(table, 3) == 0
    assert archive_commits(table, 4) == 1
    assert len(list(archived_commits(table))) == 5


def test_a_failed_checkpoint_is_a_warning_and_never_a_failed_write(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(table: Table, version: int) -> None:
        raise StorageError("full", uri=table.uri, operation="write a checkpoint of", retryable=False)

    monkeypatch.setattr(Table, "write_checkpoint", refuse)
    with caplog.at_level(logging.WARNING):
        write(client, 20)
    assert "no checkpoint was written" in caplog.text
    assert client.datasources.retrieve("datasource/a").payload.name == "name 19"


def test_the_log_is_never_cleaned_up_by_others(client: Client) -> None:
    from deltalake import DeltaTable

    table = volumes_of(client)
    write(client, 2)
    configuration = DeltaTable(table.uri, storage_options=table.store.delta_options()).metadata().configuration
    assert configuration["delta.enableExpiredLogCleanup"] == "false"


def test_data_files_of_a_local_lake_leave_no_temporary_files(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a"]}))
    assert list((tmp_path / "lake").rglob("*.tmp*")) == []
