"""`vxdata ingest FILE...` as people and batch jobs run it: on a terminal, in a pipe, with JSON; its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.cli import plain, run, run_here, run_on_terminal
from vxdata.schemas import Resource
from vxdata.sdk import Client

GOOD = "identifier,parent_identifier,sex\ndatasource/d,,\npatient/1,datasource/d,M\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with good and bad files; the lake is in `lake`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VXDATA_URI", str(tmp_path / "lake"))
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(GOOD + "patient/2,datasource/e,M\n")
    return tmp_path


def patients(folder: Path) -> list[str]:
    frame = Client(folder / "lake").patients.query().select("identifier").collect()
    return sorted(frame["identifier"])


def test_a_file_is_loaded_and_summed_up(folder: Path) -> None:
    done = run("ingest", "good.csv", "--reason", "first delivery")
    assert (done.returncode, done.stderr) == (0, "")
    assert "good.csv in " in done.stdout
    assert [line.split() for line in done.stdout.splitlines() if line.startswith((" datasources", " patients"))] == [
        ["datasources", "1", "0", "0", "0"], ["patients", "1", "0", "0", "0"],
    ]  # fmt: skip
    assert patients(folder) == ["patient/1"]
    assert "Nothing to write" in run_here("ingest", "good.csv").stdout


def test_an_invalid_row_ends_with_2_names_it_and_writes_nothing(folder: Path) -> None:
    done = run_here("ingest", "bad.csv", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert (document["written"], document["rejected"]) == (False, 1)
    assert document["faults"] == [
        {
            "file": "bad.csv",
            "row": 4,
            "field": "parent_identifier",
            "value": "datasource/e",
            "reason": "parent_identifier datasource/e is not live and not in the frame",
        }
    ]
    assert "Error: 1 row is invalid, and nothing was written. The first: bad.csv, row 4" in done.stderr
    assert not (folder / "lake").exists()


def test_skipped_rows_go_to_the_rejects_file_and_come_back_mended(folder: Path) -> None:
    done = run_here("ingest", "bad.csv", "--on-invalid", "skip", "--rejects", "rejects.csv")
    assert done.returncode == 0
    assert "rejects.csv; mend them there" in " ".join(done.stderr.split())
    again = run_here("ingest", "bad.csv", "--on-invalid", "skip", "--rejects", "rejects.csv")  # all others are there
    assert "rejects.csv; mend them there" in " ".join(again.stderr.split())
    failed = run_here("ingest", "bad.csv", "--rejects", "rejects.csv")
    assert "nothing was written, so mend them in their source" in " ".join(failed.stderr.split())
    rejects = folder / "rejects.csv"
    rejects.write_text(rejects.read_text().replace("datasource/e", "datasource/d"))
    assert run_here("ingest", "rejects.csv").returncode == 0
    assert patients(folder) == ["patient/1", "patient/2"]


def test_rejected_rows_are_never_passed_over_in_silence(folder: Path) -> None:
    args = ("ingest", "bad.csv", "--on-invalid", "skip")
    done = run_here(*args, "-q")
    assert (done.returncode, done.stdout) == (0, "")
    said = "Warning: 1 row is invalid, and not written; --rejects FILE keeps what is rejected."
    assert " ".join(done.stderr.split()) == said
    assert "Warning: 1 row is invalid, and not written" in run_here(*args, "--json").stderr
    assert "would not be written" in run_here(*args, "--dry-run").stderr
    again = run_here(*args).stdout  # nothing changes
    assert [line.split() for line in again.splitlines() if line.startswith((" datasources", " patients"))] == [
        ["datasources", "0", "0", "1", "0"], ["patients", "0", "0", "1", "0"],
    ]  # fmt: skip
    assert "Rejected rows: 1" in again


def test_under_the_same_batch_id_the_second_run_does_nothing(folder: Path) -> None:
    args = ("ingest", "bad.csv", "--on-invalid", "skip", "--rejects", "rejects.csv", "--batch-id", "delivery 1=#é")
    first = json.loads(run_here(*args, "--json").stdout)
    rejects = (folder / "rejects.csv").read_text()
    client = Client(folder / "lake")
    client.patients.update("patient/1", {"sex": "mended"})
    client.datasources.create(Resource(identifier="datasource/e"))
    again = json.loads(run_here(*args, "--json").stdout)
    assert [(told["already_committed"], told["written"], told["rejected"]) for told in (first, again)] == [
        (False, True, 1), (True, False, 0),
    ]  # fmt: skip
    assert client.patients.retrieve("patient/1").payload.sex == "mended"
    assert (folder / "rejects.csv").read_text() == rejects
    assert "this batch was loaded before" in run_here(*args).stdout
    other = json.loads(run_here(*args[:-1], "delivery 2", "--json").stdout)
    assert (other["already_committed"], other["namespaces"]["patients"]["updated"]) == (False, 1)


def test_a_batch_that_was_killed_after_a_commit_has_its_rejects_and_is_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr("vxdata.sdk.files._report", _after_commit(KeyboardInterrupt))
        args = ("bad.csv", "--on-invalid", "skip", "--rejects", "rejects.csv", "--batch-id", "1")
        assert run_here("ingest", *args).returncode != 0
    assert "datasource/e" in (folder / "rejects.csv").read_text()
    again = run_here("ingest", *args)
    assert (again.returncode, patients(folder)) == (0, ["patient/1"])
    assert "datasource/e" in (folder / "rejects.csv").read_text()


def _after_commit(error: type[BaseException]) -> Callable[..., object]:
    """Return `_report` as it is for a plan, and an error for what was written."""
    from vxdata.sdk import files

    plain_report = files._report

    def report(*args: Any, is_written: bool) -> object:
        if is_written:
            raise error
        return plain_report(*args, is_written=is_written)

    return report


def test_an_empty_batch_id_is_refused(folder: Path) -> None:
    done = run_here("ingest", "good.csv", "--batch-id", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "batch_id=''" in done.stderr
    assert not (folder / "lake").exists()


def test_a_dry_run_writes_nothing_and_tells_by_its_code(folder: Path) -> None:
    good, bad = (run_here("ingest", f"{name}.csv", "--dry-run", "--json") for name in ("good", "bad"))
    assert (good.returncode, bad.returncode) == (0, 2)
    assert json.loads(good.stdout)["namespaces"]["patients"]["created"] == 1
    assert "nothing would be written" in bad.stderr
    assert not (folder / "lake").exists()


def test_the_forms_of_a_csv_file_are_named_by_options(folder: Path) -> None:
    text = "identifier;parent_identifier;value;measured_at\npsameasurement/1;patient/1;6,5;03/04/2024\n"
    (folder / "psa.csv").write_bytes(text.replace(";", "^").encode("utf-16-le"))
    run_here("ingest", "good.csv")
    options = ["--delimiter", "^", "--encoding", "utf-16-le", "--decimal-comma", "--date-format", "%d/%m/%Y"]
    assert run_here("ingest", *options, "--type", "psa_measurements", "psa.csv").returncode == 0
    row = Client(folder / "lake").psa_measurements.query().select("value", "measured_at").collect().row(0)
    assert (row[0], row[1].date().isoformat()) == (6.5, "2024-04-03")


def test_missing_delete_closes_what_the_files_lack(folder: Path) -> None:
    (folder / "two.csv").write_text(GOOD + "patient/2,datasource/d,F\n")
    run_here("ingest", "two.csv")
    assert run_here("ingest", "good.csv", "--missing", "delete").returncode == 0
    assert patients(folder) == ["patient/1"]


def test_an_error_speaks_of_options_and_ends_its_sentences(folder: Path) -> None:
    (folder / "misspelt.csv").write_text("identifier,parent_identifier,sex\npateint/1,datasource/d,M\n")
    done = run_here("ingest", "misspelt.csv", "--missing", "delete", "--on-invalid", "skip")
    said = " ".join(done.stderr.split())
    assert "Did you mean 'patient'? The resource of this row" in said
    assert "or load without --missing delete." in said
    assert "'delete'" not in said
    assert "'patient'? Mend the rows" in " ".join(run_here("ingest", "misspelt.csv").stderr.split())


def test_files_of_a_bucket_go_into_a_lake_of_a_bucket(lake_uri: str, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    source: str | Path = tmp_path
    if lake_uri.startswith("s3://"):
        from obstore.store import S3Store

        from vxdata.lake.aws import find_s3_settings

        source = f"s3://{lake_uri.split('/')[2]}/in/"
        store = S3Store(lake_uri.split("/")[2], **find_s3_settings(lake_uri).obstore_keywords())
        store.put("in/good.csv", GOOD.encode())
    done = run_here("ingest", source, "--uri", lake_uri, "--json")
    assert (done.returncode, json.loads(done.stdout)["rejected"]) == (0, 0)
    assert Client(lake_uri).patients.retrieve("patient/1").payload.sex == "M"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nope.csv"], 3, "there is no file 'nope.csv'"),
        (["good.csv", "--type", "patiens"], 2, "Did you mean 'patients'"),
        (["good.csv", "--valid-from", "2999-01-01"], 2, "future"),
        (["good.csv", "--rejects", "r.ndjson"], 2, "r.ndjson: rejected rows are written as .csv or .tsv"),
        (["./lake/empty"], 2, "has no file that ends in"),
        (["good.csv", "--on-invalid", "perhaps"], 2, "'perhaps'"),
    ],
)
def test_a_mistake_is_named(folder: Path, args: list[str], code: int, words: str) -> None:
    (folder / "lake" / "empty").mkdir(parents=True)
    done = run_here("ingest", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in " ".join(done.stderr.split())


def test_on_a_terminal_the_steps_and_the_faults_are_shown(folder: Path) -> None:
    (folder / "bad.csv").write_bytes(b'identifier,sex\n"patient/two\nlines",=1+1\n')
    code, written = run_on_terminal("ingest", "bad.csv", columns=120)
    shown = plain(written)
    assert code == 2
    assert "read bad.csv: 1 rows" in shown
    assert r"patient/two\nlines" in shown
    assert "Rejected rows: 1" in shown


def test_derived_columns_are_a_note(folder: Path) -> None:
    frame = pl.DataFrame({"identifier": ["datasource/d"], "valid_from": ["1999-01-01"]})
    frame.write_csv(folder / "a.csv")
    assert run_here("ingest", "a.csv").stderr == "Note: ignored, since VxData derives them itself: valid_from.\n"


def test_a_file_may_have_the_name_of_a_source(folder: Path) -> None:
    (folder / "idc").mkdir()
    (folder / "idc" / "a.csv").write_text(GOOD)
    assert run_here("ingest", "./idc").returncode == 0
    assert patients(folder) == ["patient/1"]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function that returns what the shell offers for the last of some words."""

    def offers(*words: str) -> list[str]:
        monkeypatch.setenv("_VXDATA_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(("vxdata", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        return run_here().stdout.split()

    return offers


def test_types_fields_and_datasources_are_completed(folder: Path, complete: Callable[..., list[str]]) -> None:
    run_here("ingest", "good.csv")
    (folder / "vxdata.toml").write_text('[profiles.lab]\nuri = "lake"\n')
    assert complete("ingest", "files", "--type", "pat") == ["patients", "pathology_specimens", "pathology_assessments"]
    assert complete("update", "volume/1", "--set", "volume") == ["volume_type="]
    assert complete("update", "volume/1", "--unset", "lic") == ["license"]
    assert complete("query", "patients", "--select", "identifier,birth") == ["identifier,birthyear"]
    assert complete("query", "patients", "--sort", "sex,-birth") == ["sex,-birthyear"]
    assert complete("delete", "datasource/") == ["datasource/", "datasource/d"]
    assert complete("delete", "--profile", "l") == ["lab"]


def test_a_folder_without_a_dot_in_its_name_is_no_typing_error(folder: Path) -> None:
    (folder / "delivery").mkdir()
    (folder / "delivery" / "a.csv").write_text(GOOD)
    assert run_here("ingest", "delivery").returncode == 0
    assert run_here("ingest", "deliveri").returncode == 2


@pytest.mark.parametrize("mark", ["tab", "TAB", r"\t", "\t"])
def test_a_tab_is_named_or_written(folder: Path, mark: str) -> None:
    (folder / "a.csv").write_text("identifier\tparent_identifier\npatient/1\tdatasource/d\n")
    Client("lake").datasources.create(Resource(identifier="datasource/d"))
    done = run_here("ingest", "a.csv", "--delimiter", mark, "--dry-run", "--json")
    assert (done.returncode, json.loads(done.stdout)["namespaces"]["patients"]["created"]) == (0, 1)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("--delimiter", mark, "one ASCII character") for mark in ("ab", "ß", "", '"', "\n")]
    + [("--encoding", name, "the name of an encoding") for name in ("", " ")],
)
def test_what_cannot_part_cells_or_name_an_encoding_is_refused(
    folder: Path, option: str, value: str, expected: str
) -> None:
    done = run_here("ingest", "good.csv", option, value)
    said = " ".join(done.stderr.replace("│", "").split())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{value!r}: {expected}" in said
    assert option.removeprefix("--") in said


def test_a_source_behind_options_is_told_from_a_file(folder: Path) -> None:
    done = run_here("ingest", "--uri", "lake", "idc")
    said = " ".join(done.stderr.replace("│", "").split())
    assert done.returncode == 2
    assert "no file 'idc'; 'vxdata ingest idc' is a command, and its options come behind it" in said


@pytest.mark.parametrize("command", ["query", "funnel", "schema", "compact", "log --namespace", "ingest --type"])
def test_types_are_completed_wherever_one_is_asked_for(complete: Callable[..., list[str]], command: str) -> None:
    assert complete(*command.split(), "pat") == ["patients", "pathology_specimens", "pathology_assessments"]


@pytest.mark.parametrize("command", ["get", "get patient/1", "history", "tree", "restore", "erase"])
def test_identifiers_are_completed_wherever_one_is_asked_for(complete: Callable[..., list[str]], command: str) -> None:
    assert complete(*command.split(), "volu") == ["volume/"]


def test_options_are_completed_before_the_first_file(complete: Callable[..., list[str]]) -> None:
    assert complete("ingest", "--del") == ["--delimiter"]
    assert complete("ingest", "--help") == ["--help"]


def test_names_of_files_cannot_command_the_terminal(folder: Path) -> None:
    name = "\x1b[31ma.csv"
    (folder / name).write_text(GOOD)
    run_here("ingest", "good.csv")
    loaded = run_here("ingest", name, "--dry-run")
    assert loaded.returncode == 0
    assert r"\x1b[31ma.csv in " in loaded.stdout
    (folder / name).write_text("identifier\nnonsense\n")
    refused = run_here("ingest", name)
    assert refused.returncode == 2
    (folder / name).write_text("identifier,identifier\n")
    whole = run_here("ingest", name)
    assert r"\x1b[31ma.csv" in whole.stderr
    assert "\x1b" not in loaded.stdout + refused.stdout + refused.stderr + whole.stderr


def test_what_cannot_be_read_ends_with_2_and_one_sentence(folder: Path) -> None:
    (folder / "quote.csv").write_text(GOOD + 'patient/2,datasource/d,"F\npatient/3,datasource/d,"M"\n')
    (folder / "deep.ndjson").write_text('{"identifier": ' + "[" * 200_000 + "\n")
    (folder / "long.csv").write_text("identifier," + "x" * 140_000 + "\n")
    for name, words in (
        ("quote.csv", "a cell of 2 lines has text behind a closing quote in the record of line 4 (row 4)"),
        ("deep.ndjson", "the line is no JSON object: it is nested too deeply"),
        ("long.csv", "the header has a name of 140,000 characters"),
    ):
        done = run_here("ingest", name)
        assert done.returncode == 2, done.stderr
        assert words in " ".join(plain(done.stderr).split())
        assert "Traceback" not in done.stderr
    assert not (folder / "lake").exists()
