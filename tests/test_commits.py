"""`client.commits.list` says who changed what, when and why, also after the log was trimmed; and its command."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.schema import Field, PrimitiveType

from tests.support.cli import plain, read_terminal, run, run_on_terminal, start_on_terminal
from tests.support.stepping import open_client
from tests.support.upkeep import write_checkpoint
from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.lake import audit
from vxdata.lake.archive import archive_commits
from vxdata.lake.audit import COMMIT_COLUMNS
from vxdata.lake.log import entry_key
from vxdata.lake.table import Table
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest

TOP = pl.DataFrame({"identifier": ["datasource/a"], "name": ["a"]})
PATIENTS = pl.DataFrame({"identifier": ["patient/1", "patient/2"], "parent_identifier": "datasource/a"})


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return filled(str(tmp_path / "lake"))


def filled(uri: str) -> Client:
    client = Client(uri, author="night job")
    ingest(client, {"datasources": TOP, "patients": PATIENTS}, reason="first load", batch_id="b 1")
    client.patients.update("patient/1", {"birthyear": 1950}, reason="asked the clinic")
    client.patients.delete("patient/2")
    return client


def patients(client: Client) -> Table:
    return client._session.lake.table(client.patients._spec)


def trim(client: Client, upto: int) -> None:
    """Do what trimming does: archive, and take the entries out of the log."""
    table = patients(client)
    write_checkpoint(table)
    archive_commits(table, upto)
    for version in range(upto + 1):
        table.store.delete(entry_key("patients", version))


def test_each_commit_is_a_row_newest_first(lake_uri: str) -> None:
    found = filled(lake_uri).commits.list()
    assert found.schema == pl.Schema(COMMIT_COLUMNS)
    assert found["operation"].to_list()[:2] == ["delete", "update"]
    assert found["committed_at"].is_sorted(descending=True)
    update = found.row(1, named=True)
    told = {"author": "night job", "reason": "asked the clinic", "namespace": "patients", "version": 2, "updated": 1}
    assert update | told == update
    assert abs(datetime.now(UTC) - update["committed_at"]) < timedelta(minutes=5)
    loads = found.filter(operation="ingest")
    assert loads["commit_id"].n_unique() == 1
    assert loads["batch_id"].to_list() == ["b 1", "b 1"]
    assert sorted(loads["created"]) == [1, 2]


def test_commits_of_others_are_there_without_an_id(client: Client) -> None:
    DeltaTable(patients(client).uri).alter.add_columns([Field("mine", PrimitiveType("string"))])
    newest = client.commits.list("patients", limit=1).row(0, named=True)
    assert (newest["operation"], newest["commit_id"], newest["created"]) == ("ADD COLUMN", None, None)
    assert client.commits.list("patients")["operation"].to_list()[-1] == "CREATE TABLE"


@pytest.mark.parametrize("upto", [1, 3])
def test_trimming_takes_nothing_from_the_list(client: Client, upto: int) -> None:
    before = client.commits.list()
    trim(client, upto)
    assert open_client(client.uri).commits.list().equals(before)


def test_a_range_that_was_archived_twice_counts_once(client: Client) -> None:
    before = client.commits.list()
    table = patients(client)
    archive_commits(table, 2)
    folder = Path(client.uri, "_vxdata", "commits", "patients")
    (first,) = folder.iterdir()
    (folder / first.name.replace(f"{2:020d}", f"{1:020d}")).write_text("".join(first.read_text().splitlines(True)[:2]))
    assert client.commits.list().equals(before)


def test_only_entries_that_are_not_archived_are_read(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    archive_commits(patients(client), 2)
    asked: list[int] = []
    original = audit.read_entry
    monkeypatch.setattr(audit, "read_entry", lambda *args: asked.append(args[2]) or original(*args))
    client.commits.list("patients")
    assert asked == [3]


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_a_limit_gives_the_newest(client: Client, is_trimmed: bool) -> None:
    if is_trimmed:
        trim(client, 2)
    every = client.commits.list("patients")
    assert [client.commits.list("patients", limit=n).equals(every.head(n)) for n in range(6)] == [True] * 6


def test_one_operation_is_got_by_its_id(client: Client) -> None:
    commit_id = client.commits.list().filter(operation="ingest")["commit_id"][0]
    assert sorted(client.commits.get(commit_id)["namespace"]) == ["datasources", "patients"]
    with pytest.raises(NotFoundError, match="nobody"):
        client.commits.get("nobody")


def test_a_snapshot_sees_the_commits_until_then(client: Client) -> None:
    snapshot = client.snapshot()
    client.patients.update("patient/1", {"birthyear": 1951})
    assert snapshot.commits.list().height == client.commits.list().height - 1
    with pytest.raises(InvalidInputError, match="read-only"):
        snapshot.commits.revert(client.commits.list()["commit_id"][0])


@pytest.mark.parametrize("options", [{"limit": -1}, {"limit": "3"}, {"limit": True}, {"namespace": "patient"}])
def test_what_cannot_be_meant_is_refused(client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        client.commits.list(**options)


def test_where_no_lake_is_none_is_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        Client(tmp_path / "nowhere").commits.list()


# the commands


def told(*args: str | Path) -> Any:
    done = run(*args, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_log_tells_the_newest_commits_as_json_and_to_people(client: Client) -> None:
    commits = told("log", "--uri", client.uri, "--limit", "2", "--namespace", "patients")["commits"]
    assert [commit["operation"] for commit in commits] == ["delete", "update"]
    code, written = run_on_terminal("log", "--uri", client.uri)
    shown = plain(written)
    assert code == 0
    words = (commits[0]["commit_id"], " by night job", ": asked the clinic", "2 created", "1 updated", "1 deleted")
    assert [word for word in words if word not in shown] == []


def test_log_counts_operations_whole_and_says_when_there_are_more(client: Client) -> None:
    family = [Resource(identifier="datasource/f"), Resource(identifier="patient/f", parent_identifier="datasource/f")]
    study = Resource(identifier="imagingstudy/f", parent_identifier="patient/f")
    client.resources.create([*family, study])
    client.patients.update("patient/f", {"birthyear": 1951})
    done = told("log", "--uri", client.uri, "--limit", "2")
    assert [commit["namespace"] for commit in done["commits"] if commit["operation"] == "update"] == ["patients"]
    created = {commit["namespace"] for commit in done["commits"] if commit["operation"] == "create"}
    assert created == {"datasources", "patients", "imaging_studies"}
    assert (len(done["commits"]), done["more"]) == (4, True)
    assert "older ones" in run("log", "--uri", client.uri, "--limit", "2").stdout
    whole = told("log", "--uri", client.uri, "--limit", "1000")
    assert (len(whole["commits"]), whole["more"]) == (client.commits.list().height, False)


def test_log_keeps_the_id_whole_on_a_narrow_terminal(client: Client) -> None:
    commit_id = client.commits.list()["commit_id"][0]
    assert commit_id in plain(run_on_terminal("log", "--uri", client.uri, columns=60)[1])


def test_restore_and_revert_by_command(client: Client) -> None:
    restored = told("restore", "patient/2", "--yes", "--uri", client.uri, "--reason", "a mistake")
    assert (restored["restored"], restored["left_out"]) == ({"patients": 1}, [])
    reverted = told("revert", restored["commit_id"], "--yes", "--uri", client.uri)
    assert (reverted["deleted"], reverted["reverted"]) == ({"patients": 1}, restored["commit_id"])
    assert client.patients.query().collect()["identifier"].to_list() == ["patient/1"]


@pytest.mark.parametrize(("verb", "told"), [("restore", "restored"), ("revert", "created")])
def test_restore_and_revert_show_what_they_would_do_and_ask(client: Client, verb: str, told: str) -> None:
    target = "patient/2" if verb == "restore" else client.commits.list()["commit_id"][0]
    for answer, code, count in (("n\n", 1, 1), ("y\n", 0, 2)):
        process, terminal = start_on_terminal(verb, target, "--uri", client.uri)
        asked = plain(read_terminal(terminal, until="[y/N]"))
        os.write(terminal, answer.encode())
        read_terminal(terminal)
        os.close(terminal)
        assert told in asked
        assert process.wait() == code
        assert client.patients.query().count() == count


def test_a_restore_that_nobody_can_confirm_is_refused(client: Client) -> None:
    done = run("restore", "patient/2", "--uri", client.uri)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert client.patients.query().count() == 1


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("revert", "nobody", "--yes"), 3, "no commit has the id 'nobody'; 'vxdata log' shows them."),
        (("restore", "patient/1"), 4, "'patient/1' is live"),
        (("restore", "patient/9"), 3, "'patient/9' does not exist"),
        (("log", "--namespace", "volums"), 2, "Did you mean 'volumes'?"),
    ],
)
def test_a_mistake_is_one_sentence(client: Client, args: tuple[str, ...], code: int, words: str) -> None:
    done = run(*args, "--uri", client.uri)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_revert_that_nobody_can_confirm_is_refused(client: Client) -> None:
    done = run("revert", client.commits.list()["commit_id"][0], "--uri", client.uri)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert client.patients.query().count() == 1
