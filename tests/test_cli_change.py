"""`vxdata create`, `update`, `delete`: shown before, asked about, written with a reason, or refused."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import plain, read_terminal, run_here, start_on_terminal
from vxdata.errors import NotFoundError
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata_cli import interrupt
from vxdata_cli.out import out


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A lake with a datasource, a patient, a study and two volumes; it is the default of the command line."""
    client = Client(tmp_path / "lake")
    monkeypatch.setenv("VXDATA_URI", client.uri)
    lines = {"datasource/d": None, "patient/1": "datasource/d", "imagingstudy/1": "patient/1"}
    lines |= {"volume/1": "imagingstudy/1", "volume/2": "imagingstudy/1"}
    client.resources.create([Resource(identifier=i, parent_identifier=p) for i, p in lines.items()])
    return client


def answer(text: str, *args: str) -> tuple[int, str]:
    """Run a command on a terminal and answer its question."""
    process, terminal = start_on_terminal(*args, columns=100)
    written = read_terminal(terminal, until="[y/N]")
    os.write(terminal, f"{text}\n".encode())
    written += read_terminal(terminal)
    os.close(terminal)
    return process.wait(), plain(written)


def stored_reasons(client: Client) -> str:
    logs = Path(client.uri).glob("*/_delta_log/*.json")
    return "".join(path.read_text() for path in logs)


def test_create_makes_a_resource_with_typed_values(client: Client) -> None:
    values = {"slice_thickness": "3.5", "series_number": "7", "derived_from": '["volume/1", ""]', "modality": "5"}
    options = [part for name, text in values.items() for part in ("--set", f"{name}={text}")]
    args = ["create", "volume/a b=c", "--parent", "imagingstudy/1", "--license", "CC0", *options, "--yes", "--json"]
    done = run_here(*args, "--set", "series_datetime=2024-01-02", "--reason", "by hand")
    assert (done.returncode, done.stderr) == (0, "")
    made = client.volumes.retrieve("volume/a b=c")
    assert json.loads(done.stdout)["resource"] == made.model_dump(mode="json")
    payload = made.payload
    assert (payload.slice_thickness, payload.series_number, payload.derived_from) == (3.5, 7, ["volume/1", ""])
    assert (payload.modality, made.license) == ("5", "CC0")
    assert "by hand" in stored_reasons(client)


def test_update_changes_what_is_named_and_clears_what_is_unset(client: Client) -> None:
    client.volumes.update("volume/1", {"volume_type": "T1", "b_value": 800}, license="CC0")
    args = ["--set", "volume_type=T2", "--unset", "b_value", "--unset", "license", "--yes"]
    assert run_here("update", "volume/1", *args).stdout == "Changed volume/1.\n"
    now = client.volumes.retrieve("volume/1")
    assert (now.payload.volume_type, now.payload.b_value, now.license) == ("T2", None, None)


def test_update_without_an_effect_writes_nothing(client: Client) -> None:
    client.volumes.update("volume/1", {"volume_type": "T2"})
    before = client.volumes.retrieve("volume/1")
    done = run_here("update", "volume/1", "--set", "volume_type=T2", "--json")
    assert (done.returncode, json.loads(done.stdout)["changed"]) == (0, False)
    assert client.volumes.retrieve("volume/1") == before


def test_delete_says_what_it_closed(client: Client) -> None:
    done = run_here("delete", "patient/1", "--cascade", "--yes", "--json", "--reason", "consent withdrawn")
    assert json.loads(done.stdout)["deleted"] == {"volumes": 2, "imaging_studies": 1, "patients": 1}
    assert client.volumes.query().count() == 0
    assert "consent withdrawn" in stored_reasons(client)


def test_the_change_is_shown_and_asked_about(client: Client) -> None:
    code, shown = answer("y", "update", "volume/1", "--set", "volume_type=T2")
    assert code == 0
    assert [line.split() for line in shown.splitlines() if "volume_type" in line] == [["volume_type", "T2"]]
    assert client.volumes.retrieve("volume/1").payload.volume_type == "T2"


def test_what_differs_in_long_texts_is_shown(client: Client) -> None:
    before, after = f"{'a' * 200} before", f"{'a' * 200} after"
    client.volumes.update("volume/1", {"series_description": before})
    _, shown = answer("n", "update", "volume/1", "--set", f"series_description={after}")
    (line,) = (line for line in shown.splitlines() if "series_description" in line)
    assert line.split() == ["series_description", f"...{'a' * 19}", "before", f"...{'a' * 19}", "after"]


def test_no_leaves_all_as_it_is(client: Client) -> None:
    code, shown = answer("n", "delete", "patient/1", "--cascade")
    assert code == 1
    assert "1 imaging_studies" in shown
    assert "2 volumes" in shown
    assert "Nothing was written" in shown
    assert client.volumes.query().count() == 2


@pytest.mark.parametrize(
    "args", [("delete", "patient/1", "--cascade"), ("update", "volume/1", "--set", "volume_type=T2")]
)
def test_an_interrupt_at_a_question_ends_it_at_once(client: Client, args: tuple[str, ...]) -> None:
    before = client.volumes.query().versions().count()
    process, terminal = start_on_terminal(*args, columns=100)
    read_terminal(terminal, until="[y/N]")
    process.send_signal(signal.SIGINT)
    shown = plain(read_terminal(terminal))
    os.close(terminal)
    assert process.wait(timeout=20) == 130
    assert "Traceback" not in shown
    assert client.volumes.query().versions().count() == before


@pytest.mark.parametrize("is_asking", [True, False])
def test_an_interrupt_that_a_question_does_not_notice_ends_it_too(
    is_asking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(interrupt.os, "_exit", codes.append)
    monkeypatch.setattr(out, "is_asking", is_asking)
    interrupt._end_a_question()
    assert codes == [130] * is_asking


def test_what_was_shown_is_what_is_changed(client: Client) -> None:
    process, terminal = start_on_terminal("update", "volume/1", "--set", "volume_type=T2", columns=100)
    read_terminal(terminal, until="[y/N]")
    client.volumes.update("volume/1", {"volume_type": "ADC"})
    os.write(terminal, b"y\n")
    read_terminal(terminal)
    os.close(terminal)
    assert process.wait() == 4
    assert client.volumes.retrieve("volume/1").payload.volume_type == "ADC"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["delete", "volume/1"], 2, "no terminal; --yes does it"),
        (["delete", "patient/1", "--yes"], 2, "live descendants (1 imaging_studies, 2 volumes); --cascade"),
        (["delete", "volume/9", "--yes"], 3, "'volume/9'"),
        (["update", "volume/9", "--set", "volume_type=T2", "--yes"], 3, "'volume/9'"),
        (["update", "volume/1", "--yes"], 2, "nothing to change was named"),
        (["update", "volume/1", "--set", "volume_typ=T2"], 2, "Did you mean 'volume_type'?"),
        (["update", "volume/1", "--set", "b_value=null"], 2, "--unset b_value clears it"),
        (["update", "volume/1", "--set", "b_value=nan"], 2, "there is no value; --unset b_value clears it"),
        (["update", "volume/1", "--set", "b_value=many"], 2, "--set b_value=many: 'many' is no number"),
        (["update", "volume/1", "--set", "b_value="], 2, "--unset b_value clears it"),
        (["update", "volume/1", "--set", "b_value"], 2, "FIELD=VALUE is expected"),
        (["update", "volume/1", "--set", "b_value=1", "--unset", "b_value"], 2, "both set and cleared"),
        (["update", "volume/1", "--set", "license=CC0"], 2, "--license sets it"),
        (["update", "volume/1", "--set", "acquisition_datetime=03/04/2024"], 2, "no date that is certain"),
        (["create", "volume/1", "--parent", "imagingstudy/1", "--yes"], 4, "live already"),
        (["create", "volume/3", "--parent", "imagingstudy/9", "--yes"], 3, "'imagingstudy/9'"),
        (["create", "volume/ 3", "--parent", "imagingstudy/1", "--yes"], 2, "starts or ends with a blank"),
        (["create", "volum/3", "--yes"], 2, "Did you mean 'volume'"),
        (["create", "volume/3", "--parent", "imagingstudy", "--yes"], 2, "'imagingstudy' is no identifier"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(client: Client, args: list[str], code: int, words: str) -> None:
    state: Any = client.snapshot().token
    done = run_here(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert client.snapshot().token == state


def test_a_lake_in_a_bucket_is_changed_the_same_way(lake_uri: str) -> None:
    options = ("--uri", lake_uri, "--yes")
    assert run_here("create", "datasource/d", "--set", "name=A trial", *options).returncode == 0
    assert run_here("update", "datasource/d", "--set", "name=Another", *options).returncode == 0
    assert Client(lake_uri).datasources.retrieve("datasource/d").payload.name == "Another"
    assert run_here("delete", "datasource/d", *options).returncode == 0
    with pytest.raises(NotFoundError):
        Client(lake_uri).datasources.retrieve("datasource/d")


@pytest.mark.parametrize("options", [["--json"], ["-q"], []])
def test_a_revert_shows_what_it_would_do_before_it_asks(client: Client, options: list[str]) -> None:
    commit_id = client.resources.delete("volume/1").commit_id
    code, written = answer("n", "revert", commit_id, *options)
    assert code == 1
    assert f"To revert {commit_id}" in written.replace("\n", "").partition("Revert it?")[0]
    assert re.search(r"volumes +1 +0 +0", written)
    assert client.volumes.query().count() == 1
