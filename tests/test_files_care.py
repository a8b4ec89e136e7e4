"""Loading files touches nothing that they do not say: no field, no resource, and no file of somebody else."""

from __future__ import annotations

import csv
import json
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.registered import registered
from tests.test_files_source import client as client  # a lake with one datasource
from tests.test_files_source import held, patient, write_csv, write_lines
from vxdata.errors import InvalidInputError, StorageError
from vxdata.schemas import Payload
from vxdata.schemas.columns import INSTANT
from vxdata.sdk import Client
from vxdata.sdk.files import ingest_files
from vxdata.sources import csv as csv_source
from vxdata.sources import ndjson
from vxdata.sources.cells import TextRules, check_date_form, parse_cells
from vxdata.sources.files import find_files

# ---- fields that lines do not have


@pytest.mark.parametrize("doubt", [{"sex": "M\u00e4"}, {"sex": "birthyear"}], ids=["escapes", "a name as a value"])
def test_a_field_that_no_line_has_stays_though_a_key_comes_late(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubt: dict[str, str]
) -> None:
    monkeypatch.setattr(ndjson, "_FIRST_LINES", 2)
    ingest_files(client, write_lines(tmp_path / "a.ndjson", *(patient(n, birthyear=1950, sex="F") for n in range(5))))
    lines = [patient(n, sex="M") for n in range(4)] + [patient(4, license="CC0", **doubt)]
    report = ingest_files(client, write_lines(tmp_path / "b.ndjson", *lines))
    assert held(client, "birthyear", "sex") == [(1950, "M")] * 4 + [(1950, doubt["sex"])]
    assert report.ignored == ()


def test_a_late_key_that_is_written_with_escapes_is_one(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ndjson, "_FIRST_LINES", 2)
    ingest_files(client, write_lines(tmp_path / "a.ndjson", *(patient(n, birthyear=1950) for n in range(4))))
    late = json.dumps(patient(3, license="CC0", birthyear=None)).replace("birthyear", r"birthye\u0061r")
    ingest_files(client, write_lines(tmp_path / "b.ndjson", *(patient(n, sex="M") for n in range(3)), late))
    assert held(client, "birthyear") == [(None,)] * 4


@pytest.mark.parametrize("blank", ["", "\n"], ids=["fast", "line by line"])
def test_a_field_of_two_types_stays_where_the_lines_of_one_lack_it(client: Client, tmp_path: Path, blank: str) -> None:
    below = {"parent_identifier": "patient/1"}
    both = [
        {"identifier": "piradsassessment/1", "score": 4, "reader": "Anna", **below},
        {"identifier": "annotationsession/1", "status": "open", "reader": "Anna", **below},
    ]
    ingest_files(client, write_lines(tmp_path / "a.ndjson", patient(1), *both))
    del both[1]["reader"]
    changed = [{**both[0], "reader": "Bert"}, {**both[1], "status": "done"}]
    ingest_files(
        client, write_lines(tmp_path / "b.ndjson", *map(json.dumps, changed[:1]), blank + json.dumps(changed[1]))
    )
    sessions = client.annotation_sessions.query().select("status", "reader").collect()
    assert sessions.rows() == [("done", "Anna")]
    assert client.pirads_assessments.query().select("reader").collect().rows() == [("Bert",)]


# ---- values


def test_line_breaks_in_cells_are_kept_wherever_a_block_ends(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCKS", (64, 1 << 20))
    chance = random.Random(3)
    texts = ["".join(chance.choices(["\r\n", "\r", "\n", "x", "yy"], k=12)) for _ in range(400)]
    path = tmp_path / "a.csv"
    rows = [(f"patient/{n:03}", "datasource/d", "", text) for n, text in enumerate(texts)]
    for end in ("\r\n", "\n"):
        write_csv(path, *rows, lineterminator=end, quoting=csv.QUOTE_ALL)
        ingest_files(client, path)
        assert held(client, "sex") == [(text,) for text in texts]


class Scan(Payload, type="scan", namespace="scans", parents=("patient",)):
    thumbnail: bytes | None = None
    parts: list[bytes] | None = None


@pytest.fixture
def scan_type() -> Iterator[None]:
    with registered("scan", Scan):
        yield


def thumbnails(client: Client) -> list[bytes | None]:
    scans: Any = getattr(client, "scans")  # noqa: B009  # of a type that was registered just now
    return list(scans.query().sort("identifier").collect()["thumbnail"])


@pytest.mark.parametrize("blank", ["", "\n"], ids=["fast", "line by line"])
def test_bytes_are_base64_in_text(client: Client, tmp_path: Path, scan_type: None, blank: str) -> None:
    row = {"identifier": "scan/1", "parent_identifier": "patient/1", "thumbnail": "aGVsbG//"}
    ingest_files(client, write_lines(tmp_path / "a.ndjson", patient(1), blank + json.dumps(row)))
    header = ("identifier", "parent_identifier", "thumbnail")
    ingest_files(client, write_csv(tmp_path / "b.csv", ("scan/2", "patient/1", "aGVsbG8="), header=header))
    assert thumbnails(client) == [b"hello\xff", b"hello"]


@pytest.mark.parametrize("more", [{"thumbnail": "hello\xff"}, {"parts": ["aGVsbG8="]}], ids=["no base64", "nested"])
def test_text_that_stands_for_no_bytes_is_a_fault_of_its_row(
    client: Client, tmp_path: Path, scan_type: None, more: dict[str, Any]
) -> None:
    row = {"identifier": "scan/1", "parent_identifier": "patient/1", **more}
    report = ingest_files(client, write_lines(tmp_path / "a.ndjson", patient(1), row))
    assert report.rejected.select("row", "field").rows() == [(2, next(iter(more)))]


def test_rejected_bytes_of_parquet_come_back(client: Client, tmp_path: Path, scan_type: None) -> None:
    ingest_files(client, write_lines(tmp_path / "p.ndjson", patient(1)))
    rows = {"identifier": ["scan/1"], "parent_identifier": ["patient/none"], "thumbnail": [b"hello\xff"]}
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    rejects = tmp_path / "r.ndjson"
    assert ingest_files(client, tmp_path / "a.parquet", on_invalid="skip", rejects=rejects).rejected_rows == 1
    rejects.write_text(rejects.read_text().replace("patient/none", "patient/1"))
    ingest_files(client, rejects)
    assert thumbnails(client) == [b"hello\xff"]


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S%.f", "%d.%m.%Y %H:%M:%S.%f %z"])
def test_fractions_of_a_second_are_read_in_a_named_form(form: str) -> None:
    times = ["12:00:00.123456", "12:00:00.5", "12:00:00.000"]
    day, zone = ("2020-01-02", "") if form.startswith("%Y") else ("02.01.2020", " +0000")
    cells = pl.Series([f"{day} {time}{zone}" for time in times])
    read = parse_cells(cells, INSTANT, TextRules(date_formats=(check_date_form(form),)))
    assert [value.microsecond for value in read] == [123456, 500000, 0]


# ---- resources


def test_a_rejects_file_closes_nothing(client: Client, tmp_path: Path) -> None:
    rows = [(f"patient/{n}", "datasource/d", 1950 + n, "F") for n in range(3)]
    wrong = ("patient/3", "datasource/d", "19x2", "F")
    rejects = tmp_path / "r.csv"
    source = write_csv(tmp_path / "a.csv", *rows, wrong)
    ingest_files(client, source, missing="delete", on_invalid="skip", rejects=rejects)
    rejects.write_text(rejects.read_text().replace("19x2", "1952"))
    with pytest.raises(InvalidInputError, match=r"r\.csv is a rejects file .* Load it without missing='delete'"):
        ingest_files(client, rejects, missing="delete")
    ingest_files(client, rejects)
    assert held(client, "birthyear") == [(1950,), (1951,), (1952,), (1952,)]


# ---- files of others


@pytest.mark.parametrize("is_dry", [True, False])
@pytest.mark.parametrize("year", [1950, "19x2"])
def test_a_file_that_is_no_rejects_file_is_left_alone(
    client: Client, tmp_path: Path, *, year: int | str, is_dry: bool
) -> None:
    mine = write_csv(tmp_path / "mine.csv", ("a", 1), header=("name", "count"))
    before = mine.read_bytes()
    source = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", year, "F"))
    with pytest.raises(InvalidInputError, match=r"mine\.csv is there already, and no rejects file"):
        ingest_files(client, source, rejects=mine, dry_run=is_dry)
    assert mine.read_bytes() == before
    assert held(client, "identifier") == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_an_earlier_rejects_file_is_replaced_and_a_dry_run_removes_none(
    client: Client, tmp_path: Path, encoding: str
) -> None:
    rejects = tmp_path / "r.csv"
    for year in ("19x2", "19x3"):
        source = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", year, "F"), encoding=encoding)
        ingest_files(client, source, on_invalid="skip", rejects=rejects, encoding=encoding)
        assert year in rejects.read_text(encoding)
    sound = write_csv(tmp_path / "b.csv", ("patient/1", "datasource/d", 1950, "F"), encoding=encoding)
    ingest_files(client, sound, rejects=rejects, encoding=encoding, dry_run=True)
    assert rejects.exists()
    ingest_files(client, sound, rejects=rejects, encoding=encoding)
    assert not rejects.exists()


# ---- folders


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "a.csv")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    with pytest.raises(StorageError, match=r"secret: Permission denied; what it holds would be left out"):
        find_files([tmp_path])


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write_csv(tmp_path / "else.csv")
    (tmp_path / "other").mkdir()
    write_csv(tmp_path / "other" / "b.csv")
    (tmp_path / "d" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "loop").symlink_to(tmp_path / "other")
    assert [file.path.name for file in find_files([tmp_path / "d"])] == ["b.csv"]


def test_files_of_other_forms_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "vxdata"):
        find_files([tmp_path])
    assert "are left out: 'b.csv.gz'." in caplog.text
