"""Kept snapshots open after everything: compaction, vacuum, trimming."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.stepping import Clock, open_client
from tests.support.upkeep import (
    TOLD,
    clock_of_today,
    contents,
    keys_of,
    rewrite,
    same,
    table_of,
    tell,
    write_checkpoint,
    write_until_checkpoint,
)
from vxdata.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StorageError
from vxdata.lake import kept
from vxdata.lake.local_store import LocalStore
from vxdata.lake.table import Table
from vxdata.lake.token import LakeState
from vxdata.lake.trim import trim_log
from vxdata.sdk import Client, F

MONTHS = timedelta(days=90)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "lake"
    tell(folder, clock_of_today())
    return folder


@pytest.fixture
def client(told: Path, tmp_path: Path) -> Client:
    return Client(shutil.copytree(told, tmp_path / "lake"), author="a reader")


def forget(client: Client, clock: Clock) -> None:
    """Rewrite all that the story tells of, and let vacuum and trimming take what was before."""
    write_until_checkpoint(client, 2)
    for name in TOLD:
        rewrite(client, name)
    for name in TOLD:
        write_checkpoint(table_of(client, name))
    clock.turn(MONTHS)
    assert client.vacuum(dry_run=False).count > 0 or client.snapshots.list().height
    assert sum(trim_log(table_of(client, name), clock.now).entries for name in TOLD) > 10


# -- what a kept snapshot promises


def test_a_kept_snapshot_opens_after_compaction_vacuum_and_trimming(lake_uri: str) -> None:
    clock = clock_of_today()
    client = tell(lake_uri, clock)
    seen, record = contents(client), client.snapshots.keep("paper", reason="submitted")
    unkept = open_client(lake_uri, clock.patience()).snapshot().token
    client.patients.update("patient/3", {"birthyear": 7})
    lost = client.snapshot().token
    forget(client, clock)
    again = Client(lake_uri, snapshot=record.token)
    assert same(contents(again), seen)
    assert again.patients.query().filter(F.birthyear == 1960).collect()["identifier"].to_list() == ["patient/1"]
    assert again.token == record.token == unkept
    with pytest.raises(NotFoundError, match=r"client\.snapshots\.keep"):
        Client(lake_uri, snapshot=lost).patients.query().collect()
    assert Client(lake_uri).verify().findings.is_empty()


def test_without_the_manifest_it_would_be_gone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_of_today()
    aged = open_client(client.uri, clock.patience())
    token = aged.snapshots.keep("paper").token
    forget(aged, clock)
    monkeypatch.setattr("vxdata.lake.kept.find_kept", lambda *_: None)
    with pytest.raises(NotFoundError):
        Client(client.uri, snapshot=token).patients.query().collect()


def test_a_kept_table_has_its_types_and_statistics_so_that_files_are_skipped(client: Client) -> None:
    snapshots = {name: table_of(client, name).listed_snapshot() for name in TOLD}
    client.snapshots.keep("paper")
    for table in (table_of(client, name) for name in TOLD):
        expected = snapshots[table.spec.namespace]
        found = kept.find_kept(table.store, table.spec, expected.version, table._read_closings)
        assert found is not None
        assert found.files.equals(expected.files)
        assert found.files.schema == expected.files.schema
        assert (found.columns, found.table_id) == (expected.columns, expected.table_id)
        assert found.statistics.equals(expected.statistics)


def test_a_table_without_files_can_be_kept(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a"]}))
    table_of(client, "patients").ensure()
    token = client.snapshots.keep("empty").token
    shutil.rmtree(tmp_path / "lake" / "patients" / "_delta_log")
    assert Client(client.uri, snapshot=token).patients.query().count() == 0


def test_the_record_says_who_kept_what_when_and_why(client: Client) -> None:
    first = client.snapshots.keep("paper 2026", reason="submitted")
    second = client.snapshots.keep("review")
    shown = client.snapshots.list()
    assert shown.columns == ["name", "kept_at", "author", "reason", "token"]
    assert shown.rows() == [(r.name, r.kept_at, "a reader", r.reason, r.token) for r in (first, second)]
    assert first.tables["patients"] == table_of(client, "patients").snapshot().version
    assert Client(client.uri).snapshots.list().equals(shown)


# -- names


@pytest.mark.parametrize("name", ["paper 2026", "a/b", "..", ".", "é", "100%", "a#b?c", "x" * 200, "Paper.zip"])
def test_a_name_may_be_any_printable_text(client: Client, name: str) -> None:
    client.snapshots.keep(name)
    assert client.snapshots.list()["name"].to_list() == [name]
    with pytest.raises(AlreadyExistsError, match="kept already"):
        client.snapshots.keep(name)
    client.snapshots.drop(name)
    assert client.snapshots.list().is_empty()


@pytest.mark.parametrize("name", ["", " a", "a\n", "\x00", "é" * 100, None, 7], ids=repr)
def test_other_names_are_refused(client: Client, name: Any) -> None:
    for call in (client.snapshots.keep, client.snapshots.drop):
        with pytest.raises(InvalidInputError, match="name"):
            call(name)


def test_a_name_that_is_not_kept_cannot_be_dropped(client: Client) -> None:
    client.snapshots.keep("paper")
    with pytest.raises(NotFoundError, match="Did you mean 'paper'"):
        client.snapshots.drop("papre")


# -- what is refused


def test_an_older_state_can_be_kept_and_kept_again(client: Client) -> None:
    token, seen = client.snapshot().token, contents(client)
    client.patients.update("patient/3", {"birthyear": 7})
    assert client.snapshots.keep("before", token=token).token == token
    forget(open_client(client.uri, (clock := clock_of_today()).patience()), clock)
    Client(client.uri).snapshots.keep("again", token=token)
    client.snapshots.drop("before")
    assert same(contents(Client(client.uri, snapshot=token)), seen)


def test_the_past_of_a_state_is_kept_as_the_past(client: Client) -> None:
    past = client.as_of("2010-01-01").snapshot()
    record = client.snapshots.keep("past", token=past.token)
    assert contents(Client(client.uri, snapshot=record.token))["patients"]["identifier"].to_list() == ["patient/old"]


def test_a_state_of_which_files_are_gone_cannot_be_kept(client: Client) -> None:
    token = client.snapshot().token
    gone = table_of(client, "patients").snapshot().files["key"][0]
    rewrite(client, "patients")
    Path(client.uri, "patients", str(gone)).unlink()
    before = keys_of(client)
    with pytest.raises(NotFoundError, match="not there any more"):
        Client(client.uri).snapshots.keep("late", token=token)
    assert keys_of(client) == before


def test_files_that_go_while_a_state_is_kept_are_noticed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = Path(client.uri, "patients", str(table_of(client, "patients").snapshot().files["key"][0]))
    monkeypatch.setattr(kept, "doomed_files", lambda store: victim.unlink(missing_ok=True) or set())
    with pytest.raises(NotFoundError, match=r"'late' was not kept.*1 files"):
        client.snapshots.keep("late")
    assert client.snapshots.list().is_empty()


def test_a_lost_answer_is_no_taken_name(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    put_new = LocalStore.put_new

    def put_twice(store: LocalStore, key: str, data: bytes) -> bool:
        return put_new(store, key, data) and put_new(store, key, data)

    monkeypatch.setattr(LocalStore, "put_new", put_twice)
    assert client.snapshots.keep("paper").name == "paper"
    assert client.snapshots.list()["name"].to_list() == ["paper"]


def test_a_client_of_a_fixed_state_may_look_and_changes_nothing(client: Client) -> None:
    client.snapshots.keep("paper")
    fixed = client.snapshot()
    for change in (lambda: fixed.snapshots.keep("other"), lambda: fixed.snapshots.drop("paper")):
        with pytest.raises(InvalidInputError, match="read-only"):
            change()
    assert fixed.snapshots.list()["name"].to_list() == ["paper"]


def foreign(token: str) -> str:
    state = LakeState.from_text(token)
    return LakeState("another", state.versions).to_text()


def with_unknown_table(token: str) -> str:
    state = LakeState.from_text(token)
    return LakeState(state.lake_id, (*state.versions, ("x_rays", 3))).to_text()


@pytest.mark.parametrize(
    ("change", "words"), [(foreign, "another lake"), (with_unknown_table, "x_rays"), (lambda _: "vxs1.x", "token")]
)
def test_tokens_that_name_no_state_of_this_lake_are_refused(
    client: Client, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        client.snapshots.keep("paper", token=change(client.snapshot().token))
    assert client.snapshots.list().is_empty()


def test_where_no_lake_is_nothing_is_kept(tmp_path: Path) -> None:
    snapshots = Client(tmp_path / "none").snapshots
    for call in (snapshots.list, lambda: snapshots.keep("a"), lambda: snapshots.drop("a")):
        with pytest.raises(NotFoundError, match="no lake"):
            call()


def test_a_damaged_manifest_is_an_error_and_never_another_state(client: Client) -> None:
    client.snapshots.keep("paper")
    store, chance = client._session.lake.store, random.Random(7)
    manifest = next(kept.manifests(store))
    whole = (manifest.record(), set(manifest.all_files()))
    refused = 0
    for _ in range(60):
        data = bytearray(manifest.data)
        bit = chance.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        damaged = kept.Manifest(store.uri, manifest.key, bytes(data))
        try:
            assert (damaged.record(), set(damaged.all_files())) == whole
        except StorageError as error:
            assert "paper.zip" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 40


def test_opening_the_newest_state_asks_for_no_more_than_before(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_missing_files", lambda *_: pytest.fail("no file of the newest state is ever gone"))
    token = client.snapshot().token
    fixed = client.snapshot()
    assert fixed.patients.query().count() == 5
    warm = Client(client.uri, snapshot=token)
    warm._session.lake.state()
    assert warm.patients.query().count() == 5
