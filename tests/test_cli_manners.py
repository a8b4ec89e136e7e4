"""How the command line behaves: help, errors and their exit codes, pipes, terminals, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer

from tests.support.cli import (
    VXDATA,
    environment,
    first_release,
    plain,
    read_terminal,
    run,
    run_here,
    run_on_terminal,
    start_on_terminal,
    write_release,
)
from tests.support.proxy import Proxy
from vxdata import errors
from vxdata.errors import CommitUnknownError, StorageError, VxDataError
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata_cli import main
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED

HEAVY = ("polars", "pydantic", "deltalake", "pyarrow", "boto3", "vxdata.sdk", "vxdata.lake")
ASKING = ("query", "get", "history", "tree", "funnel", "schema", "info", "log")
CHANGING = ("create", "update", "delete", "restore", "revert")
UPKEEP = ("compact", "vacuum", "verify", "maintain", "erase")
COMMANDS = [(), ("demo",), ("ingest",), ("ingest", "files"), ("ingest", "idc"), ("config",), ("config", "show")]
COMMANDS += [(name,) for name in (*ASKING, *CHANGING, *UPKEEP)]
COMMANDS += [("snapshots", verb) for verb in ("list", "keep", "drop")]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "7", first_release(), 7)


def python(code: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `vxdata` after some code of the test's."""
    return run(*args, command=(sys.executable, "-c", f"{code}\nfrom vxdata_cli.main import main; main()"))


# ---- help


@pytest.mark.parametrize("command", COMMANDS, ids=["vxdata", *map(" ".join, COMMANDS[1:])])
def test_each_command_has_help_with_examples(command: tuple[str, ...]) -> None:
    done = run_here(*command, "--help")
    assert done.returncode == 0
    assert f"$ {' '.join(('vxdata', *command))}" in done.stdout
    assert f"Usage: {' '.join(('vxdata', *command))} " in done.stdout


def test_the_help_names_each_exit_code() -> None:
    shown = " ".join(run("--help").stdout.split())
    codes = {0, main.FAILED, main.INTERRUPTED, main.PIPE_CLOSED, A_PERSON_IS_NEEDED}
    for code in codes | {code for _, code in main.EXIT_CODES}:
        assert f" {code} " in shown


def test_the_version_is_that_of_the_package() -> None:
    from vxdata import __version__

    assert run("--version").stdout == f"vxdata {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, vxdata_cli.main; print(*{{*{HEAVY}}} & {{*sys.modules}})"
    assert run(command=(sys.executable, "-c", code)).stdout.split() == []


@pytest.mark.parametrize("args", [["ingest", "dicom"], ["--nonsense"], ["ingest", "idc", "--uri", ""]])
def test_wrong_usage_ends_with_2_and_names_the_way_out(args: list[str]) -> None:
    done = run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--help" in done.stderr or "-h" in done.stderr


def commands_of(group: Any, *path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the commands below a group by what is typed, each with its options by their long names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, *path, name)
        else:
            yield " ".join([*path, name]), {option: p for p in command.params for option in p.opts}


OPTIONS = dict(commands_of(typer.main.get_command(main.app)))


@pytest.mark.parametrize("command", OPTIONS)
def test_each_command_speaks_as_asked_and_takes_a_profile_where_it_opens_a_lake(command: str) -> None:
    expected = {"--json", "--quiet", "--debug"} - ({"--json"} if command == "demo" else set())
    expected |= {"--profile"} if "--uri" in OPTIONS[command] else set()
    assert expected - OPTIONS[command].keys() == set()


def test_a_profile_after_the_command_is_that_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vxdata.toml").write_text(f"[profiles.lab]\nuri = '{tmp_path}/lab'\n")
    monkeypatch.chdir(tmp_path)
    shown = [run(*args).stderr for args in (("--profile", "lab", "info"), ("info", "--profile", "lab"))]
    assert shown[0] == shown[1]
    assert f"no lake at {tmp_path}/lab" in shown[0]


# ---- errors


def test_each_error_has_an_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VxDataError)]
    mapped = [kind for kind, _ in main.EXIT_CODES]
    assert {*kinds} - {VxDataError} == {*mapped}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommitUnknownError("who knows; client.resolve('vxc1.x') finds out", "vxc1.x"), 5),
        (StorageError("the disk is full", uri="s3://b", operation="write to", retryable=False), 6),
        (VxDataError("something else"), 1),
    ],
)
def test_errors_that_are_hard_to_provoke(error: VxDataError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.report(error) == code
    assert str(error) in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with things that are no lakes and no indexes."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "newer" / "_vxdata").mkdir(parents=True)
    (tmp_path / "newer" / "_vxdata" / "lake.json").write_text(json.dumps({"lake_id": "x", "format": 99}))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        pytest.param("--uri=photos", 2, ["photos", "'cat.jpg'", "empty folder"], id="a folder that is no lake"),
        pytest.param("--uri=newer", 6, ["newer", "format 99", "pip install --upgrade"], id="a newer format"),
        pytest.param("--uri=gs://b/lake", 2, ["'gs://b/lake'", "s3://bucket/prefix"], id="an unknown scheme"),
        pytest.param("--uri=s3://", 2, ["'s3://'", "s3://bucket/prefix"], id="no bucket"),
        pytest.param("--uri=s3://b/lake", 6, ["s3://b/lake", "no AWS credentials", "AWS_PROFILE"], id="no credentials"),
        pytest.param("--collection=prostate_4t", 2, ["'prostate_4t'", "'prostate_3t'"], id="a wrong collection"),
        pytest.param("--valid-from=yesterday", 2, ["'yesterday'", "ISO"], id="no instant"),
        pytest.param("--valid-from=2999-01-01", 2, ["2999-01-01", "future"], id="the future"),
        pytest.param("--index=torn.parquet", 2, ["torn.parquet", "Parquet"], id="a torn index"),
        pytest.param("--index=nowhere", 3, ["nowhere", "pip install 'vxdata[idc]'"], id="no index"),
    ],
)
def test_a_mistake_is_one_sentence_with_value_and_remedy(
    monkeypatch: pytest.MonkeyPatch, folder: Path, index: Path, options: str, code: int, words: list[str]
) -> None:
    monkeypatch.chdir(folder)
    done = run_here("ingest", "idc", "--uri", "lake", "--index", index, options)
    assert (done.returncode, done.stdout) == (code, "")
    assert [word for word in words if word not in done.stderr] == []
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_bucket_is_named(index: Path, moto_url: str, use_endpoint: Callable[[str], None]) -> None:
    use_endpoint(moto_url)
    done = run("ingest", "idc", "--uri", "s3://nobody/lake", "--index", index)
    assert done.returncode == 6
    assert done.stderr.startswith("Error: ")
    for words in ("s3://nobody/lake", "bucket does not exist", "check its name"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [["--debug", "ingest", "idc"], ["ingest", "idc", "--debug"]])
def test_debug_shows_the_traceback(args: list[str]) -> None:
    done = run(*args, "--uri", "gs://b/lake")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("Error: 'gs://b/lake'")


def test_a_fault_of_our_own_is_called_a_bug() -> None:
    done = python("import vxdata.sources.idc as idc\nidc.find_release = lambda _: 1 / 0", "ingest", "idc", "--uri", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this is a bug in VxData: ZeroDivisionError: division by zero.")
    assert "--debug" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_warning_of_the_library_is_a_note(tmp_path: Path) -> None:
    rows = first_release().head(3).with_columns(PatientAge=pl.lit("three score"))
    index = write_release(tmp_path / "7", rows, 7)
    done = run("ingest", "idc", "--uri", tmp_path / "lake", "--index", index)
    assert done.stderr == "Note: 3 values of PatientAge could not be parsed; they are null in patient_age\n"


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("name", ["VXDATA_URI", "VXDATA_AUTHOR", "VXDATA_PROFILE"])
def test_an_empty_variable_is_refused_and_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    done = run_here("info")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {name} = {value!r}: a text that is not empty is expected")


@pytest.mark.parametrize("command", ["log --json --namespace", "compact --json"])
def test_a_type_is_named_by_either_word(tmp_path: Path, command: str) -> None:
    Client(tmp_path / "lake").datasources.create(Resource(identifier="datasource/d"))
    done = [run_here(*command.split(), word, "--uri", tmp_path / "lake") for word in ("datasource", "datasources")]
    assert [d.returncode for d in done] == [0, 0]
    assert json.loads(done[0].stdout).keys() == json.loads(done[1].stdout).keys()
    wrong = run_here(*command.split(), "datasuorce", "--uri", tmp_path / "lake")
    assert (wrong.returncode, "'datasources'" in wrong.stderr) == (2, True)


def test_a_quiet_maintenance_says_only_what_failed(tmp_path: Path) -> None:
    Client(tmp_path / "lake").datasources.create(Resource(identifier="datasource/d"))
    done = run_here("maintain", "-q", "--uri", tmp_path / "lake")
    assert (done.stdout, done.stderr) == ("", "")
    failed = run_here("maintain", "-q", "--uri", tmp_path / "nowhere")
    assert json.loads(failed.stderr.splitlines()[0])["event"] == "failed"


# ---- pipes and terminals


@pytest.mark.parametrize("args", [["ingest", "idc"], ["ingest", "idc", "--json"], ["--help"]])
def test_a_closed_pipe_is_silent(tmp_path: Path, index: Path, args: list[str]) -> None:
    options = [] if "--help" in args else ["--uri", str(tmp_path / "lake"), "--index", str(index)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*VXDATA, *args, *options], env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (main.PIPE_CLOSED, b"")


@pytest.fixture(scope="module")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("small") / "lake")
    Client(uri).datasources.create(Resource(identifier="datasource/d"))
    return uri


PLAIN = ["info", "log", "schema datasources", "get datasource/d", "query datasources --format csv", "query datasources"]


@pytest.mark.parametrize("command", PLAIN)
def test_an_answer_that_nobody_reads_to_its_end_is_silent_and_one_in_a_pipe_has_no_colours(
    small_lake: str, command: str
) -> None:
    args = (*command.split(), "--uri", small_lake)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*VXDATA, *args], env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (main.PIPE_CLOSED, b"")
    shown = run_here(*args).stdout
    assert "datasource" in shown or "identifier" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize(("command", "code"), [("get datasource/d", 0), ("get datasource/e", 3), ("nonsense", 2)])
def test_closed_streams_are_no_reason_to_fail(small_lake: str, closed: str, command: str, code: int) -> None:
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh", *VXDATA)
    done = run(*command.split(), *(["--uri", small_lake] * command.startswith("get")), command=shell)
    assert done.returncode == code
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_that_nobody_reads_keeps_its_code(small_lake: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    args = [*VXDATA, "--debug", "get", "datasource/e", "--uri", small_lake]
    done = subprocess.run(args, env=environment(), stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (3, b"")


def test_a_terminal_without_unicode_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: Path) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, written = run_on_terminal("ingest", "idc", "--uri", tmp_path / "lake", "--index", index)
    assert code == 0
    assert plain(written).isascii()


# ---- Ctrl-C


def test_one_interrupt_ends_it_with_130_and_leaves_a_usable_lake(tmp_path: Path) -> None:
    args = ("ingest", "idc", "--uri", tmp_path / "lake")  # the whole index: time enough
    process, terminal = start_on_terminal(*args)
    read_terminal(terminal, until="read the index")
    process.send_signal(signal.SIGINT)
    written = plain(read_terminal(terminal))
    os.close(terminal)
    assert process.wait() == 130
    assert "Note: Interrupted." in written
    assert "Traceback" not in written


def test_an_interrupt_in_the_middle_of_a_load_leaves_the_lake_whole_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    lake, rows = tmp_path / "lake", 150_000
    Client(lake).datasources.create(Resource(identifier="datasource/d"))
    numbers = pl.DataFrame({"n": range(rows)}).select(pl.format("patient/{}", "n").alias("identifier"))
    numbers.with_columns(parent_identifier=pl.lit("datasource/d")).write_parquet(tmp_path / "patients.parquet")
    args = ("ingest", tmp_path / "patients.parquet", "--uri", lake)
    process, terminal = start_on_terminal(*args)
    read_terminal(terminal, until=f"load {rows:,} rows")
    process.send_signal(signal.SIGINT)
    assert "Note: Interrupted." in plain(read_terminal(terminal))
    os.close(terminal)
    assert process.wait() == 130
    client = Client(lake)
    assert client.verify().ok
    assert client.patients.query().count() in {0, rows}
    assert run(*args, "-q").returncode == 0
    assert client.patients.query().count() == rows


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    Client(tmp_path / "lake").datasources.create(Resource(identifier="datasource/d"))
    with Path("/dev/full").open("w") as full:
        command = [*VXDATA, "get", "datasource/d", "--uri", str(tmp_path / "lake")]
        done = subprocess.run(command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (6, "Error: the system refused it: No space left on device.\n")


@pytest.fixture
def silent_store(moto_url: str, use_endpoint: Callable[[str], None]) -> Iterator[Proxy]:
    """A store that takes requests and never answers."""
    with Proxy(moto_url) as proxy:
        proxy.inject("hang")
        use_endpoint(proxy.endpoint_url)
        yield proxy


def test_a_second_interrupt_ends_it_though_the_store_hangs(silent_store: Proxy, index: Path) -> None:
    process, terminal = start_on_terminal("ingest", "idc", "--uri", "s3://bucket/lake", "--index", index)
    while not silent_store.requests():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again" in plain(read_terminal(terminal, until="Ctrl-C again"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130
    assert "\x1b[?25h" in read_terminal(terminal)  # the cursor is shown again
    os.close(terminal)
