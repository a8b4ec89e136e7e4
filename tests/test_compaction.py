"""Compaction changes no answer and leaves what current reads need: folded files, whatever others do meanwhile.

Source: design of record, section 5 (compaction folds; one commit primitive, step c).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.schema import Field, PrimitiveType

from tests.support import stepping
from tests.support.broken import RULES
from tests.support.stepping import Clock, Puts, Step, Writer, lost_answer, open_client
from vxdata.catalog.table import table_spec
from vxdata.errors import InvalidInputError, NotFoundError, StorageError
from vxdata.lake.compact import NO_CLOSINGS, rewrite_chosen
from vxdata.lake.datafile import checked_files
from vxdata.lake.fold import Chosen, _columns_without_values
from vxdata.lake.foldable import CLOSED, CURRENT, TAIL, FoldPolicy, file_facts
from vxdata.lake.log_checksum import CHECKSUM_KEY
from vxdata.lake.snapshot import Snapshot
from vxdata.schemas import Resource
from vxdata.schemas.payload import PatientPayload
from vxdata.sdk import Client, F

D, E = "datasource/d", "datasource/e=1 #"
SMALL = FoldPolicy(file_rows=4)
Answers = list[pl.DataFrame]


def patients(numbers: range, datasource: str = D, **fields: Any) -> pl.DataFrame:
    names = [f"patient/{n:03}" for n in numbers]
    return pl.DataFrame({"identifier": names, "parent_identifier": datasource, **fields})


def fill(client: Client) -> None:
    """Twenty patients in two datasources: some changed once or often, some deleted, one made again."""
    client.datasources.upsert(pl.DataFrame({"identifier": [D, E]}))
    client.patients.upsert(patients(range(16), birthyear=1950))
    client.patients.upsert(patients(range(16, 20), E))
    for year in range(1960, 1964):
        client.patients.update("patient/003", {"birthyear": year})
    client.patients.upsert(patients(range(8, 12), birthyear=1970))
    client.patients.delete("patient/005")
    client.patients.delete("patient/006")
    client.patients.create(Resource(identifier="patient/006", parent_identifier=E, payload={"sex": "M"}))


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = Client(tmp_path / "lake")
    fill(client)
    return client


def instants(client: Client) -> list[datetime]:
    return client.patients.query().versions().collect()["valid_from"].unique().sort().to_list()


def answers(client: Client, at: list[datetime]) -> Answers:
    """All that a client can ask of the patients."""
    query = client.patients.query()
    asked = [query, query.versions(), *(query.as_of(instant) for instant in at)]
    return [query.sort("identifier", "valid_from").collect() for query in asked]


def snapshot_of(client: Client) -> Snapshot:
    return client._session.lake.snapshot(table_spec(PatientPayload))


def facts(client: Client) -> pl.DataFrame:
    return file_facts(snapshot_of(client))


def test_no_answer_changes(lake_uri: str) -> None:
    client = Client(lake_uri)
    fill(client)
    at, token = instants(client), client.snapshot().token
    before = answers(client, at)
    client.compact(policy=SMALL)
    for reader in (client, Client(lake_uri), Client(lake_uri, snapshot=token)):
        for one, other in zip(before, answers(reader, at), strict=True):
            assert one.equals(other)


def test_it_tells_what_it_did(client: Client) -> None:
    report = client.compact("patients", reason="tidy")
    (row,) = report.rounds.filter(pl.col("datasource_id") == D).to_dicts()
    # 16 + 4 updates + 4 + 2 tombstones went in; the tombstones went out
    assert (row["namespace"], row["rows"], row["folded"], row["files_after"]) == ("patients", 26, 10, 2)
    assert report.commit_id is not None
    assert report.is_changed


def test_afterwards_valid_to_alone_tells_what_is_current(client: Client) -> None:
    client.compact()
    paths = [f"{client.uri}/patients/{key}" for key in DeltaTable(f"{client.uri}/patients").file_uris()]
    rows = duckdb.read_parquet([path.split("/patients/", 1)[1] for path in paths])  # noqa: F841  # used in the SQL
    current = duckdb.sql("SELECT identifier FROM rows WHERE valid_to IS NULL ORDER BY identifier").pl()
    assert current["identifier"].to_list() == sorted(client.patients.query().collect()["identifier"])
    assert duckdb.sql("SELECT count(*) FROM rows WHERE closes IS NOT NULL OR is_deleted").fetchall() == [(0,)]


def test_ends_name_the_commit_that_made_them(client: Client) -> None:
    deleted = client.patients.delete("patient/007").commit_id
    client.compact()
    rows = snapshot_of(client).history_of(["patient/003", "patient/007"]).sort("identifier", "valid_from")
    assert rows["closed_by"].to_list() == [*rows["commit_id"][1:5], None, deleted]


def test_a_current_read_opens_no_closed_version_and_needs_no_closings(client: Client) -> None:
    client.compact(policy=SMALL)
    assert set(facts(client)["kind"]) == {CURRENT, CLOSED}
    assert snapshot_of(client).closings is None
    explained = client.patients.query().explain()
    current = facts(client).filter(pl.col("kind") == CURRENT)
    assert f"{current.height} of {facts(client).height} are read" in explained
    assert "none needed" in explained


@pytest.mark.parametrize("policy", [FoldPolicy(), SMALL, replace(SMALL, memory_rows=4, most_small=1, most_layers=1)])
def test_a_second_run_finds_nothing_to_do(client: Client, policy: FoldPolicy) -> None:
    client.compact(policy=policy)
    version = snapshot_of(client).version
    again = client.compact(policy=policy)
    assert not again.is_changed
    assert again.rounds.is_empty()
    assert (snapshot_of(client).version, again.commit_id) == (version, None)


def test_only_the_files_that_are_needed_are_rewritten(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    for start in range(0, 40, 4):
        client.patients.upsert(patients(range(start, start + 4)))
    client.compact(policy=SMALL)
    before = facts(client)
    client.patients.update("patient/013", {"birthyear": 1950})
    client.patients.upsert(patients(range(100, 101)))
    client.compact(policy=SMALL)
    gone = before.filter(~pl.col("key").is_in(facts(client)["key"].implode()))
    assert gone.select("low", "high").rows() == [("patient/012", "patient/015")]
    assert set(facts(client)["kind"]) == {CURRENT, CLOSED}


def test_new_files_do_not_reach_over_those_that_stay(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    client.patients.upsert(patients(range(4)))
    client.patients.upsert(patients(range(4, 8)))
    client.patients.upsert(patients(range(8, 12)))
    client.patients.upsert(patients(range(0, 12, 8), birthyear=1950))
    client.compact(policy=SMALL)
    current = facts(client).filter(pl.col("kind") == CURRENT).sort("low")
    assert current.select("low", "high").rows() == [
        ("patient/000", "patient/003"), ("patient/004", "patient/007"), ("patient/008", "patient/011"),
    ]  # fmt: skip


def test_many_small_files_become_one(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    for n in range(6):
        client.patients.upsert(patients(range(n, n + 1)))
    client.compact("patients")
    assert facts(client)["rows"].to_list() == [6]


def test_memory_is_bounded_by_rounds(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    client.patients.upsert(patients(range(30)))
    for year in range(3):
        client.patients.upsert(patients(range(30), birthyear=1950 + year))
    before = answers(client, instants(client))
    report = client.compact("patients", policy=FoldPolicy(file_rows=1000, memory_rows=30))
    assert report.rounds.height > 1
    assert set(facts(client)["kind"]) == {CURRENT, CLOSED}
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))


def test_only_the_partitions_that_are_asked_for(client: Client) -> None:
    client.patients.update("patient/017", {"birthyear": 1950})
    client.compact("patients", datasources=[E])
    kinds = facts(client).group_by("datasource_id").agg(pl.col("kind") == TAIL)
    assert {name: any(tail) for name, tail in kinds.iter_rows()} == {D: True, E: False}


def test_columns_unknown_to_this_sdk_survive(client: Client) -> None:
    table = DeltaTable(f"{client.uri}/patients")
    table.alter.add_columns(Field("note", PrimitiveType("string")))
    client.patients.update("patient/001", {"birthyear": 1999})
    client.compact()
    assert pl.read_delta(f"{client.uri}/patients").filter(pl.col("note").is_null()).height == 30
    assert client.patients.retrieve("patient/001").payload.birthyear == 1999


# What a table holds that no writer of ours leaves: a closing that names nothing.


def test_a_closing_whose_version_is_gone_is_dropped_once_all_files_that_may_hold_it_were_read(client: Client) -> None:
    erase_by_hand(client, "patient/005", keep="is_deleted")
    assert client.compact("patients", policy=SMALL).is_changed
    assert facts(client).filter(pl.col("kind") == TAIL).is_empty()
    assert not client.compact("patients", policy=SMALL).is_changed


def erase_by_hand(client: Client, identifier: str, keep: str) -> None:
    """Take the rows of a resource out of the files that hold them, but for those of a kind."""
    from vxdata.lake.commit import rewrite
    from vxdata.lake.datafile import write_data_files
    from vxdata.lake.intent import Rewrite, Stamp

    def rewriter(base: Snapshot) -> Rewrite:
        rows = base.rows.collect().filter((pl.col("identifier") != identifier) | pl.col(keep))
        return Rewrite(write_data_files(base.store, "patients", rows), base.files, {})

    lake = client._session.lake
    rewrite(lake.table(table_spec(PatientPayload)), rewriter, Stamp("test", "tester"), lake.patience)


@pytest.mark.parametrize("wrong", [("minValues", "identifier", "patient/012"), ("minValues", "valid_from", "2099")])
def test_a_closing_is_not_taken_for_done_because_the_log_is_wrong_about_its_versions_file(
    client: Client, wrong: tuple[str, str, str]
) -> None:
    before, at = answers(client, instants(client)), instants(client)
    entry = Path(client.uri, "patients", "_delta_log", f"{1:020}.json")  # the first sixteen patients
    sound = entry.read_text()
    lines = [json.loads(line) for line in sound.splitlines()]
    (add,) = (line["add"] for line in lines if "add" in line)
    bounds, name, text = wrong
    stats = json.loads(add["stats"])
    stats[bounds][name] = text if name == "identifier" else "2099-01-01T00:00:00.000Z"
    add["stats"] = json.dumps(stats)
    told = "\n".join(map(json.dumps, lines)).replace(CHECKSUM_KEY, "of_another_writer")
    entry.write_text(told)
    with pytest.raises(StorageError, match=r"wrong about the file that holds 'patient/00\d'.*vxdata verify"):
        Client(client.uri).compact("patients")
    entry.write_text(sound)
    assert all(a.equals(b) for a, b in zip(before, answers(Client(client.uri), at), strict=True))


def test_a_policy_that_no_files_satisfy_ends(client: Client) -> None:
    before, at, rounds = answers(client, instants(client)), instants(client), 0

    def count(_: Any) -> None:
        nonlocal rounds
        rounds += 1
        assert rounds < 10, "it goes round in circles"

    client.compact(policy=replace(SMALL, most_small=0), progress=count)
    assert all(a.equals(b) for a, b in zip(before, answers(client, at), strict=True))


def test_versions_of_one_resource_may_go_on_in_the_next_file(tmp_path: Path) -> None:
    client, policy = Client(tmp_path / "lake"), FoldPolicy(file_rows=2, most_small=1, most_layers=1, memory_rows=2)
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    for year in range(1950, 1958):
        client.patients.upsert(patients(range(1, 2), birthyear=year))
    client.patients.upsert(patients(range(3), birthyear=1960))
    client.patients.upsert(patients(range(3), birthyear=1970))
    assert client.compact("patients", policy=policy).is_changed
    closed = facts(client).filter(pl.col("kind") == CLOSED)
    assert closed.filter(pl.col("high") == "patient/001").height > 2, "they lie in several files"
    assert not client.compact("patients", policy=policy).is_changed


# Beside others


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> Puts:
    return stepping.install(monkeypatch)


@pytest.fixture
def begun(client: Client, puts: Puts) -> Callable[[Step], Writer]:
    """Start a compaction of the patients of a client of its own, and stop it at a step."""
    other = open_client(client.uri, Clock().patience(deadline_seconds=2))
    return lambda step: Writer(lambda: other.compact("patients")).run_to(step)


def test_what_is_written_meanwhile_still_closes_what_was_folded(client: Client, begun: Callable[..., Writer]) -> None:
    compaction = begun(Step.WRITTEN)
    client.patients.update("patient/003", {"birthyear": 2000})
    client.patients.delete("patient/001")
    before = answers(client, instants(client))
    compaction.finish()
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))
    assert facts(client).filter(pl.col("kind") == TAIL).height == 0, "the second round folds what came meanwhile"


def test_a_writer_whose_base_was_compacted_goes_on_with_its_files(client: Client, puts: Puts) -> None:
    other = open_client(client.uri)
    writer = Writer(lambda: other.patients.update("patient/003", {"birthyear": 2000})).run_to(Step.WRITTEN)
    client.compact()
    writer.finish()
    assert writer.stops.count(Step.WRITTEN) == 1
    assert [v.payload.birthyear for v in client.patients.history("patient/003")][-2:] == [1963, 2000]


def test_of_two_compactions_one_drops_its_work(client: Client, begun: Callable[..., Writer]) -> None:
    before, compaction = answers(client, instants(client)), begun(Step.WRITTEN)
    client.compact("patients")
    assert compaction.finish().rounds.is_empty()
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))


def test_without_the_rule_two_compactions_double_rows(
    client: Client, begun: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    RULES["live files"](monkeypatch)
    compaction = begun(Step.WRITTEN)
    client.compact("patients")
    compaction.finish()
    assert client.patients.query().collect()["identifier"].is_duplicated().any()


def test_a_compaction_whose_answer_is_lost_is_done_once(client: Client, puts: Puts) -> None:
    before = answers(client, instants(client))
    puts.strike(lost_answer)
    client.compact("patients", datasources=[D])
    assert puts.entries == 1
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))


@pytest.mark.parametrize("step", [Step.PLANNED, Step.WRITTEN])
def test_a_compaction_that_is_killed_changes_nothing_and_the_next_one_does_it(
    client: Client, begun: Callable[..., Writer], step: Step
) -> None:
    before, version = answers(client, instants(client)), snapshot_of(client).version
    begun(step).kill()
    assert snapshot_of(client).version == version
    assert client.compact("patients").is_changed
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))


# The rule that a closing stays unless its version takes its end (F2)


def fold_only(client: Client, kind: str) -> None:
    """Rewrite the files of one kind of one partition by themselves."""
    from vxdata.lake.commit import rewrite
    from vxdata.lake.intent import Stamp

    lake = client._session.lake

    def rewriter(base: Snapshot) -> Any:
        mine = file_facts(base).filter(pl.col("datasource_id") == D)
        is_chosen = pl.col("kind") == kind
        chosen = Chosen(mine.filter(is_chosen), mine.filter(~is_chosen), [], NO_CLOSINGS)
        with checked_files(base.store, base.spec.namespace) as checked:
            return rewrite_chosen(base, chosen, checked)

    rewrite(lake.table(table_spec(PatientPayload)), rewriter, Stamp("compact", "tester"), lake.patience)


@pytest.mark.parametrize("kind", [TAIL, CURRENT])
def test_any_files_may_be_rewritten_by_themselves(client: Client, kind: str) -> None:
    before = answers(client, instants(client))
    fold_only(client, kind)
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))
    client.compact()
    assert all(a.equals(b) for a, b in zip(before, answers(client, instants(client)), strict=True))


def test_without_the_rule_dead_versions_come_back(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    RULES["fold"](monkeypatch)
    fold_only(client, TAIL)
    assert client.patients.query().filter(F.identifier == "patient/003").count() == 2


# What is refused


@pytest.mark.parametrize("kind", [TAIL, CURRENT])
def test_a_flipped_bit_in_any_file_is_reported_and_nothing_is_committed(client: Client, kind: str) -> None:
    key = facts(client).filter((pl.col("kind") == kind) & (pl.col("datasource_id") == D))["key"][0]
    path = Path(client.uri, "patients", key)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    version = snapshot_of(client).version
    with pytest.raises(StorageError, match=r"damaged|read patients of"):
        client.compact("patients")
    assert snapshot_of(client).version == version


def test_a_file_that_is_missing_is_reported(client: Client) -> None:
    key = facts(client).filter((pl.col("kind") == CURRENT) & (pl.col("datasource_id") == D))["key"][0]
    Path(client.uri, "patients", key).unlink()
    with pytest.raises(StorageError, match="missing"):
        client.compact("patients")


def test_what_cannot_be_compacted_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"Did you mean 'patients'"):
        client.compact("patient")
    with pytest.raises(InvalidInputError, match="no datasource"):
        client.compact(datasources=["patient/001"])
    with pytest.raises(InvalidInputError, match="read-only"):
        client.snapshot().compact()
    with pytest.raises(NotFoundError, match="no lake"):
        Client(tmp_path / "nothing").compact()


def test_a_damaged_partition_does_not_keep_the_others_from_being_folded(client: Client) -> None:
    client.patients.upsert(patients(range(16, 20), E, birthyear=1950))
    for file in Path(client.uri, "patients").glob("*=datasource%2Fd/*.parquet"):
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    folded: list[str] = []
    with pytest.raises(StorageError, match="damaged"):
        client.compact("patients", policy=SMALL, progress=lambda done: folded.append(done.datasource_id))
    assert folded == [E]


def test_columns_without_values_stay_in_the_files(client: Client) -> None:
    client.compact("patients", policy=SMALL)
    files = [f"{client.uri}/patients/{key}" for key in snapshot_of(client).files["key"]]
    wanted = [name for name in snapshot_of(client).columns if name != "datasource_id"]
    assert all(pq.read_schema(file).names == wanted for file in files)
    assert all(pl.read_parquet(file, hive_partitioning=False)["ethnic_group"].null_count() for file in files)


def test_what_the_log_says_of_a_column_costs_no_value(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    client.patients.upsert(patients(range(4)).with_columns(sex=pl.Series([None, None, None, "F"])))
    entry = Path(client.uri) / "patients" / "_delta_log" / f"{snapshot_of(client).version:020}.json"
    told = entry.read_text().replace(r"\"sex\": 3", r"\"sex\": 4")
    assert told != entry.read_text()
    entry.write_text(told.replace(CHECKSUM_KEY, "of_another_writer"))
    client = Client(client.uri)
    client.patients.upsert(patients(range(1), birthyear=1950))
    assert client.compact("patients", policy=SMALL).is_changed
    assert client.patients.query().filter(F.sex == "F").collect()["identifier"].to_list() == ["patient/003"]


def test_a_column_without_statistics_may_hold_values(client: Client, tmp_path: Path) -> None:
    base, file = snapshot_of(client), tmp_path / "other.parquet"
    rows = base.rows.filter(pl.col("identifier") == "patient/003").collect()
    nothing = rows.clear()
    rows.write_parquet(file)
    assert "birthyear" not in _columns_without_values([file], nothing, base)
    assert "birthyear" in _columns_without_values([], nothing, base)
    assert "sex" in _columns_without_values([file], nothing, base)
    rows.write_parquet(file, statistics=False)
    assert "sex" not in _columns_without_values([file], nothing, base)
