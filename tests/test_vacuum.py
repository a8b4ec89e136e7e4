"""Vacuum: takes what no state needs that can still be asked for, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BUCKETS_IN_LONG_RUNS
from tests.support import stepping
from tests.support.stepping import Clock, Writer, open_client
from tests.support.upkeep import (
    SOURCE,
    clock_of_today,
    contents,
    edit_entry,
    interrupting,
    keys_of,
    make_older,
    resource,
    rewrite,
    same,
    table_of,
    tell,
    write_checkpoint,
)
from vxdata.errors import ConflictError, InvalidInputError, NotFoundError, StorageError, VxDataError
from vxdata.lake import kept, table, vacuum
from vxdata.lake.commit import Step
from vxdata.lake.local_store import LocalStore
from vxdata.lake.store import Store
from vxdata.sdk import Client

DAY = timedelta(days=1)
MONTH = timedelta(days=30)


@pytest.fixture
def clock() -> Clock:
    return clock_of_today()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose patients were rewritten, for tests to copy."""
    folder = tmp_path_factory.mktemp("told") / "lake"
    rewrite(tell(folder, clock_of_today()), "patients")
    return folder


@pytest.fixture
def lake(told: Path, tmp_path: Path) -> Path:
    """The rewritten lake, in which everything is a month old for its store."""
    folder = Path(shutil.copytree(told, tmp_path / "lake"))
    make_older(folder, MONTH)
    return folder


def age_entries(lake: Path, by: timedelta = MONTH) -> None:
    """Make the log's entries older by their writers' clocks too."""

    def age(actions: list[dict[str, Any]]) -> None:
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] -= int(by.total_seconds() * 1000)

    for entry in lake.glob("*/_delta_log/*.json"):
        edit_entry(lake, entry.parts[-3], int(entry.stem), age)


@pytest.fixture
def old_lake(lake: Path) -> Path:
    """The rewritten lake, in which everything is a month old by all clocks."""
    age_entries(lake)
    return lake


def superseded(client: Client) -> set[str]:
    """The files of patients that the newest state does not have."""
    live = {f"patients/{key}" for key in table_of(client, "patients").listed_snapshot().files["key"]}
    return {key for key in keys_of(client) if key.startswith("patients/datasource_id=")} - live


# -- what goes


def test_a_vacuum_takes_what_was_superseded_and_a_dry_run_only_says_so(lake_uri: str, clock: Clock) -> None:
    client = tell(lake_uri, clock)
    rewrite(client, "patients")
    before, seen, dead = keys_of(client), contents(client), superseded(client)
    clock.turn(8 * DAY)
    said = client.vacuum()
    assert keys_of(client) == before
    done = client.vacuum(dry_run=False)
    assert dead == set(said.taken["path"]) == set(done.taken["path"]) == before - keys_of(client)
    assert (said.is_dry_run, said.count, said.bytes) == (True, 6, done.bytes)
    assert same(contents(Client(lake_uri)), seen)
    assert Client(lake_uri).verify().findings.is_empty()


def test_a_vacuum_right_after_takes_nothing(tmp_path: Path, clock: Clock) -> None:
    client = tell(tmp_path / "lake", clock)
    rewrite(client, "patients")
    clock.turn(6 * DAY)
    assert client.vacuum(dry_run=False).files.is_empty()
    clock.turn(2 * DAY)
    assert client.vacuum(dry_run=False).count == 6
    assert client.vacuum(dry_run=False).count == 0


def test_a_report_says_of_each_file_where_it_is_how_big_and_how_old(old_lake: Path) -> None:
    report = Client(old_lake).vacuum()
    assert report.files.columns == ["namespace", "path", "bytes", "modified", "why", "action"]
    row = report.files.row(0, named=True)
    path = old_lake / row["path"]
    assert (row["namespace"], row["bytes"]) == ("patients", path.stat().st_size)
    assert abs(row["modified"] - datetime.fromtimestamp(path.stat().st_mtime, UTC)) < timedelta(milliseconds=1)


def test_left_overs_go_and_what_is_not_ours_is_listed_and_left(old_lake: Path) -> None:
    partition = next(old_lake.glob("patients/datasource_id=*"))
    gone = [
        old_lake / "_vxdata" / "probe-0123",
        old_lake / "_vxdata" / "vacuum" / "dead.txt",
        old_lake / "_vxdata" / f".{'0' * 32}.tmp",
        partition / f".{'1' * 32}.tmp",
        partition / "part-0001.parquet",
        old_lake / "patients" / "_delta_log" / "_commit_5.json.tmp",
        old_lake / "patients" / "_delta_log" / f"{9:020d}.json#1",
        old_lake / "patients" / "_delta_log" / "_last_checkpoint#12",
    ]
    left = [partition / "notes.txt", old_lake / "patients" / "x.parquet", partition / "deeper" / "x.parquet"]
    for path in (*gone, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        make_older(old_lake, 8 * DAY, path.relative_to(old_lake).as_posix())
    report = Client(old_lake).vacuum(dry_run=False)
    assert [path for path in gone if path.exists()] == []
    assert all(path.exists() for path in left)
    listed = report.files.filter(report.files["action"] == "leave")["path"].to_list()
    assert listed == sorted(path.relative_to(old_lake).as_posix() for path in left)


def test_nothing_else_is_ever_touched(old_lake: Path) -> None:
    others = ["blobs/x.parquet", "unknown/datasource_id=a/x.parquet", "_vxdata/commits/x", "_vxdata/other/probe-1"]
    others += ["patients/_delta_log/x.parquet", "biopsies/datasource_id=a/never-made.parquet"]
    for name in others:
        (old_lake / name).parent.mkdir(parents=True, exist_ok=True)
        (old_lake / name).write_text("x")
    make_older(old_lake, MONTH, *others)
    client = Client(old_lake)
    before, dead = keys_of(client), superseded(client)
    client.vacuum(dry_run=False)
    assert before - keys_of(client) == dead


# -- what stays


def test_a_file_that_was_superseded_a_moment_ago_stays_however_old_it_is(old_lake: Path, monkeypatch: Any) -> None:
    rewrite(Client(old_lake), "volumes")
    before = len(list(old_lake.glob("volumes/**/*.parquet")))
    Client(old_lake).vacuum(dry_run=False)
    assert len(list(old_lake.glob("volumes/**/*.parquet"))) == before
    monkeypatch.setattr(vacuum, "recently_removed", lambda *_: set())  # without the walk it would be lost
    Client(old_lake).vacuum(dry_run=False)
    assert len(list(old_lake.glob("volumes/**/*.parquet"))) < before


def test_an_entry_is_as_young_as_the_younger_of_its_two_clocks(lake: Path) -> None:
    dead = superseded(Client(lake))
    assert Client(lake).vacuum().files.is_empty()  # old for the store, young by the writer's clock
    age_entries(lake)
    make_older(lake, -MONTH, "patients/_delta_log/*")
    assert Client(lake).vacuum().files.is_empty()  # young for the store, old by the writer's clock
    make_older(lake, MONTH, "patients/_delta_log/*")
    assert set(Client(lake).vacuum().taken["path"]) == dead


@pytest.mark.parametrize("timestamp", [None, "yesterday", 10**30, -(10**30)])
def test_an_entry_that_does_not_say_when_is_as_old_as_the_store_says(old_lake: Path, timestamp: Any) -> None:
    newest = table_of(Client(old_lake), "patients").listed_snapshot().version
    edit_entry(old_lake, "patients", newest, lambda actions: actions[0]["commitInfo"].update(timestamp=timestamp))
    assert Client(old_lake).vacuum().count == (6 if timestamp is None else 0)


def test_what_a_slow_writer_has_uploaded_stays(tmp_path: Path, clock: Clock, monkeypatch: Any) -> None:
    stepping.install(monkeypatch)
    client = tell(tmp_path / "lake", clock)
    writer = Writer(lambda: client.patients.create(resource("patient/slow", SOURCE))).run_to(Step.WRITTEN)
    later = clock_of_today()
    later.turn(timedelta(hours=23))
    other = open_client(client.uri, later.patience())
    assert other.vacuum(retention=DAY, dry_run=False).files.is_empty()
    assert writer.finish().identifier == "patient/slow"
    assert Client(client.uri).verify().ok
    monkeypatch.setattr(vacuum, "_checked", lambda *_: timedelta(0))  # with no least retention it would be gone
    lost = Writer(lambda: client.patients.create(resource("patient/lost", SOURCE))).run_to(Step.WRITTEN)
    other.vacuum(dry_run=False)
    lost.finish()
    assert not Client(client.uri).verify().ok


@pytest.mark.parametrize(
    "retention", [timedelta(0), timedelta(hours=23, minutes=59), -DAY, 7, "7d", timedelta.max], ids=str
)
def test_a_retention_that_is_too_short_or_none_is_refused(old_lake: Path, retention: Any) -> None:
    before = keys_of(Client(old_lake))
    with pytest.raises(InvalidInputError, match="retention="):
        Client(old_lake).vacuum(retention=retention, dry_run=False)
    assert keys_of(Client(old_lake)) == before


def test_the_least_retention_is_a_day_and_ten_deadlines(old_lake: Path, clock: Clock) -> None:
    with pytest.raises(InvalidInputError, match="the least is 24 hours"):
        Client(old_lake).vacuum(retention=timedelta(hours=1))
    slow = open_client(str(old_lake), clock.patience(deadline_seconds=20_000))
    with pytest.raises(InvalidInputError, match=r"the least is 55\.\d+ hours"):
        slow.vacuum(retention=2 * DAY)
    assert slow.vacuum(retention=3 * DAY).count == 6


def test_a_client_of_a_fixed_state_takes_nothing(old_lake: Path) -> None:
    with pytest.raises(InvalidInputError, match="read-only"):
        Client(old_lake).snapshot().vacuum()


def test_where_no_lake_is_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no lake"):
        Client(tmp_path / "none").vacuum()


# -- when it refuses to work


def test_a_log_with_a_hole_stops_it(old_lake: Path) -> None:
    rewrite(Client(old_lake), "patients")
    newest = table_of(Client(old_lake), "patients").listed_snapshot().version
    write_checkpoint(table_of(Client(old_lake), "patients"))
    (old_lake / f"patients/_delta_log/{newest - 1:020d}.json").unlink()
    before = keys_of(Client(old_lake))
    with pytest.raises(StorageError, match="verify"):
        Client(old_lake).vacuum(dry_run=False)
    assert keys_of(Client(old_lake)) == before


def test_a_clock_that_is_ahead_of_the_stores_stops_it(old_lake: Path, monkeypatch: Any) -> None:
    put = LocalStore.put

    def put_in_the_past(store: LocalStore, key: str, data: bytes) -> None:
        put(store, key, data)
        make_older(old_lake, timedelta(hours=2), key)

    monkeypatch.setattr(LocalStore, "put", put_in_the_past)
    before = keys_of(Client(old_lake))
    with pytest.raises(StorageError, match="clock"):
        Client(old_lake).vacuum(dry_run=False)
    assert keys_of(Client(old_lake)) == before


def test_a_clock_that_is_set_back_while_files_are_judged_stops_it(old_lake: Path, monkeypatch: Any) -> None:
    class Ahead(datetime):
        """Eight days ahead when it is asked first, right from then on."""

        asked = 0

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            cls.asked += 1
            return datetime.now(tz) + (8 * DAY if cls.asked == 1 else timedelta())

    monkeypatch.setattr(vacuum, "datetime", Ahead)
    before = keys_of(Client(old_lake))
    with pytest.raises(StorageError, match="Set the clock"):
        Client(old_lake).vacuum(dry_run=False)
    assert keys_of(Client(old_lake)) == before
    assert Client(old_lake).vacuum(dry_run=False).count


# -- kept snapshots, and who else is at work


@BUCKETS_IN_LONG_RUNS
def test_the_files_of_a_kept_snapshot_stay_until_it_is_dropped(lake_uri: str, clock: Clock) -> None:
    client = tell(lake_uri, clock)
    token = client.snapshots.keep("before").token
    seen = contents(client)
    rewrite(client, "patients")
    clock.turn(8 * DAY)
    assert client.vacuum(dry_run=False).files.is_empty()
    assert same(contents(Client(lake_uri, snapshot=token)), seen)
    client.snapshots.drop("before")
    assert client.vacuum(dry_run=False).count == 6
    with pytest.raises(NotFoundError, match=r"client\.snapshots\.keep"):
        Client(lake_uri, snapshot=token).patients.query().collect()


def test_a_state_of_which_files_are_gone_gives_no_partial_answer(old_lake: Path, monkeypatch: Any) -> None:
    client = Client(old_lake)
    state = client.snapshot()._session.view.state  # type: ignore[attr-defined]
    versions = tuple((name, version - (name == "patients")) for name, version in state.versions)
    token = type(state)(state.lake_id, versions).to_text()
    assert Client(old_lake, snapshot=token).patients.query().count() == 5
    client.vacuum(dry_run=False)
    for read in (lambda c: c.patients.query().limit(1).collect(), lambda c: c.patients.retrieve("patient/0")):
        with pytest.raises(NotFoundError, match=r"6 of its files are gone.*client\.snapshots\.keep"):
            read(Client(old_lake, snapshot=token))
    monkeypatch.setattr(table.Table, "_missing_files", lambda *_: [])  # else: an error that is no NotFoundError
    with pytest.raises(StorageError):
        Client(old_lake, snapshot=token).patients.query().collect()


def test_a_damaged_manifest_stops_it(old_lake: Path) -> None:
    client = Client(old_lake)
    client.snapshots.keep("before")
    manifest = next(old_lake.glob("_vxdata/snapshots/*"))
    manifest.write_bytes(manifest.read_bytes()[:-40])
    before = keys_of(client)
    with pytest.raises(StorageError, match=r"before\.zip"):
        client.vacuum(dry_run=False)
    assert keys_of(client) == before


def old_token(lake: Path) -> str:
    """The token of the state before the patients were rewritten."""
    state = Client(lake).snapshot()._session.view.state  # type: ignore[attr-defined]
    versions = tuple((name, version - (name == "patients")) for name, version in state.versions)
    return str(type(state)(state.lake_id, versions).to_text())


def keep_old(lake: Path, outcome: list[str]) -> None:
    try:
        Client(lake).snapshots.keep("race", token=old_token(lake))
        outcome.append("kept")
    except (NotFoundError, ConflictError) as error:
        outcome.append(type(error).__name__)


def race(lake: Path, run: Callable[[], Any], other: Callable[[], Any], patch: pytest.MonkeyPatch) -> int:
    """Run one thing with another at each of its store calls, each time on a fresh copy; return how often."""
    number, template = 0, lake.with_name("template")
    lake.rename(template)
    while True:
        number += 1
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(template, lake)
        with interrupting(patch, number, other) as calls:
            run()
        if len(calls) < number:
            return number
        check_kept_files(lake)


def check_kept_files(lake: Path) -> None:
    """A kept snapshot has all its files."""
    for manifest in kept.manifests(Client(lake)._session.lake.store):
        assert [key for key in manifest.all_files() if not (lake / key).exists()] == []


@pytest.mark.parametrize("inner", ["keep", "vacuum"])
def test_a_keep_that_races_a_vacuum_never_ends_with_files_missing(
    old_lake: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    outcomes: list[str] = []
    actions = {
        "keep": lambda: keep_old(old_lake, outcomes),
        "vacuum": lambda: Client(old_lake).vacuum(dry_run=False),
    }
    outer = next(name for name in actions if name != inner)
    assert race(old_lake, actions[outer], actions[inner], monkeypatch) > 4
    assert set(outcomes) >= {"kept", "NotFoundError"}
    assert inner == "vacuum" or "ConflictError" in outcomes


def test_without_the_announcement_a_keep_would_lose_the_race(old_lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "doomed_files", lambda store: set())
    vacuuming = lambda: Client(old_lake).vacuum(dry_run=False)  # noqa: E731
    with pytest.raises(AssertionError):
        race(old_lake, vacuuming, lambda: keep_old(old_lake, []), monkeypatch)


def test_two_vacuums_at_once_hinder_each_other_in_nothing(old_lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vacuuming = lambda: Client(old_lake).vacuum(dry_run=False)  # noqa: E731
    race(old_lake, vacuuming, vacuuming, monkeypatch)
    assert Client(old_lake).vacuum().files.is_empty()
    assert Client(old_lake).verify().ok
    assert not list(old_lake.glob("_vxdata/vacuum/*"))


def test_a_vacuum_that_fails_half_way_is_finished_by_the_next(old_lake: Path, monkeypatch: Any) -> None:
    delete, failing = LocalStore.delete, iter([False, False, True])

    def delete_or_fail(store: Store, key: str) -> None:
        if key.startswith("patients/") and next(failing, False):
            raise StorageError("reset", uri=store.uri, operation="delete", retryable=True)
        delete(store, key)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "delete", delete_or_fail)
    with pytest.raises(VxDataError, match="reset"):
        Client(old_lake).vacuum(dry_run=False)
    assert Client(old_lake).vacuum(dry_run=False).count in range(1, 5)
    assert Client(old_lake).verify().findings.is_empty()


def test_the_json_of_a_report_can_be_written(old_lake: Path) -> None:
    from vxdata_cli.upkeep_tables import vacuum_document

    document = json.loads(json.dumps(vacuum_document(Client(old_lake).vacuum())))
    assert (document["dry_run"], document["count"], len(document["files"])) == (True, 6, 6)
    assert all(file["path"].startswith("patients/datasource_id=") for file in document["files"])
