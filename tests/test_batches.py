"""`batch_id`: what is written under an id is written once, also if its job was killed, raced or started again."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support import stepping
from tests.support.broken import RULES
from tests.support.cli import PROSTATE, first_release, run, write_release
from tests.support.stepping import Puts, Step, Writer, lost_answer, open_client
from tests.support.upkeep import write_checkpoint
from vxdata.errors import InvalidInputError
from vxdata.lake.archive import archive_commits
from vxdata.lake.audit import all_records
from vxdata.lake.log import entry_key, read_entry
from vxdata.lake.table import Table
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest

ID = "pacs 2026-07=#1 é"
P = "patient/1"
TOP = pl.DataFrame({"identifier": ["datasource/a"], "name": ["first"]})
PATIENTS = pl.DataFrame({"identifier": [P], "parent_identifier": ["datasource/a"], "birthyear": [1950]})
FRAMES = {"datasources": TOP, "patients": PATIENTS}


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> Puts:
    return stepping.install(monkeypatch)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    client = open_client(str(tmp_path / "lake"))
    client.datasources.upsert(TOP)
    return client


def load(client: Client, **options: Any) -> Any:
    return client.patients.upsert(PATIENTS, batch_id=ID, **options)


def table(client: Client, namespace: str = "patients") -> Table:
    return client._session.lake.table(getattr(client, namespace)._spec)


def year(client: Client) -> int | None:
    return open_client(client.uri).patients.retrieve(P).payload.birthyear


# a batch is a no-op the second time


def test_a_batch_that_was_committed_is_a_no_op_also_after_an_edit(lake_uri: str) -> None:
    client = open_client(lake_uri)
    client.datasources.upsert(TOP)
    first = load(client)
    client.patients.update(P, {"birthyear": 1951})
    again = load(open_client(lake_uri))
    assert (first.created, first.already_committed) == (1, False)
    assert (again.created, again.updated, again.already_committed) == (0, 0, True)
    assert again.commit_id == first.commit_id
    assert year(client) == 1951


def test_without_an_id_the_same_frame_undoes_the_edit(client: Client) -> None:
    client.patients.upsert(PATIENTS)
    client.patients.update(P, {"birthyear": 1951})
    assert client.patients.upsert(PATIENTS).updated == 1


def test_another_id_is_another_batch(client: Client) -> None:
    load(client)
    client.patients.update(P, {"birthyear": 1951})
    assert client.patients.upsert(PATIENTS, batch_id="closings:" + ID).updated == 1


def test_a_batch_that_changed_nothing_is_remembered(client: Client) -> None:
    client.patients.upsert(PATIENTS)
    report = load(client)
    assert (report.unchanged, report.already_committed) == (1, False)
    client.patients.update(P, {"birthyear": 1951})
    assert load(client).already_committed
    assert year(client) == 1951


def test_a_batch_id_survives_checkpoints_and_the_trimming_of_the_log(client: Client) -> None:
    first = load(client)
    patients = table(client)
    for n in range(3):
        client.patients.update(P, {"birthyear": 1960 + n})
    archive_commits(patients, write_checkpoint(patients))
    for version in range(patients.snapshot().version):
        patients.store.delete(entry_key("patients", version))
    again = load(open_client(client.uri))
    assert (again.already_committed, again.commit_id) == (True, first.commit_id)
    assert year(client) == 1962


def test_the_audit_log_names_the_batch(client: Client) -> None:
    load(client)
    entry = read_entry(table(client).store, "patients", 1)
    assert entry is not None
    assert entry.metadata["batch_id"] == ID
    assert entry.app_ids == (f"vxdata.batch:{ID}", f"vxdata.batch.closings:{ID}")


@pytest.mark.parametrize("batch_id", ["", "  ", "a\nb", "x" * 257, 7, b"x"])
def test_what_is_no_batch_id_is_refused_before_anything_is_written(client: Client, batch_id: Any) -> None:
    for write in (client.patients.upsert, lambda *_, **words: ingest(client, FRAMES, **words)):
        with pytest.raises(InvalidInputError, match="batch_id"):
            write(PATIENTS, batch_id=batch_id)
    assert table(client).snapshot().version == -1


def test_a_write_without_batch_id_looks_for_no_transaction(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_read_transaction", lambda *_: pytest.fail("asked"))
    assert client.patients.upsert(PATIENTS).created == 1


# what is missing


def test_what_came_after_the_batch_is_not_closed_by_it(client: Client) -> None:
    ingest(client, FRAMES, missing="delete", batch_id=ID)
    client.datasources.upsert(TOP.with_columns(name=pl.lit("mended")))
    client.patients.upsert(PATIENTS.with_columns(identifier=pl.lit("patient/2")))
    reports = ingest(client, FRAMES, missing="delete", batch_id=ID)
    assert {r.already_committed for r in reports.values()} == {True}
    assert sorted(client.patients.query().collect()["identifier"]) == [P, "patient/2"]
    assert client.datasources.retrieve("datasource/a").payload.name == "mended"


def test_a_batch_that_only_made_things_closes_nothing_when_run_again_with_delete(tmp_path: Path) -> None:
    client = open_client(str(tmp_path / "lake"))
    ingest(client, FRAMES, batch_id=ID)
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/b"]}))
    scope = ["datasource/a", "datasource/b"]
    ingest(client, FRAMES, missing="delete", datasources=scope, batch_id=ID)
    assert client.datasources.query().count() == 2


# kills and lost answers


@pytest.mark.parametrize("stops", [1, 2, 4, 5, 6])
def test_a_batch_is_whole_after_a_kill_at_any_step_and_a_second_run(tmp_path: Path, puts: Puts, stops: int) -> None:
    client = open_client(str(tmp_path / "lake"))
    client.resources.create([Resource(identifier=i) for i in ("datasource/a", "datasource/old")])
    options = {"missing": "delete", "datasources": ["datasource/a", "datasource/old"], "batch_id": ID}
    writer = Writer(lambda: ingest(open_client(client.uri), FRAMES, **options))
    for _ in range(stops):
        writer.step()
    writer.kill()
    ingest(open_client(client.uri), FRAMES, **options)
    ingest(open_client(client.uri), FRAMES, **options)
    assert client.datasources.query().collect()["identifier"].to_list() == ["datasource/a"]
    assert [len(client.resources.history(i)) for i in ("datasource/a", P)] == [2, 1]
    ids = {record["commit_id"] for record in batch_records(client)}
    assert len(ids) == 1


def batch_records(client: Client) -> list[dict[str, Any]]:
    specs = [getattr(client, name)._spec for name in FRAMES]
    return [r for r in all_records(client._session.lake, specs) if r.get("batch_id") == ID]


def test_an_edit_between_a_kill_and_the_second_run_is_kept(client: Client, puts: Puts) -> None:
    frames = FRAMES | {"datasources": TOP.with_columns(name=pl.lit("by the batch"))}
    writer = Writer(lambda: ingest(open_client(client.uri), frames, missing="delete", batch_id=ID))
    writer.run_to(Step.WRITTEN).run_to(Step.PLANNED)  # the datasources are committed, the patients planned
    writer.kill()
    client.datasources.update("datasource/a", {"name": "by hand"})
    reports = ingest(open_client(client.uri), frames, missing="delete", batch_id=ID)
    assert (reports["datasources"].updated, reports["patients"].created) == (0, 1)
    assert client.datasources.retrieve("datasource/a").payload.name == "by hand"


def test_a_batch_whose_answer_is_lost_is_done_once(client: Client, puts: Puts) -> None:
    puts.strike(lost_answer)
    assert load(client).created == 1
    assert load(client).already_committed
    assert len(client.patients.history(P)) == 1


KILLED_AFTER_ITS_COMMIT = """
import os, signal, sys
import polars as pl
from vxdata.lake.table import Table
from vxdata.sdk import Client

put = Table.put_commit

def put_and_die(*args):
    put(*args)
    os.kill(os.getpid(), signal.SIGKILL)

Table.put_commit = put_and_die
Client(sys.argv[1]).patients.upsert(pl.read_json(sys.argv[2]), batch_id=sys.argv[3])
"""


def test_a_process_that_was_killed_after_its_commit_has_written_the_batch(client: Client, tmp_path: Path) -> None:
    PATIENTS.write_json(tmp_path / "frame.json")
    done = run(client.uri, tmp_path / "frame.json", ID, command=(sys.executable, "-c", KILLED_AFTER_ITS_COMMIT))
    assert done.returncode == -signal.SIGKILL
    client.patients.update(P, {"birthyear": 1951})
    assert load(client).already_committed
    assert year(client) == 1951


def test_the_command_line_loads_a_release_once(tmp_path: Path) -> None:
    rows = first_release().filter(pl.col("collection_id") == PROSTATE).head(5)
    index = write_release(tmp_path / "7", rows, 7)
    args = ("ingest", "idc", "--uri", tmp_path / "lake", "--index", index, "--batch-id", ID, "--json")
    first = json.loads(run(*args).stdout)
    client = Client(tmp_path / "lake")
    edited = client.patients.query().collect()["identifier"][0]
    client.patients.update(edited, {"sex": "mended by hand"})
    again = json.loads(run(*args).stdout)
    assert [told["already_committed"] for told in (first, again)] == [False, True]
    assert client.patients.retrieve(edited).payload.sex == "mended by hand"


# two runs at once


def run_twice_at_once(client: Client) -> list[Any]:
    writers = [Writer(lambda: load(open_client(client.uri))) for _ in range(2)]
    writers[0].run_to(Step.WRITTEN)
    writers[1].finish()
    open_client(client.uri).patients.delete(P)
    return [writer.finish() for writer in writers]


def test_of_two_runs_at_once_one_wins_and_the_other_is_a_no_op(client: Client, puts: Puts) -> None:
    late, early = run_twice_at_once(client)
    assert (early.created, early.already_committed) == (1, False)
    assert (late.created, late.already_committed, late.commit_id) == (0, True, early.commit_id)
    assert client.patients.query().count() == 0  # what was deleted after the batch stays deleted


def test_a_batch_without_rows_that_lost_the_race_is_a_no_op_too(client: Client, puts: Puts) -> None:
    client.patients.upsert(PATIENTS)
    writer = Writer(lambda: load(open_client(client.uri))).run_to(Step.WRITTEN)
    early = load(client)
    late = writer.finish()
    assert (late.already_committed, late.commit_id) == (True, early.commit_id)
    assert sum(r["batch_id"] == ID for r in batch_records(client)) == 1


def test_a_batch_without_rows_in_a_table_without_rows_is_noted_once(client: Client, puts: Puts) -> None:
    nothing = PATIENTS.clear()
    writer = Writer(lambda: open_client(client.uri).patients.upsert(nothing, batch_id=ID)).run_to(Step.WRITTEN)
    early = client.patients.upsert(nothing, batch_id=ID)
    late = writer.finish()
    assert (early.already_committed, late.already_committed) == (False, True)


def test_a_batch_that_was_reverted_stays_remembered(client: Client) -> None:
    commit_id = load(client).commit_id
    client.commits.revert(commit_id)
    assert load(client).already_committed
    assert client.patients.query().count() == 0


@pytest.mark.parametrize("rule", ["batch in the log", "batch at the base"])
def test_without_the_rule_a_batch_is_written_twice(
    client: Client, puts: Puts, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    RULES[rule](monkeypatch)
    late, early = run_twice_at_once(client) if rule == "batch at the base" else collide_without_rows(client)
    assert not late.already_committed
    assert early.commit_id != late.commit_id


def collide_without_rows(client: Client) -> list[Any]:
    client.patients.upsert(PATIENTS)
    writer = Writer(lambda: load(open_client(client.uri))).run_to(Step.WRITTEN)
    early = load(client)
    return [writer.finish(), early]
