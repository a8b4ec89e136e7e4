"""docs/undo.md: its code runs and does what the page says."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import polars as pl
import pytest

from tests.test_readme import blocks
from vxdata.schemas import Resource
from vxdata.sdk import Client

T2 = "volume/BB00017/001/t2"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names of the page's code after it ran, and what it printed."""
    client = Client(tmp_path_factory.mktemp("undo") / "lake")
    parents = {"patient/BB00017": "datasource/a", "imagingstudy/BB00017/001": "patient/BB00017"}
    tree = {"datasource/a": None, **parents, T2: "imagingstudy/BB00017/001"}
    client.resources.create([Resource(identifier=i, parent_identifier=p) for i, p in tree.items()])
    frame = pl.DataFrame({"identifier": [T2], "slice_thickness": [30.0]})
    names: dict[str, Any] = {"client": client, "frame": frame}
    with redirect_stdout(StringIO()) as printed:
        for block in blocks("docs/undo.md", "python"):
            exec(compile(block, "docs/undo.md", "exec"), names)
    return names | {"printed": printed.getvalue()}


def test_the_commits_are_listed(page: dict[str, Any]) -> None:
    assert page["commits"].filter(operation="create").height == 4


def test_the_delete_is_undone(page: dict[str, Any]) -> None:
    assert page["report"].restored == {"patients": 1, "imaging_studies": 1, "volumes": 1}
    assert page["report"].left_out.is_empty()


def test_the_upsert_is_undone(page: dict[str, Any]) -> None:
    assert page["planned"].updated == page["undone"].updated == {"volumes": 1}
    values = [v.payload.slice_thickness for v in page["client"].volumes.history(T2)]
    assert values == [None, None, 30.0, None, 30.0, 3.6]


def test_the_batch_is_written_once(page: dict[str, Any]) -> None:
    assert page["printed"].splitlines()[-1] == "True"
    assert page["client"].volumes.retrieve(T2).payload.slice_thickness == 3.6
