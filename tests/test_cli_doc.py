"""docs/cli.md: it names every command, and each JSON document has just the keys that it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.cli import first_release, run_here, write_release
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata_cli import main
from vxdata_cli.jobs import NOTHING_TO_DO, TRY_AGAIN
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED

PAGE = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
DOCUMENTED = {
    command: keys.replace("`", "").split()
    for command, keys in re.findall(r"^\| `vxdata ([^`]+)` \|.*\| ((?:`\w+` ?)+|no document) \|$", PAGE, re.M)
}
REAL = {
    "ingest files": "ingest {folder}/patients.csv",
    "ingest idc": "ingest idc --index {folder}/7",
    "create": "create patient/2 --parent datasource/d --yes",
    "update": "update patient/1 --set sex=M --yes",
    "delete": "delete patient/1 --yes",
    "query": "query patients",
    "query --count": "query patients --count",
    "get": "get patient/1",
    "tree": "tree datasource/d",
    "funnel": "funnel patients --where sex=='M'",
    "info": "info",
    "schema": "schema",
    "schema TYPE": "schema volumes",
    "config show": "config show",
    "history": "history patient/1",
    "log": "log",
    "restore": "restore patient/gone --yes",
    "revert": "revert {commit_id} --yes",
    "snapshots list": "snapshots list",
    "snapshots keep": "snapshots keep paper",
    "snapshots drop": "snapshots drop kept",
    "maintain": "maintain",
    "compact": "compact",
    "vacuum": "vacuum",
    "verify": "verify",
    "erase": "erase patient/1 --reason consent --dry-run",
}


def commands_of(group: Any, *path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, *path, name)
        else:
            yield " ".join([*path, name])


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A small lake in which each command finds something to do."""
    monkeypatch.setenv("VXDATA_URI", str(tmp_path / "lake"))
    client = Client()
    client.datasources.create(Resource(identifier="datasource/d"))
    patients = [Resource(identifier=f"patient/{name}", parent_identifier="datasource/d") for name in ("1", "gone", "3")]
    client.resources.create(patients)
    client.resources.delete("patient/gone")
    client.snapshots.keep("kept")
    report = client.resources.delete("patient/3")
    (tmp_path / "patients.csv").write_text("identifier,parent_identifier\npatient/9,datasource/d\n")
    return {"folder": str(tmp_path), "commit_id": report.commit_id}


def test_the_page_names_every_command_and_no_other() -> None:
    commands = {*commands_of(typer.main.get_command(main.app))}
    assert commands | {"query --count", "schema TYPE"} == {*DOCUMENTED}
    assert commands - {"demo"} <= {*REAL}


@pytest.mark.parametrize("command", REAL)
def test_a_document_has_just_the_documented_keys(names: dict[str, str], command: str) -> None:
    if command == "ingest idc":
        write_release(Path(names["folder"]) / "7", first_release().head(3), 7)
    done = run_here(*REAL[command].format(**names).split(" "), "--json")
    assert done.returncode in (0, NOTHING_TO_DO), done.stderr
    assert [*json.loads(done.stdout)] == DOCUMENTED[command]


def test_the_page_has_each_exit_code() -> None:
    codes = {0, main.FAILED, main.INTERRUPTED, main.PIPE_CLOSED, A_PERSON_IS_NEEDED, NOTHING_TO_DO, TRY_AGAIN}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)} == codes | {c for _, c in main.EXIT_CODES}
