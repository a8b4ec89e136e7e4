"""Trimming takes old log entries that a checkpoint stands for, and no reader or writer notices."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BUCKETS_IN_LONG_RUNS
from tests.support.stepping import Clock
from tests.support.upkeep import (
    ANY_OF_PATIENTS,
    clock_of_today,
    contents,
    interrupting,
    make_older,
    same,
    table_of,
    tell,
    write_checkpoint,
    write_until_checkpoint,
)
from vxdata.errors import InvalidInputError, NotFoundError, StorageError
from vxdata.lake import table, trim
from vxdata.lake.archive import archived_commits
from vxdata.lake.checkpoints import list_log, to_log_files
from vxdata.lake.local_store import LocalStore
from vxdata.lake.store import StoredObject
from vxdata.lake.trim import plan_trimming, trim_log
from vxdata.sdk import Client

DAY = timedelta(days=1)
MONTHS = timedelta(days=90)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return clock_of_today()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose patients have two checkpoints and a tail."""
    folder = tmp_path_factory.mktemp("told") / "lake"
    client = tell(folder, clock_of_today())
    write_until_checkpoint(client, 35 - table_of(client, "patients").snapshot().version)
    return folder


@pytest.fixture
def lake(told: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(told, tmp_path / "lake"))


def log_of(lake: str | Path) -> tuple[list[int], list[int]]:
    """The versions of the entries and of the checkpoints of the patients' log."""
    client = Client(lake)
    log = list_log(client._session.lake.store, "patients")
    return sorted(log.entries), sorted(log.checkpoints)


def trimmed(lake: Path, days: int = 90) -> trim.TrimReport:
    return trim_log(table_of(Client(lake), "patients"), datetime.now(UTC) + days * DAY)


def test_a_clock_that_is_ahead_of_the_stores_stops_it(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalStore.put

    def put_in_the_past(store: LocalStore, key: str, data: bytes) -> None:
        put(store, key, data)
        make_older(lake, timedelta(hours=2), key)

    monkeypatch.setattr(LocalStore, "put", put_in_the_past)
    before = log_of(lake)
    with pytest.raises(StorageError, match="Set the clock"):
        trimmed(lake)
    assert log_of(lake) == before
    monkeypatch.undo()
    assert trimmed(lake).entries


# -- what goes


@BUCKETS_IN_LONG_RUNS
def test_a_trimmed_table_opens_cold_at_its_checkpoint_and_for_writers(lake_uri: str, clock: Clock) -> None:
    client = tell(lake_uri, clock)
    checkpoint = write_checkpoint(table_of(client, "patients"))
    write_until_checkpoint(client, 2)
    seen = contents(Client(lake_uri))
    report = trim_log(table_of(client, "patients"), clock.turn(MONTHS))
    assert (report.entries, report.checkpoint) == (checkpoint, checkpoint)
    assert log_of(lake_uri)[0][0] == checkpoint
    assert same(contents(Client(lake_uri)), seen)
    assert table_of(Client(lake_uri), "patients").at(checkpoint).version == checkpoint
    with pytest.raises(NotFoundError, match="keep"):
        table_of(Client(lake_uri), "patients").at(checkpoint - 1)
    for writer in (client, Client(lake_uri)):
        write_until_checkpoint(writer, 2)
    assert [record["version"] for record in archived_commits(table_of(client, "patients"))][:3] == [0, 1, 2]
    assert Client(lake_uri).verify().findings.is_empty()


def test_only_the_newest_old_checkpoint_and_what_follows_stays(lake: Path) -> None:
    entries, checkpoints = log_of(lake)
    assert trimmed(lake).checkpoint == checkpoints[-1]
    assert log_of(lake) == ([v for v in entries if v >= checkpoints[-1]], checkpoints[-1:])
    assert [int(seal.stem) for seal in (lake / "_vxdata/checkpoints/patients").iterdir()] == checkpoints[-1:]
    assert trimmed(lake).entries == 0


def test_a_young_checkpoint_stands_for_nothing(lake: Path) -> None:
    entries, checkpoints = log_of(lake)
    make_older(lake, -45 * DAY, *(f"patients/_delta_log/{v:020d}.*" for v in entries if v >= checkpoints[-1]))
    assert trimmed(lake, days=60).checkpoint == checkpoints[-2]
    assert log_of(lake)[0][0] == checkpoints[-2]


@pytest.mark.parametrize("days", [0, 29])
def test_nothing_younger_than_30_days_goes(lake: Path, days: int) -> None:
    before = log_of(lake)
    assert trimmed(lake, days) == trim.TrimReport(0, None)
    assert log_of(lake) == before
    with pytest.raises(InvalidInputError, match="keep_log_days=29"):
        trim_log(table_of(Client(lake), "patients"), datetime.now(UTC), keep_days=29)


def test_a_table_without_a_checkpoint_is_left_alone(lake: Path) -> None:
    volumes = table_of(Client(lake), "volumes")
    assert trim_log(volumes, datetime.now(UTC) + MONTHS) == trim.TrimReport(0, None)
    assert volumes.at(0).version == 0


def test_a_checkpoint_that_readers_do_not_know_of_stands_for_nothing(lake: Path) -> None:
    (lake / "patients/_delta_log/_last_checkpoint").unlink()
    assert trimmed(lake) == trim.TrimReport(0, None)


# -- what stops it


def test_a_gap_in_the_archive_stops_it(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log_of(lake)
    next(iter(sorted((lake / "_vxdata/commits/patients").iterdir()))).unlink()
    with pytest.raises(StorageError, match="archive of commits lacks version 0"):
        trimmed(lake)
    assert log_of(lake) == before
    monkeypatch.setattr(trim, "unarchived", lambda *_: [])  # else who wrote what would be lost
    trimmed(lake)
    assert "archive-gap" in set(Client(lake).verify().findings["kind"])


def test_a_checkpoint_that_cannot_be_read_stops_it(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, newest = log_of(lake), log_of(lake)[1][-1]
    (lake / f"patients/_delta_log/{newest:020d}.checkpoint.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StorageError, match=f"{newest:020d}.checkpoint.parquet is damaged"):
        trimmed(lake)
    assert log_of(lake) == before
    shutil.rmtree(lake / "_vxdata" / "checkpoints")  # as of a checkpoint that another writer made
    with pytest.raises(StorageError, match=f"version {newest} cannot be read"):
        trimmed(lake)
    assert log_of(lake) == before
    monkeypatch.setattr(trim, "_open_at", lambda *_: None)  # else the table would be lost
    trimmed(lake)
    assert not Client(lake).verify().ok


# -- who is at work


def test_a_kill_at_any_call_leaves_a_table_that_opens_and_can_be_trimmed(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    seen, deletes, template = contents(Client(lake)), 0, lake.with_name("template")
    lake.rename(template)
    for number in (8, 20, 34):
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(template, lake)
        with pytest.raises(Killed), interrupting(monkeypatch, number, kill, ANY_OF_PATIENTS) as calls:
            trimmed(lake)
        deletes += calls.count("delete")
        assert same(contents(Client(lake)), seen)
        trimmed(lake)
        assert log_of(lake)[1] == log_of(template)[1][-1:]
        assert same(contents(Client(lake)), seen)
    assert deletes > 10


@pytest.fixture
def stale(lake: Path) -> Client:
    """A client that looked long ago; since then others wrote, and what it would ask for next was trimmed."""
    entries = log_of(lake)[0]
    later = [path for v in entries if v > 5 for path in lake.glob(f"patients/_delta_log/{v:020d}.*")]
    away = [path.rename(lake.parent / path.name) for path in later]
    hint = (lake / "patients/_delta_log/_last_checkpoint").rename(lake.parent / "_last_checkpoint")
    client = Client(lake)
    assert table_of(client, "patients").snapshot().version == 5
    for path in (*away, hint):
        path.rename(lake / "patients/_delta_log" / path.name)
    trimmed(lake)
    return client


@pytest.mark.parametrize("clock", [0, 1], ids=["by the clock that cannot be set", "by the clock that never sleeps"])
def test_a_client_that_looked_long_ago_sees_the_newest_state_and_writes_on_it(
    stale: Client, clock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = [0.0, 0.0]
    ages[clock] = table.LISTING_LIFE_SECONDS + 1
    now = table._clocks()
    monkeypatch.setattr(table, "_clocks", lambda: (now[0] + ages[0], now[1] + ages[1]))
    newest = table_of(Client(stale.uri), "patients").snapshot().version
    assert table_of(stale, "patients").snapshot().version == newest
    stale.patients.update("patient/1", {"birthyear": 1971})
    assert Client(stale.uri).patients.retrieve("patient/1").payload.birthyear == 1971


def test_without_the_listing_a_stale_client_would_read_an_old_state(
    stale: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "LISTING_LIFE_SECONDS", 1e12)
    assert table_of(stale, "patients").snapshot().version == 5
    stale.patients.update("patient/1", {"birthyear": 1971})  # a write is safe all the same: its base is not there
    assert Client(stale.uri).patients.retrieve("patient/1").payload.birthyear == 1971


def test_a_client_that_was_there_all_the_time_goes_on(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, seen = Client(lake), contents(Client(lake))
    assert same(contents(client), seen)
    trimmed(lake)
    assert same(contents(client), seen)
    write_until_checkpoint(client, 2)
    assert same(contents(client), contents(Client(lake)))


# -- kinds of checkpoints


def objects(*names: str) -> list[StoredObject]:
    return [StoredObject(f"patients/_delta_log/{name}", 1, NOW - 60 * DAY) for name in names]


UUID = "80a083e8-7026-4e79-81be-64bd76c43a11"
PARTS = [f"{7:020d}.checkpoint.{n:010d}.{3:010d}.parquet" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        ([f"{7:020d}.checkpoint.parquet"], [7]),
        ([f"{7:020d}.checkpoint.{UUID}.parquet"], [7]),
        ([f"{7:020d}.checkpoint.{UUID}.json"], [7]),
        (PARTS, [7]),
        (PARTS[:2], []),
        ([f"{7:020d}.checkpoint.parquet#1", f"{7:020d}.checkpoint", "x.checkpoint.parquet", "_last_checkpoint"], []),
    ],
    ids=["classic", "uuid parquet", "uuid json", "parts", "parts without the last", "none"],
)
def test_checkpoints_of_every_kind_are_known_if_they_are_whole(names: list[str], whole: list[int]) -> None:
    assert sorted(to_log_files(objects(*names)).checkpoints) == whole


def test_all_files_of_older_versions_go_and_nothing_else() -> None:
    entries = [f"{v:020d}.json" for v in range(9)]
    old = [PARTS[0].replace(f"{7:020d}", f"{3:020d}"), f"{4:020d}.crc", f"{1:020d}.{3:020d}.compacted.json"]
    kept_files = [
        *PARTS,
        f"{5:020d}.{8:020d}.compacted.json",
        f"{8:020d}.crc",
        "_last_checkpoint",
        "_sidecars/x.parquet",
    ]
    log = to_log_files(objects(*entries, *old, *kept_files))
    planned = plan_trimming(log, 7, NOW)
    assert planned.entries == tuple(range(7))
    assert {key.rpartition("/")[2] for key in planned.keys} == {*entries[:7], *old}


def test_a_young_entry_ends_what_goes() -> None:
    young = StoredObject(f"patients/_delta_log/{3:020d}.json", 1, NOW)
    log = to_log_files([*objects(*(f"{v:020d}.json" for v in (0, 1, 2, 4, 5)), *PARTS), young])
    assert plan_trimming(log, 7, NOW - 30 * DAY).entries == (0, 1, 2)


def test_a_log_is_deleted_from_its_beginning(lake: Path, monkeypatch: Any) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(LocalStore, "delete", lambda store, key: deleted.append(key))
    trimmed(lake)
    versions = [key.rpartition("/")[2][:20] for key in deleted if "/_delta_log/" in key]
    assert versions == sorted(versions)
    assert len(versions) > 20
