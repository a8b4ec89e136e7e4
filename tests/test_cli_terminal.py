"""Every command on a real terminal, one after another on one lake: each ends well and shows what it is asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.conftest import BUCKETS_IN_LONG_RUNS
from tests.support.cli import plain, read_terminal, run_on_terminal, start_on_terminal
from tests.support.small_lake import T2, fill
from tests.test_cli_manners import COMMANDS
from vxdata.errors import NotFoundError

STEPS: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("query", "volumes", "--where", "volume_type == 'T2'", "--select", "identifier"), 0, re.escape(T2)),
    (("funnel", "volumes", "--where", "volume_type == 'T2'"), 0, "volume_type"),
    (("get", T2), 0, r"volume_type +T2"),
    (("history", T2), 0, "header was wrong"),
    (("tree", "datasource/dasa"), 0, "patient/DA1"),
    (("schema", "volumes"), 0, "slice_thickness"),
    (("info",), 0, "volumes"),
    (("create", "patient/new", "--parent", "datasource/dasa", "--set", "birthyear=1950", "--yes"), 0, "patient/new"),
    (("update", "patient/new", "--set", "birthyear=1960", "--yes"), 0, "Changed patient/new"),
    (("delete", "patient/new", "--yes"), 0, "Deleted patient/new"),
    (("restore", "patient/new", "--yes"), 0, "restored"),
    (("log",), 0, "update by ann: header was wrong"),
    (("snapshots", "keep", "paper"), 0, "paper"),
    (("snapshots", "list"), 0, "paper"),
    (("snapshots", "drop", "paper"), 0, "paper"),
    (("compact",), 0, "folded"),
    (("vacuum",), 0, "Would delete 0 files"),
    (("verify",), 0, "The lake is whole"),
    (("maintain",), 0, "Outcome: done"),
    (("ingest", "files", "rows.csv"), 0, "patients"),
    (("config", "show"), 0, "uri"),
)
ELSEWHERE = {(), ("demo",), ("ingest", "idc"), ("ingest",), ("config",), ("revert",), ("erase",)}
"""Groups without a command, what has a test of its own or stands below, and a longer run (an erasure waits long)."""


def test_every_command_is_here_or_elsewhere() -> None:
    here = {command for command in COMMANDS if any(args[: len(command)] == command for args, _, _ in STEPS)}
    assert set(COMMANDS) - here - ELSEWHERE == set()


@BUCKETS_IN_LONG_RUNS
def test_every_command_works_on_a_terminal(lake_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fill(lake_uri)
    monkeypatch.setenv("VXDATA_URI", client.uri)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("identifier,parent_identifier,birthyear\npatient/csv,datasource/dasa,1970\n")
    for args, code, shown in STEPS:
        ended, written = run_on_terminal(*args, columns=120)
        text = plain(written)
        assert ended == code, (args, text)
        assert re.search(shown, text), (args, text)
        assert "Traceback" not in text, text
    commit_id = str(client.commits.list()["commit_id"][0])
    ended, written = run_on_terminal("revert", commit_id, "--yes", columns=120)
    assert (ended, client.patients.query().collect()["identifier"].is_in(["patient/csv"]).any()) == (0, False), written


@pytest.mark.slow  # it waits two minutes for writers that may be under way
@pytest.mark.timeout(300)
def test_an_erasure_shows_its_plan_asks_and_tells_what_it_does(lake_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fill(lake_uri)
    monkeypatch.setenv("VXDATA_URI", client.uri)
    erase = ("erase", "patient/DA1", "--reason", "consent withdrawn")
    process, terminal = start_on_terminal(*erase, columns=120)
    asked = plain(read_terminal(terminal, until="[y/N]"))
    assert re.search(r"patients +1", asked), asked
    os.write(terminal, b"y\n")
    done = plain(read_terminal(terminal))
    os.close(terminal)
    assert (process.wait(), "wait 121 s" in done, "Traceback" in done) == (0, True, False), done
    with pytest.raises(NotFoundError):
        client.resources.history("patient/DA1")
    assert run_on_terminal(*erase, "--yes", columns=120)[0] == 0
