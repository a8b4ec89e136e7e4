"""Verify: a whole lake has no findings; each kind of damage is found, named, and comes with what to do."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.stepping import Clock
from tests.support.upkeep import (
    SOURCE,
    append,
    clock_of_today,
    contents,
    edit_entry,
    make_older,
    resource,
    rewrite,
    rows_of,
    same,
    table_of,
    tell,
    write_checkpoint,
    write_until_checkpoint,
)
from vxdata.errors import NotFoundError, VxDataError
from vxdata.lake import verify_files, verify_log
from vxdata.lake.archive import archive_commits
from vxdata.lake.checkpoint import CHECKPOINT_COMMITS
from vxdata.lake.datafile import encode_parquet, write_data_files
from vxdata.lake.erasure_record import begin_record
from vxdata.lake.findings import KINDS, MOST_SUBJECTS
from vxdata.lake.intent import Stamp
from vxdata.lake.trim import trim_log
from vxdata.schemas.columns import INSTANT
from vxdata.sdk import Client

MONTHS = timedelta(days=90)
SECOND = pl.duration(seconds=1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a checkpoint, a rewritten table and a kept snapshot, for tests to copy."""
    folder = tmp_path_factory.mktemp("told") / "lake"
    client = tell(folder, clock_of_today())
    write_until_checkpoint(client)
    rewrite(client, "volumes")
    client.snapshots.keep("paper")
    client.volumes.update("volume/1", {"volume_type": "ADC"})
    return folder


@pytest.fixture
def lake(told: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(told, tmp_path / "lake"))


def kinds(lake: Path) -> set[str]:
    return set(Client(lake).verify().findings["kind"])


def data_file(lake: Path, namespace: str = "patients") -> Path:
    """The newest live data file of a table."""
    key = table_of(Client(lake), namespace).listed_snapshot().files["key"][0]
    return lake / namespace / str(key)


# -- a whole lake


def test_a_whole_lake_has_no_findings(lake_uri: str) -> None:
    clock = clock_of_today()
    client = tell(lake_uri, clock)
    assert client.verify().findings.is_empty()
    write_checkpoint(table_of(client, "patients"))
    rewrite(client, "patients")
    client.snapshots.keep("paper")
    clock.turn(MONTHS)
    client.vacuum(dry_run=False)
    steps: list[str] = []
    report = client.verify(progress=steps.append)
    assert report.findings.is_empty()
    assert (report.ok, report.checked["tables"], report.checked["kept_snapshots"]) == (True, 5, 1)
    assert report.checked["rows"] == sum(rows_of(client, name).height for name in ("datasources", "patients")) + 6
    assert "check patients: its rows" in steps


def test_a_client_of_the_past_may_verify_and_sees_the_lake_as_it_is_now(lake: Path) -> None:
    assert Client(lake).snapshot().verify().ok
    data_file(lake).unlink()
    assert not Client(lake).as_of("2020-01-01").verify().ok


def test_where_no_lake_is_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no lake"):
        Client(tmp_path / "none").verify()


def test_writers_beside_it_are_no_findings(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, writer, number = verify_files._check_file, Client(lake), iter(range(1000))

    def check_while_others_write(*args: Any) -> Any:
        n = next(number)
        if n % 5 == 0:
            writer.resources.create(
                [resource(f"imagingstudy/n{n}", f"patient/n{n}"), resource(f"patient/n{n}", SOURCE)]
            )
        elif n % 5 == 3:
            writer.resources.delete(f"patient/n{n - 3}", cascade=True)
        return check(*args)

    monkeypatch.setattr(verify_files, "_READERS", 1)
    monkeypatch.setattr(verify_files, "_check_file", check_while_others_write)
    assert Client(lake).verify().findings.is_empty()
    assert next(number) > 20


@pytest.mark.parametrize("with_children", [True, False])
def test_a_tree_that_moves_beside_it_is_no_finding(lake: Path, with_children: bool) -> None:
    writer, tree = (
        Client(lake),
        [("patient/m", SOURCE), ("imagingstudy/m", "patient/m"), ("volume/m", "imagingstudy/m")],
    )
    writer.resources.create([resource("datasource/other"), *(resource(*one) for one in tree)])

    def move(step: str) -> None:
        if step == "open the tables: patients":
            writer.resources.delete("patient/m", cascade=True)
            writer.resources.create(resource("patient/m", "datasource/other"))
            writer.resources.create([resource(*one) for one in tree[1:] if with_children])

    assert Client(lake).verify(progress=move).findings.is_empty()
    assert writer.patients.retrieve("patient/m").datasource_id == "datasource/other"


# -- damage, by hand


def alter(namespace: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
    """Commit rows that a change makes from what is there."""

    def damage(lake: Path) -> None:
        client = Client(lake)
        append(client, namespace, change(rows_of(client, namespace)))

    return damage


def in_stats(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the statistics of the newest file of volumes in the log."""

    def edit(actions: list[dict[str, Any]]) -> None:
        for action in actions:
            if "add" in action:
                stats = json.loads(action["add"]["stats"])
                change(stats)
                action["add"]["stats"] = json.dumps(stats)

    def damage(lake: Path) -> None:
        newest = table_of(Client(lake), "volumes").listed_snapshot().version
        edit_entry(lake, "volumes", newest, edit)

    return damage


def in_entry(change: Callable[[list[dict[str, Any]]], Any], back: int = 0) -> Callable[[Path], None]:
    """Change a log entry of volumes, the newest or one before."""

    def damage(lake: Path) -> None:
        newest = table_of(Client(lake), "volumes").listed_snapshot().version
        edit_entry(lake, "volumes", newest - back, change)

    return damage


def put_file(change: Callable[[pl.DataFrame], bytes], name: str = "part-1") -> Callable[[Path], None]:
    """Commit a file that another writer made of the rows of the volumes."""

    def damage(lake: Path) -> None:
        client = Client(lake)
        table, rows = table_of(client, "volumes"), rows_of(client, "volumes")
        base = table.listed_snapshot()
        new = rows.tail(1).with_columns(
            pl.lit("volume/new").alias("identifier"), pl.col("valid_from").alias("created_at")
        )
        file = write_data_files(table.store, "volumes", new.with_columns(pl.lit(None, INSTANT).alias("closes")))[0]
        data = change(table.store.get(f"volumes/{file.key}") or b"")  # type: ignore[arg-type]
        key = f"{file.key.rpartition('/')[0]}/{name}.parquet"
        table.store.put(f"volumes/{key}", data)
        changed = type(file)(key, file.datasource_id, len(data), file.statistics, file.modified)
        table.put_commit(base, [changed], (), {})

    return damage


def flip(path: Path, bit: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    bit = len(data) * 4 if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, (times.st_atime, times.st_mtime))


def patients(lake: Path, name: str) -> Path:
    return lake / "patients" / "_delta_log" / name


def checkpoint_version(lake: Path) -> int:
    return int(json.loads(patients(lake, "_last_checkpoint").read_text())["version"])


def lose_a_row_of_the_checkpoint(lake: Path) -> None:
    path = next(lake.glob("patients/_delta_log/*.checkpoint.parquet"))
    table = pq.read_table(path)
    first = table["add"].is_valid().to_pylist().index(True)
    pq.write_table(pa.concat_tables([table[:first], table[first + 1 :]]), path)
    for seal in lake.glob("_vxdata/checkpoints/patients/*"):
        seal.unlink()  # as of a checkpoint that another writer made


def orphan_a_file(lake: Path) -> None:
    folder = next(lake.glob("volumes/datasource_id=*"))
    (folder / "left.parquet").write_bytes(b"x")
    make_older(lake, MONTHS, "volumes/*/left.parquet")


def unsort(data: bytes) -> bytes:
    frame = pl.read_parquet(data)
    return encode_parquet(pl.concat([frame.with_columns(identifier=pl.lit("volume/z")), frame]))


def shift(column: str, **more: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The newest version of patient/1 again, a little later and closed properly, with one column wrong."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        last = rows.filter(pl.col("identifier") == "patient/1").tail(1)
        new = last.with_columns(pl.col("valid_from").alias("closes"), pl.col("valid_from") + SECOND)
        return new.with_columns(**more)

    return change


def of_patient(number: int, **changes: Any) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The newest row of a patient with some columns changed."""
    return lambda rows: rows.filter(pl.col("identifier") == f"patient/{number}").tail(1).with_columns(**changes)


def close_twice(rows: pl.DataFrame) -> pl.DataFrame:
    return (
        rows.filter(pl.col("identifier") == "patient/1", pl.col("closes").is_not_null())
        .head(1)
        .with_columns(pl.col("valid_from") + pl.duration(microseconds=1))
    )


def two_at_once(rows: pl.DataFrame) -> pl.DataFrame:
    last = rows.filter(pl.col("identifier") == "patient/0").tail(1)
    later = (pl.col("valid_from") + SECOND).alias("valid_from")
    return last.with_columns(later, (pl.col("valid_from") + SECOND).alias("created_at"))


def no_parent(rows: pl.DataFrame) -> pl.DataFrame:
    changes = {"identifier": "volume/lost", "parent_identifier": "imagingstudy/none"}
    lost = rows.tail(1).with_columns(*(pl.lit(value).alias(name) for name, value in changes.items()))
    line = pl.concat_list(pl.lit(SOURCE), pl.lit("patient/1"), pl.lit("imagingstudy/none")).alias("ancestors")
    own = [pl.lit("imagingstudy/none").alias("study_id"), pl.col("valid_from").alias("created_at")]
    return lost.with_columns(line, *own, pl.lit(None, INSTANT).alias("closes"))


def archive_then(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(lake: Path) -> None:
        archive_commits(table_of(Client(lake), "volumes"), 1)
        change(next(lake.glob("_vxdata/commits/volumes/*")))

    return damage


def record_of_an_erasure(change: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(lake: Path) -> None:
        opened = Client(lake)._session.lake
        begin_record(opened.store, "patient/1", Stamp("erase", "tester"), opened)
        change(next(lake.glob("_vxdata/erasures/*")))

    return damage


def a_gap_in_the_archive(lake: Path) -> None:
    next(lake.glob("_vxdata/commits/patients/*")).unlink()
    patients(lake, f"{0:020d}.json").unlink()


NULL_STRING = pl.lit(None, pl.String)
DAMAGE: dict[str, Callable[[Path], Any]] = {
    "lake-format-damaged": lambda lake: (lake / "_vxdata" / "lake.json").write_text("{"),
    "log-unreadable": lambda lake: [path.unlink() for path in lake.glob("volumes/_delta_log/*0.json")],
    "log-entry-damaged": in_entry(lambda actions: actions[-1].update(adt=actions[-1].pop("add"))),
    "log-entry-missing": lambda lake: patients(lake, f"{checkpoint_version(lake):020d}.json").unlink(),
    "log-hint-wrong": lambda lake: patients(lake, "_last_checkpoint").unlink(),
    "checkpoint-damaged": lambda lake: next(lake.glob("patients/_delta_log/*.checkpoint.parquet")).write_bytes(b"x"),
    "log-state-differs": lose_a_row_of_the_checkpoint,
    "file-missing": lambda lake: data_file(lake).unlink(),
    "file-damaged": lambda lake: flip(data_file(lake)),
    "file-unreadable": put_file(lambda data: data[:-9]),
    "file-columns": put_file(lambda data: encode_parquet(pl.read_parquet(data).drop("closed_by"))),
    "file-rows": in_stats(lambda stats: stats.update(numRecords=2)),
    "file-statistics": in_stats(lambda stats: stats["maxValues"].update(identifier="volume/0")),
    "file-partition": alter(
        "patients", of_patient(0, identifier=pl.lit("patient/new"), ancestors=pl.concat_list(pl.lit("datasource/b")))
    ),
    "file-unsorted": put_file(unsort),
    "file-without-checksum": put_file(bytes),
    "file-without-statistics": in_entry(lambda actions: actions[-1]["add"].pop("stats")),
    "file-orphaned": orphan_a_file,
    "row-incomplete": alter("patients", of_patient(0, commit_id=NULL_STRING, identifier=pl.lit("patient/new"))),
    "row-double": alter("patients", of_patient(0)),
    "two-current-versions": alter("patients", two_at_once),
    "interval-empty": alter("patients", shift("valid_to", valid_to=pl.col("valid_from") - SECOND)),
    "interval-overlap": alter("patients", two_at_once),
    "closed-twice": alter("patients", close_twice),
    "closing-without-version": alter(
        "patients", shift("closes", closes=pl.col("closes") + pl.duration(microseconds=7))
    ),
    "created-at-wrong": alter("patients", shift("created_at", created_at=pl.col("created_at") + SECOND)),
    "lineage-wrong": alter("patients", shift("patient_id", patient_id=pl.lit("patient/2"))),
    "orphaned-resource": alter("volumes", no_parent),
    "table-unregistered": lambda lake: shutil.copytree(lake / "patients", lake / "x_rays"),
    "kept-snapshot-damaged": lambda lake: flip(next(lake.glob("_vxdata/snapshots/*"))),
    "kept-snapshot-incomplete": lambda lake: data_file(lake).unlink(),
    "archive-gap": a_gap_in_the_archive,
    "archive-damaged": archive_then(lambda path: path.write_text(path.read_text()[:-9])),
    "erasure-record-damaged": record_of_an_erasure(lambda path: path.write_text("{")),
    "erasure-not-done": record_of_an_erasure(lambda path: None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_damage_is_found_and_comes_with_a_remedy(lake: Path, kind: str) -> None:
    DAMAGE[kind](lake)
    report = Client(lake).verify()
    found = report.findings.filter(report.findings["kind"] == kind)
    assert found.height, report.findings
    severity, remedy = KINDS[kind]
    assert found.select("severity", "remedy").unique().rows() == [(severity, remedy)]
    assert found["detail"].str.len_chars().min() > 5
    assert report.ok == (not (report.findings["severity"] == "error").any())


def test_one_bad_file_does_not_stop_the_rest(lake: Path) -> None:
    flip(data_file(lake, "datasources"))
    data_file(lake, "patients").unlink()
    DAMAGE["orphaned-resource"](lake)
    report = Client(lake).verify()
    assert set(report.findings["kind"]) >= {"file-damaged", "file-missing", "orphaned-resource"}
    rows = report.findings.filter(pl.col("kind") == "orphaned-resource")
    assert rows.filter(pl.col("subject").str.starts_with("patient/"))["severity"].unique().to_list() == ["warning"]


def test_of_many_subjects_the_first_are_named_and_the_rest_counted(lake: Path) -> None:
    rows = rows_of(Client(lake), "volumes")
    many = pl.DataFrame({"identifier": [f"volume/lost{n}" for n in range(MOST_SUBJECTS + 5)]})
    lost = no_parent(rows).drop("identifier").join(many, how="cross").select(rows.columns)
    append(Client(lake), "volumes", lost)
    findings = Client(lake).verify().findings
    assert findings.filter(pl.col("kind") == "orphaned-resource").height == MOST_SUBJECTS + 1
    assert "and 5 more" in findings["subject"].to_list()


def test_the_findings_come_with_the_worst_first(lake: Path) -> None:
    for kind in ("file-orphaned", "log-hint-wrong", "file-missing"):
        DAMAGE[kind](lake)
    severities = Client(lake).verify().findings["severity"].to_list()
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert len(set(severities)) == 3


# -- damage, by chance


def test_a_flipped_bit_in_a_data_file_is_always_reported(lake: Path) -> None:
    chance, table = random.Random(4), table_of(Client(lake), "patients").listed_snapshot()
    for _ in range(40):
        row = table.files[chance.randrange(table.files.height)]
        path = lake / "patients" / str(row["key"].item())
        flip(path, chance.randrange(path.stat().st_size * 8))
        assert [f.kind for f in verify_files._check_file(table, row, path.stat().st_size)] == ["file-damaged"]


FLIPS = {"*.json": 10, "*.checkpoint.parquet": 8, "_last_checkpoint": 2}


@pytest.mark.slow  # test_damage has a short form
@pytest.mark.parametrize("what", FLIPS)
def test_a_flipped_bit_in_the_log_is_reported_or_harmless(lake: Path, what: str) -> None:
    chance, clean = random.Random(what), contents(Client(lake))
    files = sorted(lake.glob(f"patients/_delta_log/{what}"))
    reported = 0
    for _ in range(FLIPS[what]):
        path = chance.choice(files)
        bit = chance.randrange(path.stat().st_size * 8)
        flip(path, bit)
        if Client(lake).verify().findings.is_empty():
            assert same(contents(Client(lake)), clean), (path, bit)
        else:
            reported += 1
        flip(path, bit)
    assert reported


# -- each rule counts


def test_without_checksums_a_flipped_bit_would_pass(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_files, "read_checked", lambda store, key: store.get(key))
    path = data_file(lake)
    flip(path, 0)  # the magic bytes at the start, which nobody reads
    assert "file-damaged" not in kinds(lake)


def test_without_the_comparison_a_lost_row_of_a_checkpoint_would_pass(lake: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(verify_log, "_check_checkpoint", lambda reader: iter(()))
    lose_a_row_of_the_checkpoint(lake)
    assert "log-state-differs" not in kinds(lake)


def test_a_trimmed_lake_is_whole(lake: Path) -> None:
    client, clock = Client(lake), clock_of_today()
    assert trim_log(table_of(client, "patients"), clock.turn(MONTHS)).entries > 5
    assert kinds(lake) == set()
    with pytest.raises(VxDataError):
        table_of(client, "patients").at(3)


def test_the_clock_of_the_check_is_the_clients(lake: Path) -> None:
    from tests.support.stepping import open_client

    clock: Clock = clock_of_today()
    clock.turn(MONTHS)
    rewrite(Client(lake), "datasources")
    assert set(open_client(str(lake), clock.patience()).verify().findings["kind"]) == {"file-orphaned"}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b"])
def test_line_breaks_of_other_kinds_in_texts_damage_nothing(tmp_path: Path, mark: str) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/d"]}))
    frame = pl.DataFrame({"identifier": ["patient/1"], "parent_identifier": ["datasource/d"], "sex": [f"a{mark}b"]})
    client.patients.upsert(frame, reason=f"one{mark}two")
    for n in range(CHECKPOINT_COMMITS):  # archived, and read back after a lost race
        client.patients.update("patient/1", {"birthyear": n})
    assert client.verify().ok
    assert client.commits.list()["reason"].drop_nulls().to_list() == [f"one{mark}two"]
    assert client.erase("patient/1", reason="withdrawn").tables["resources"].sum() == 1
