"""docs/files.md and docs/settings.md are true: their tables and examples are run."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from tests.support.cli import ROOT, run_here
from vxdata.schemas import Resource
from vxdata.sdk import Client
from vxdata.sdk.settings import KEYS, find_settings
from vxdata.sources.cells import TextRules, is_unread, parse_cells
from vxdata.sources.files import FORMS

FILES = (ROOT / "docs" / "files.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
TYPES = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "bool": pl.Boolean(),
    "date and time": pl.Datetime("us", "UTC"),
    "list": pl.List(pl.String()),
    "bytes": pl.Binary(),
}


def table(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table under a header."""
    lines = text[text.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    "row", [r for r in table(FILES, "type | read | rejected") if r[0] != "text"], ids=lambda r: r[0]
)
def test_each_form_is_read_or_rejected_as_the_table_says(row: list[str]) -> None:
    kind, _, option = row[0].partition(", `")
    form = option.removeprefix("--date-format ").rstrip("`")
    rules = TextRules("comma" in option, (form,) if "%" in form else ())
    for words, is_bad in ((row[1], False), (row[2], True)):
        cells = pl.Series(re.findall("`([^`]+)`", words))
        assert is_unread(cells, parse_cells(cells, TYPES[kind], rules)).to_list() == [is_bad] * len(cells)


def test_the_suffixes_are_those_that_are_read() -> None:
    assert set(FORMS) == set(re.findall(r"`(\.[a-z]+)`", FILES.split("\n\n")[1]))


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VXDATA_URI", "lake")
    Client().datasources.create(Resource(identifier="datasource/d"))
    (tmp_path / "delivery").mkdir()
    rows = "patient/1,datasource/d\npatient/2,datasource/e\n"
    (tmp_path / "delivery" / "a.csv").write_text("identifier,parent_identifier\n" + rows)
    names: dict[str, object] = {}
    exec(re.findall("```python\n(.*?)```", FILES, re.DOTALL)[0], names)
    assert (tmp_path / "rejects.csv").read_text().count("\n") == 2
    assert Client().patients.query().count() == 1


def test_each_option_of_the_page_is_one_of_the_command() -> None:
    shown = run_here("ingest", "files", "--help").stdout
    assert [option for option in set(re.findall(r"--[a-z][a-z-]+", FILES)) if option not in shown] == []


def test_the_example_of_settings_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vxdata.toml").write_text(re.findall("```toml\n(.*?)```", SETTINGS, re.DOTALL)[0])
    assert find_settings()["uri"] == "s3://bucket/lake"
    assert find_settings(profile="lab")["uri"] == str(tmp_path / "data" / "lake")
    assert find_settings(profile="clinic").storage_options["profile"] == "clinic-sso"
    keys = [row[0].strip("`") for row in table(SETTINGS, "key | environment | what it is")]
    assert keys == [*KEYS, "profile"]
