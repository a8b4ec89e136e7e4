"""The notebooks run, as scripts and cell by cell, on a small lake of the IDC index as `vxdata demo` makes it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.cli import ROOT, environment, first_release, write_release
from vxdata.sdk import Client
from vxdata.sources.idc import find_release
from vxdata_cli.demo import build, demo_uri
from vxdata_cli.demo_questions import label_and_look_back

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@contextmanager
def no_progress(_: str) -> Iterator[Any]:
    yield lambda *_: None


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake as the demo leaves it, with four collections; not to be written to."""
    index = write_release(tmp_path_factory.mktemp("releases") / "7", first_release(), 7)
    client = Client(tmp_path_factory.mktemp("notebooks") / "demo")
    build(client, find_release(index), no_progress)
    label_and_look_back(client)
    return client.uri


@pytest.fixture
def client(lake: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("VXDATA_URI", lake)
    return Client()


def run(name: str) -> Any:
    """Run a notebook's cells; return its variables."""
    path = ROOT / "notebooks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"notebook_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _, variables = module.app.run()
    return variables


def test_first_steps(client: Client) -> None:
    seen = run("01_first_steps")
    rows = first_release()
    counts = [rows[c].n_unique() for c in ("collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID")]
    assert seen["sizes"]["resources"].to_list() == counts
    assert seen["first_ten"].height == 10
    assert seen["axial_t2"].count() == len(axial_t2())
    assert seen["scanners"]["series"].sum() == rows.filter(Modality="MR").height
    assert "goes down   F.series_description.startswith('t2_tse_tra')" in seen["explanation"]


def axial_t2() -> pl.DataFrame:
    is_t2 = pl.col("SeriesDescription").str.starts_with("t2_tse_tra")
    return first_release().filter(is_t2, collection_id="prostatex")


def test_the_cohort(client: Client) -> None:
    seen = run("02_building_a_cohort")
    isup, pirads = (seen["invented"][name] for name in ("pathology_assessments", "pirads_assessments"))

    def highest(frame: pl.DataFrame, patient: str) -> int | None:
        values = frame.filter(parent_identifier=patient).to_series(2).drop_nulls()
        return max(values, default=None)

    cohort = seen["cohort"]
    assert cohort.height == axial_t2().height
    assert all(row[2:] == (highest(isup, row[1]), highest(pirads, row[1])) for row in cohort.rows())
    fit = [row for row in cohort.rows() if (row[2] or 0) >= 2 and (row[3] or 0) >= 3]
    assert seen["funnel"]["resources"].to_list()[-1] == len(fit) > 0
    assert not Path(client.uri, "pathology_assessments").exists()


def test_time_travel(client: Client) -> None:
    seen = run("03_time_travel")
    volumes, labelled = client.volumes.query().count(), axial_t2().height
    assert seen["states"].select("volumes", "labelled").rows() == [(volumes, 0), (volumes, labelled)]
    assert seen["versions"]["volume_type"].to_list() == [None, "T2"]
    assert seen["versions"]["valid_to"].to_list() == [seen["versions"]["valid_from"][1], None]
    assert seen["again"].equals(seen["trained_on"])
    fate = [("volume/BB00017/1/0", 3.0, 3.6, False), ("volume/BB00017/1/1", 3.0, None, True)]
    assert seen["fate"].rows() == fate


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_a_script_and_leaves_the_lake_as_it_was(client: Client, path: Path) -> None:
    before = client.snapshot().token
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert client.snapshot().token == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_without_a_variable_a_notebook_reads_the_demo_lake(path: Path) -> None:
    assert "VXDATA_URI" not in os.environ
    assert 'Client(os.environ.get("VXDATA_URI") or demo_uri())' in path.read_text()
    assert demo_uri().endswith("demo")
