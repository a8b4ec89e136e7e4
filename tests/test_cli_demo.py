"""`vxdata demo`: what it shows is what it ran, and what it answers is what the index says."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from tests.support.cli import (
    PROSTATE,
    first_release,
    installed_index,
    plain,
    run,
    run_on_terminal,
    write_release,
)
from vxdata.sdk import Client, F
from vxdata_cli.demo_questions import QUESTIONS

WITHOUT_THE_INDEX = "import sys; sys.modules['idc_index_data'] = None; from vxdata_cli.main import main; main()"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("releases") / "7", first_release(), 7)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, index: Path) -> tuple[Client, str]:
    """The lake of a demo run, and what the run showed; not to be written to."""
    uri = tmp_path_factory.mktemp("lakes") / "demo"
    done = run("demo", "--uri", uri, "--index", index)
    assert (done.returncode, done.stderr) == (0, "")
    return Client(uri), done.stdout


def answers(shown: str) -> list[list[list[str]]]:
    """The tables that were shown, as cells."""
    tables = re.findall(r"─+\n((?: .+\n)+)", shown)
    return [[re.split(r"\s{2,}", line.strip()) for line in table.splitlines()] for table in tables]


def ask(index: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    connection.read_parquet(str(index / "idc_index.parquet")).create_view("idc")
    connection.read_parquet(str(index / "collections_index.parquet")).create_view("collections")
    return connection.sql(sql).fetchall()


PROSTATE_MRI = """
    SELECT 'datasource/' || collection_id, count(DISTINCT PatientID), count(*), sum(series_size_MB) / 1000,
        string_agg(DISTINCT license_short_name, ', ' ORDER BY license_short_name)
    FROM idc JOIN collections USING (collection_id)
    WHERE Modality = 'MR' AND tumor_locations LIKE '%Prostate%' GROUP BY 1 ORDER BY 2 DESC"""
LABELLED = "SELECT count(*) FROM idc WHERE collection_id = 'prostatex' AND starts_with(SeriesDescription, 't2_tse_tra')"
SEGMENTED = f"""{LABELLED} AND PatientID IN
    (SELECT PatientID FROM idc WHERE analysis_result_id = 'prostatex_seg_zones')"""


def check_answers(shown: str, index: Path) -> None:
    """Compare the answers with what DuckDB reads in the index."""
    collections, segmented, seen = answers(shown)
    expected = ask(index, PROSTATE_MRI)
    assert collections == [[name, f"{p:,}", f"{n:,}", f"{gb:,.1f}", terms] for name, p, n, gb, terms in expected]
    rest = re.search(r"and ([0-9,]+) more rows", shown)
    assert len(segmented) + int(rest[1].replace(",", "") if rest else 0) == ask(index, SEGMENTED)[0][0]
    labelled, everything = f"{ask(index, LABELLED)[0][0]:,}", f"{ask(index, 'SELECT count(*) FROM idc')[0][0]:,}"
    assert [row[1:] for row in seen] == [[everything, "0"], [everything, labelled], [everything, labelled]]


# ---- what it shows


def test_the_code_that_is_shown_is_the_code_that_ran(demo: tuple[Client, str]) -> None:
    shown = [line.rstrip() for line in demo[1].splitlines()]
    for question in QUESTIONS:
        code = inspect.getsource(question).splitlines()
        assert any(shown[at : at + len(code)] == code for at in range(len(shown)))


def test_the_answers_are_what_the_index_says(demo: tuple[Client, str], index: Path) -> None:
    check_answers(demo[1], index)


def test_a_pipe_gets_no_colours(demo: tuple[Client, str]) -> None:
    assert "\x1b" not in demo[1]


def test_the_hint_at_the_end_works_when_pasted(demo: tuple[Client, str]) -> None:
    client, shown = demo
    code = shown[shown.index("    from vxdata.sdk import") :].partition("\n\n")[0]
    names: dict[str, Any] = {}
    exec(inspect.cleandoc(code), names)
    assert names["client"].uri == client.uri


def test_the_questions_leave_a_new_version_and_the_past(demo: tuple[Client, str]) -> None:
    client, _ = demo
    labelled = client.volumes.query().filter(F.volume_type == "T2", F.image_plane == "transversal").collect()
    first, second = client.volumes.history(labelled["identifier"][0])
    assert (first.payload.volume_type, second.payload.volume_type) == (None, "T2")
    assert first.valid_to == second.valid_from == labelled["valid_from"][0]


@pytest.mark.parametrize("columns", [80, 120])
def test_running_it_again_writes_nothing_and_fits_the_terminal(
    demo: tuple[Client, str], index: Path, columns: int
) -> None:
    client, _ = demo
    before = client.snapshot().token
    code, written = run_on_terminal("demo", "--uri", client.uri, "--index", index, columns=columns)
    assert code == 0
    assert client.snapshot().token == before
    shown = plain(written).partition("Ask your own")[0].splitlines()
    assert max(map(len, shown[1:])) == columns  # the rules; no line is longer
    assert "\x1b[3" in written  # colours


# ---- where it is


def test_it_has_a_lake_of_its_own_in_the_data_folder(monkeypatch: pytest.MonkeyPatch, home: Path, index: Path) -> None:
    monkeypatch.setenv("VXDATA_URI", str(home / "mine"))
    done = run("demo", "--index", index)
    assert done.returncode == 0
    assert f"The demo lake is at {home / 'data' / 'vxdata' / 'demo'}" in done.stdout
    assert [path.name for path in (home / "data" / "vxdata").iterdir()] == ["demo"]
    assert not (home / "mine").exists()


def test_a_new_index_updates_the_lake(tmp_path: Path, demo: tuple[Client, str]) -> None:
    client = Client(shutil.copytree(demo[0].uri, tmp_path / "demo"))
    rows = first_release().filter(pl.col("collection_id") != PROSTATE)
    assert run("demo", "--uri", client.uri, "--index", write_release(tmp_path / "8", rows, 8)).returncode == 0
    assert client.volumes.query().count() == rows.height < demo[0].volumes.query().count()


def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    done = run("demo", "--uri", tmp_path / "demo", command=(sys.executable, "-c", WITHOUT_THE_INDEX))
    assert done.returncode == 3
    assert "idc-index-data is not installed" in done.stderr
    assert "pip install 'vxdata[idc]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()


# ---- the whole index


@pytest.mark.slow
def test_the_whole_index_takes_less_than_a_minute(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run("demo", "--uri", tmp_path / "demo")
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, installed_index())
    assert took < 60 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert Client(tmp_path / "demo").volumes.query().count() == ask(installed_index(), "SELECT count(*) FROM idc")[0][0]
