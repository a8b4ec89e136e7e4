"""The command line of upkeep: what it shows, what it changes, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import typer

from tests.support.cli import plain, run_on_terminal
from tests.support.upkeep import clock_of_today, edit_entry, make_older, rewrite, table_of, tell
from vxdata.errors import VxDataError
from vxdata.sdk import Client
from vxdata_cli import main
from vxdata_cli.out import out
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED, parse_retention

MONTH = timedelta(days=30)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake whose patients were rewritten a month ago; the tests leave its state as it is."""
    folder = tmp_path_factory.mktemp("told") / "lake"
    client = tell(folder, clock_of_today())
    rewrite(client, "patients")
    newest = table_of(client, "patients").snapshot().version

    def age(actions: list[dict[str, dict[str, int]]]) -> None:
        actions[0]["commitInfo"]["timestamp"] -= int(MONTH.total_seconds() * 1000)

    edit_entry(folder, "patients", newest, age)
    make_older(folder, MONTH)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `vxdata` in this process; returns the exit code, stdout and stderr."""

    def invoke(*args: str | Path) -> tuple[int, str, str]:
        for name in ("as_json", "quiet"):
            monkeypatch.setattr(out, name, False)
        code = 0
        try:
            main.app([str(arg) for arg in args], prog_name="vxdata")
        except SystemExit as end:
            code = int(end.code or 0)
        except VxDataError as error:
            code = main.report(error)
        written = capsys.readouterr()
        return code, written.out, " ".join(written.err.split())

    return invoke


def test_snapshots_are_kept_listed_and_dropped(lake: Path, run: Run) -> None:
    code, shown, _ = run("snapshots", "keep", "paper 2026", "--reason", "sent", "--uri", lake)
    assert (code, "snapshot='vxs1." in shown) == (0, True)
    (row,) = json.loads(run("snapshots", "list", "--uri", lake, "--json")[1])["snapshots"]
    assert (row["name"], row["reason"]) == ("paper 2026", "sent")
    assert Client(lake, snapshot=row["token"]).patients.query().count() == 5
    assert "paper 2026" in run("snapshots", "list", "--uri", lake)[1]
    assert run("snapshots", "keep", "paper 2026", "--uri", lake)[0] == 4
    assert json.loads(run("snapshots", "drop", "paper 2026", "--uri", lake, "--json")[1]) == {"dropped": "paper 2026"}
    assert run("snapshots", "drop", "paper 2026", "--uri", lake)[0] == 3
    assert run("snapshots", "list", "--uri", lake)[:2] == (0, "None is kept.\n")


def test_a_vacuum_shows_first_and_deletes_only_when_told_to(lake: Path, run: Run) -> None:
    code, shown, err = run("vacuum", "--uri", lake)
    assert (code, err, "Would delete 6 files" in shown) == (0, "", True)
    assert json.loads(run("vacuum", "--uri", lake, "--retention", "31d", "--json")[1])["count"] == 0
    done = json.loads(run("vacuum", "--uri", lake, "--delete", "--json")[1])
    assert (done["dry_run"], done["count"]) == (False, 6)
    assert "Would delete 0 files" in run("vacuum", "--uri", lake)[1]
    assert run("vacuum", "--uri", lake, "-q")[1] == ""


@pytest.mark.parametrize("retention", ["23h", "0d", "7", "a week", "7 days", "-1d", ""])
def test_a_retention_that_is_none_or_too_short_is_refused(lake: Path, run: Run, retention: str) -> None:
    code, shown, err = run("vacuum", "--uri", lake, f"--retention={retention}", "--delete")
    assert (code, shown) == (2, "")
    assert "24 hours" in err or "such as 7d" in err


def test_durations_are_read_as_people_write_them() -> None:
    read = {text: parse_retention(text) for text in ("7d", " 36h ", "2 w")}
    assert list(read.values()) == [timedelta(days=7), timedelta(hours=36), timedelta(weeks=2)]
    with pytest.raises(typer.BadParameter, match="7d"):
        parse_retention("7m")


def test_verify_ends_with_0_if_the_lake_is_whole_and_with_8_if_not(lake: Path, run: Run) -> None:
    code, shown, err = run("verify", "--uri", lake)
    assert (code, err, "The lake is whole." in shown) == (0, "", True)
    victim = next(lake.glob("volumes/*/*.parquet"))
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + b"x")
    code, shown, _ = run("verify", "--uri", lake, "--json")
    (finding,) = (found for found in json.loads(shown)["findings"] if found["severity"] == "error")
    assert (code, finding["kind"], finding["namespace"]) == (A_PERSON_IS_NEEDED, "file-damaged", "volumes")
    assert run("verify", "--uri", lake, "-q")[:2] == (8, "")
    code, seen = run_on_terminal("verify", "--uri", lake)
    victim.write_bytes(data)
    assert code == 8
    assert all(words in plain(seen) for words in ("file-damaged", "What to do: restore"))


def test_where_no_lake_is_each_command_says_so(tmp_path: Path, run: Run) -> None:
    for command in (["vacuum"], ["verify"], ["snapshots", "list"], ["snapshots", "keep", "a"]):
        code, _, err = run(*command, "--uri", tmp_path / "none")
        assert (code, "no lake" in err) == (3, True)
