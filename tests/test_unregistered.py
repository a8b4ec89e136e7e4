"""A process that lacks a team's payload type: what has to see every table refuses, and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import BUCKETS_IN_LONG_RUNS
from tests.support.cli import run_here
from tests.support.registered import registered
from tests.support.stepping import open_client
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.lake.intent import Patience
from vxdata.lake.store import Store
from vxdata.lake.unregistered import unregistered_tables
from vxdata.schemas import Payload, Resource
from vxdata.sdk import Client

SECRET = "only this patient's words"
HASTE = Patience(deadline_seconds=0.2, grace_seconds=0.1)


class Punch(Payload, type="punch", namespace="punches", parents=("patient", "volume")):
    """A punch biopsy, of a team's own package."""

    note: str | None = None


def resource(identifier: str, parent: str | None = None, **payload: Any) -> Resource:
    return Resource(identifier=identifier, parent_identifier=parent, payload=payload)


def fill(client: Client) -> Client:
    """Two patients, one with a punch; its type is forgotten afterwards."""
    client.resources.create(
        [resource("datasource/d"), resource("patient/P1", "datasource/d"), resource("patient/P2", "datasource/d")]
    )
    with registered("punch", Punch):
        client.punches.create(resource("punch/P1/b1", "patient/P1", note=SECRET))
    return client


def store_of(client: Client) -> Store:
    return client._session.lake.store


def state_of(client: Client) -> list[tuple[str, int]]:
    """The keys and sizes of all objects: what writes changes them."""
    return sorted((found.key, found.size) for found in store_of(client).list_objects())


def count_punches(client: Client) -> int:
    with registered("punch", Punch):
        return int(client.punches.query().count())


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return fill(open_client(str(tmp_path / "lake"), HASTE))


def test_a_table_is_a_folder_with_a_log_that_no_registered_type_has(lake_uri: str) -> None:
    client = Client(lake_uri)
    assert unregistered_tables(store_of(client)) == ()
    fill(client)
    store_of(client).put("blobs/scan/1.nii.gz", b"1")
    store_of(client).put("notes.txt", b"1")
    assert unregistered_tables(store_of(client)) == ("punches",)
    with registered("punch", Punch):
        assert unregistered_tables(store_of(client)) == ()


# -- what has to see every table


@BUCKETS_IN_LONG_RUNS
@pytest.mark.parametrize("dry_run", [True, False])
def test_an_erasure_is_refused_where_it_cannot_look_through_every_table(lake_uri: str, dry_run: bool) -> None:
    client = fill(open_client(lake_uri, HASTE))
    before = state_of(client)
    with pytest.raises(InvalidInputError, match=r"'punches' are not registered here: import or install"):
        client.erase("patient/P1", reason="consent withdrawn", dry_run=dry_run)
    assert state_of(client) == before
    with registered("punch", Punch):
        report = client.erase("patient/P1", reason="consent withdrawn", dry_run=dry_run)
    assert set(report.tables["namespace"]) == {"patients", "punches"}
    assert report.left == ()


def test_an_erasure_stops_where_such_a_table_comes_while_it_waits(client: Client) -> None:
    with registered("punch", Punch):
        client.punches.delete("punch/P1/b1")
    table, elsewhere = Path(client.uri, "punches"), Path(client.uri).with_name("punches")
    table.rename(elsewhere)

    def come(_: float) -> None:
        if elsewhere.exists():
            elsewhere.rename(table)

    waiting = open_client(client.uri, Patience(deadline_seconds=0.2, grace_seconds=0.1, sleep=come))
    with pytest.raises(InvalidInputError, match="'punches'"):
        waiting.erase("patient/P1", reason="consent withdrawn", dry_run=False)
    with registered("punch", Punch):
        assert client.erase("patient/P1", reason="consent withdrawn", dry_run=False).left == ()


@BUCKETS_IN_LONG_RUNS
def test_a_keep_is_refused_that_would_leave_a_table_out(lake_uri: str) -> None:
    client = fill(Client(lake_uri))
    with pytest.raises(InvalidInputError, match=r"'punches'.* import or install"):
        client.snapshots.keep("paper")
    assert client.snapshots.list().is_empty()
    with registered("punch", Punch):
        token = client.snapshots.keep("paper").token
    assert count_punches(Client(lake_uri, snapshot=token)) == 1


def test_a_token_that_lacks_a_table_is_not_kept(client: Client) -> None:
    token = client.snapshot().token
    with pytest.raises(InvalidInputError, match=r"'punches'.* import or install"):
        client.snapshots.keep("paper", token=token)
    with registered("punch", Punch), pytest.raises(InvalidInputError, match=r"'punches'.* Keep a newer state"):
        client.snapshots.keep("paper", token=token)
    assert client.snapshots.list().is_empty()


CHANGES: dict[str, Callable[[Client], object]] = {
    "delete": lambda client: client.patients.delete("patient/P1"),
    "cascade": lambda client: client.patients.delete("patient/P1", cascade=True),
    "missing": lambda client: client.patients.upsert(kept_patients(), missing="delete"),
    "missing, cascade": lambda client: client.patients.upsert(kept_patients(), missing="delete", cascade=True),
    "restore": lambda client: client.patients.restore("patient/P1"),
    "revert": lambda client: client.commits.revert(newest_commit(client)),
    "what a revert would do": lambda client: client.commits.revert(newest_commit(client), dry_run=True),
}


def kept_patients() -> pl.DataFrame:
    return pl.DataFrame({"identifier": ["patient/P2"], "parent_identifier": ["datasource/d"]})


def newest_commit(client: Client) -> str:
    return str(client.commits.list("patients", limit=1)["commit_id"].item())


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_many_tables_is_refused_where_one_is_not_seen(client: Client, name: str) -> None:
    before = state_of(client)
    with pytest.raises(InvalidInputError, match=r"'punches' are not registered here: import or install"):
        CHANGES[name](client)
    assert state_of(client) == before


def test_a_cascade_on_s3_closes_the_children_or_nothing(lake_uri: str) -> None:
    client = fill(Client(lake_uri))
    with pytest.raises(InvalidInputError, match="'punches'"):
        client.patients.delete("patient/P1", cascade=True)
    with registered("punch", Punch):
        assert client.patients.delete("patient/P1", cascade=True).deleted == {"punches": 1, "patients": 1}
    with pytest.raises(InvalidInputError, match="'punches'"):
        client.patients.restore("patient/P1")
    with registered("punch", Punch):
        assert client.patients.restore("patient/P1").restored == {"patients": 1, "punches": 1}


def test_what_needs_no_other_table_goes_on(client: Client) -> None:
    client.patients.create(resource("patient/P3", "datasource/d"))
    client.patients.update("patient/P2", {"sex": "F"})
    assert client.patients.upsert(kept_patients().with_columns(sex=pl.lit("M"))).updated == 1
    everyone = pl.DataFrame({"identifier": [f"patient/P{n}" for n in (1, 2, 3)], "parent_identifier": "datasource/d"})
    assert client.patients.upsert(everyone, missing="delete").deleted == 0
    assert client.patients.query().count() == 3
    client.compact()
    assert client.vacuum().count == 0
    assert count_punches(client) == 1


# -- snapshots


@BUCKETS_IN_LONG_RUNS
def test_a_snapshot_says_that_it_lacks_a_table_and_does_not_answer_for_it(lake_uri: str) -> None:
    token = fill(Client(lake_uri)).snapshot().token
    opened = Client(lake_uri, snapshot=token)
    assert opened.patients.query().count() == 2
    assert opened.token == token
    with pytest.raises(NotFoundError, match=r"does not hold punches: .* 'punch' was not registered"):
        count_punches(opened)
    with registered("punch", Punch), pytest.raises(NotFoundError, match="does not hold punches"):
        opened.patients.tree("patient/P1")


@BUCKETS_IN_LONG_RUNS
def test_a_table_that_did_not_exist_yet_is_empty_in_a_snapshot(lake_uri: str) -> None:
    client = Client(lake_uri)
    client.datasources.create(resource("datasource/d"))
    token = client.snapshot().token
    fill_rest(client)
    assert count_punches(Client(lake_uri, snapshot=token)) == 0


def fill_rest(client: Client) -> None:
    client.patients.create(resource("patient/P1", "datasource/d"))
    with registered("punch", Punch):
        client.punches.create(resource("punch/P1/b1", "patient/P1"))


# -- looking


@BUCKETS_IN_LONG_RUNS
def test_verify_does_not_call_a_lake_whole_that_it_saw_in_part(lake_uri: str) -> None:
    client = fill(Client(lake_uri))
    report = client.verify()
    assert not report.ok
    (finding,) = report.findings.rows(named=True)
    assert (finding["kind"], finding["subject"], finding["severity"]) == ("table-unregistered", "punches", "error")
    assert "import or install" in finding["remedy"]
    with registered("punch", Punch):
        assert client.verify().findings.is_empty()


@BUCKETS_IN_LONG_RUNS
def test_info_lists_the_tables_that_it_cannot_tell_of(lake_uri: str) -> None:
    client = fill(Client(lake_uri))
    assert client.info().unregistered == ("punches",)
    assert [table.namespace for table in client.info().tables] == ["datasources", "patients"]
    with registered("punch", Punch):
        assert client.info().unregistered == ()
        assert [table.namespace for table in client.info().tables][-1] == "punches"


def test_info_of_a_snapshot_lists_what_the_snapshot_lacks(client: Client) -> None:
    snapshot = client.snapshot()
    with registered("punch", Punch):
        assert snapshot.info().unregistered == ("punches",)
        assert [table.namespace for table in snapshot.info().tables] == ["datasources", "patients"]


def test_the_command_line_says_so(client: Client) -> None:
    shown = run_here("info", "--uri", client.uri)
    assert "punches: its payload type is not registered here; import or install" in " ".join(shown.stdout.split())
    assert json.loads(run_here("info", "--uri", client.uri, "--json").stdout)["unregistered"] == ["punches"]
    assert run_here("erase", "patient/P1", "--reason", "consent withdrawn", "--uri", client.uri).returncode == 2
    assert run_here("verify", "--uri", client.uri).returncode == 8
