"""The command line of upkeep: what it shows, what it changes, and how it ends."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import typer

from tests.support.cli import plain, run, run_on_terminal
from tests.support.upkeep import clock_of_today, edit_entry, make_older, rewrite, table_of, tell
from vxdata.sdk import Client
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED, parse_retention

MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose patients were rewritten a month ago; the tests go through it in their order."""
    folder = tmp_path_factory.mktemp("told") / "lake"
    client = tell(folder, clock_of_today())
    rewrite(client, "patients")
    newest = table_of(client, "patients").snapshot().version

    def age(actions: list[dict[str, dict[str, int]]]) -> None:
        actions[0]["commitInfo"]["timestamp"] -= int(MONTH.total_seconds() * 1000)

    edit_entry(folder, "patients", newest, age)
    make_older(folder, MONTH)
    return folder


def test_snapshots_are_kept_listed_and_dropped(lake: Path) -> None:
    done = run("snapshots", "keep", "paper 2026", "--reason", "sent", "--uri", lake)
    assert done.returncode == 0
    assert "snapshot='vxs1." in done.stdout
    (row,) = json.loads(run("snapshots", "list", "--uri", lake, "--json").stdout)["snapshots"]
    assert (row["name"], row["reason"]) == ("paper 2026", "sent")
    assert Client(lake, snapshot=row["token"]).patients.query().count() == 5
    assert "paper 2026" in run("snapshots", "list", "--uri", lake).stdout
    taken = run("snapshots", "keep", "paper 2026", "--uri", lake)
    assert (taken.returncode, "kept already" in taken.stderr) == (4, True)
    dropped = run("snapshots", "drop", "paper 2026", "--uri", lake, "--json")
    assert json.loads(dropped.stdout) == {"dropped": "paper 2026"}
    assert run("snapshots", "drop", "paper 2026", "--uri", lake).returncode == 3
    assert run("snapshots", "list", "--uri", lake).stdout == "None is kept.\n"


def test_a_vacuum_shows_first_and_deletes_only_when_told_to(lake: Path) -> None:
    shown = run("vacuum", "--uri", lake)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Would delete 6 files" in shown.stdout
    assert json.loads(run("vacuum", "--uri", lake, "--retention", "31d", "--json").stdout)["count"] == 0
    done = json.loads(run("vacuum", "--uri", lake, "--delete", "--json").stdout)
    assert (done["dry_run"], done["count"]) == (False, 6)
    assert "Would delete 0 files" in run("vacuum", "--uri", lake).stdout
    assert run("vacuum", "--uri", lake, "-q").stdout == ""


@pytest.mark.parametrize("retention", ["23h", "0d", "7", "a week", "7 days", "-1d", ""])
def test_a_retention_that_is_none_or_too_short_is_refused(lake: Path, retention: str) -> None:
    done = run("vacuum", "--uri", lake, f"--retention={retention}", "--delete")
    assert (done.returncode, done.stdout) == (2, "")
    assert "24 hours" in done.stderr or "such as 7d" in done.stderr


def test_durations_are_read_as_people_write_them() -> None:
    read = {text: parse_retention(text) for text in ("7d", " 36h ", "2 w")}
    assert list(read.values()) == [timedelta(days=7), timedelta(hours=36), timedelta(weeks=2)]
    with pytest.raises(typer.BadParameter, match="7d"):
        parse_retention("7m")


def test_verify_ends_with_0_if_the_lake_is_whole_and_with_8_if_not(lake: Path) -> None:
    whole = run("verify", "--uri", lake)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "The lake is whole." in whole.stdout
    victim = next(lake.glob("volumes/*/*.parquet"))
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + b"x")
    code, shown = run_on_terminal("verify", "--uri", lake)
    assert code == A_PERSON_IS_NEEDED == 8
    assert all(words in plain(shown) for words in ("file-damaged", "What to do: restore"))
    done = run("verify", "--uri", lake, "--json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert (done.returncode, finding["kind"], finding["namespace"]) == (8, "file-damaged", "volumes")
    assert run("verify", "--uri", lake, "-q").stdout == ""
    victim.write_bytes(data)


def test_where_no_lake_is_each_command_says_so(tmp_path: Path) -> None:
    for command in (["vacuum"], ["verify"], ["snapshots", "list"], ["snapshots", "keep", "a"]):
        done = run(*command, "--uri", tmp_path / "none")
        assert (done.returncode, "no lake" in done.stderr) == (3, True)
