"""Files into a lake: what a file says is what the lake holds, and every row that cannot be is named.

The oracle is the source file itself, read by the csv and json modules.
"""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from tests.support.servers import make_bucket
from vxdata.errors import InvalidInputError, NotFoundError, StorageError
from vxdata.lake import slices
from vxdata.schemas import Resource
from vxdata.sdk import Client, F
from vxdata.sdk.files import ingest_files
from vxdata.sdk.ingest import ingest
from vxdata.sources import csv as csv_source
from vxdata.sources import files as sources
from vxdata.sources import ndjson
from vxdata.sources.cells import TextRules, is_unread, parse_cells
from vxdata.sources.quotes import OpenQuoteError, QuoteWatch, quote_fault, records

HEADER = ("identifier", "parent_identifier", "birthyear", "sex")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A lake with one datasource."""
    client = Client(tmp_path / "lake")
    client.datasources.create(Resource(identifier="datasource/d"))
    return client


def write_csv(path: Path, *rows: Sequence[Any], header: Sequence[str] = HEADER, **form: Any) -> Path:
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as stream:
        csv.writer(stream, **form).writerows([header, *rows])
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def patient(number: int, **more: Any) -> dict[str, Any]:
    return {"identifier": f"patient/{number}", "parent_identifier": "datasource/d", **more}


def faults(report: Any) -> list[tuple[int, str | None, str | None]]:
    return list(report.rejected.select("row", "field", "value").iter_rows())


def held(client: Client, *columns: str) -> list[tuple[Any, ...]]:
    return list(client.patients.query().sort("identifier").select(*columns).collect().iter_rows())


# ---- what a file says is what the lake holds

NASTY = [
    "",
    "a,b",
    'say "hi"',
    "two\nlines",
    "two\r\nlines",
    "=1+1",
    " blank ",
    "é€\u3042",
    "'",
    ";",
    "\t",
    "NULL",
    "0",
]


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"), ("|", "utf-8")]
)
def test_a_csv_file_is_held_cell_by_cell(client: Client, tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [(f"patient/{n}", "datasource/d", 1900 + n, text) for n, text in enumerate(NASTY[1:])]
    path = write_csv(tmp_path / "a.csv", *rows, delimiter=delimiter, encoding=encoding)
    report = ingest_files(client, [path])
    with path.open(newline="", encoding=encoding) as stream:
        expected = [
            (r["identifier"], int(r["birthyear"]), r["sex"]) for r in csv.DictReader(stream, delimiter=delimiter)
        ]
    assert held(client, "identifier", "birthyear", "sex") == sorted(expected)
    assert report.reports["patients"].created == len(NASTY) - 1


def test_the_encodings_of_old_windows_files_are_read_when_named(client: Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "", "männlich €"), encoding="cp1252")
    with pytest.raises(InvalidInputError, match=r"a\.csv is not written in utf-8 .*--encoding cp1252"):
        ingest_files(client, [path])
    ingest_files(client, [path], encoding="cp1252")
    assert held(client, "sex") == [("männlich €",)]


def test_undecodable_bytes_far_into_a_file_are_refused_before_anything_is_written(
    client: Client, tmp_path: Path
) -> None:
    rows = [(f"patient/{n}", "datasource/d", "", "x" * 50) for n in range(80_000)]
    path = write_csv(tmp_path / "a.csv", *rows)
    path.write_bytes(path.read_bytes() + b"patient/last,datasource/d,,\xe9\n")
    with pytest.raises(InvalidInputError, match="not written in utf-8"):
        ingest_files(client, [path])
    assert client.patients.query().count() == 0


def test_one_path_needs_no_list(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "datasources.ndjson"
    path.write_text('{"identifier": "datasource/semi"}\n')
    for paths in (path, str(path), [path]):
        assert ingest_files(client, paths).files == (str(path),)
    assert client.datasources.retrieve("datasource/semi").identifier == "datasource/semi"


def test_an_empty_cell_is_null_and_a_quoted_one_is_empty_text(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'identifier,parent_identifier,birthyear,sex\npatient/1,datasource/d,"",""\npatient/2,datasource/d,,\n'
    )
    ingest_files(client, [path])
    assert held(client, "birthyear", "sex") == [(None, ""), (None, None)]


def test_words_for_null_are_named(client: Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "NA", "NULL"))
    assert faults(ingest_files(client, [path])) == [(2, "birthyear", "NA")]
    ingest_files(client, [path], nulls=["NA"])
    assert held(client, "birthyear", "sex") == [(None, "NULL")]


def ndjson_rows(count: int) -> list[dict[str, Any]]:
    chance = random.Random(5)
    texts = [*NASTY, None]
    return [
        {
            "identifier": f"volume/p {n % 7}/=s/{n}",
            "parent_identifier": f"imagingstudy/p {n % 7}/=s",
            "slice_thickness": chance.choice([None, 1, 2.5, -3e-7]),
            "series_number": chance.choice([None, 2**53 + 1, -5]),
            "series_description": chance.choice(texts),
            "derived_from": chance.choice([None, [], ["volume/x", ""]]),
            "series_datetime": chance.choice([None, "2024-02-29T23:59:59.123456+02:00", "20240229"]),
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("piece", [1 << 20, 3_000], ids=["one piece", "many pieces"])
@pytest.mark.parametrize("blank", ["", "\n"], ids=["strictly", "line by line"])
def test_ndjson_of_mixed_types_in_any_order_is_held_value_by_value(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, blank: str
) -> None:
    monkeypatch.setattr(ndjson, "PIECE_BYTES", piece)
    volumes = ndjson_rows(60)
    above = [
        {"identifier": f"{kind}/p {n}{rest}", "parent_identifier": parent.format(n)}
        for kind, rest, parent in (("imagingstudy", "/=s", "patient/p {}"), ("patient", "", "datasource/d"))
        for n in range(7)
    ]
    lines = [*volumes[:30], *above, *volumes[30:]]
    path = write_lines(tmp_path / "a.ndjson", *map(json.dumps, lines[:9]), blank + json.dumps(lines[9]), *lines[10:])
    report = ingest_files(client, [path])
    assert (report.rejected_rows, report.is_written) == (0, True)
    instants = {"2024-02-29T23:59:59.123456+02:00": datetime(2024, 2, 29, 21, 59, 59, 123456, UTC)}
    instants |= {"20240229": datetime(2024, 2, 29, tzinfo=UTC)}
    for line in volumes:
        line["series_datetime"] = line["series_datetime"] and instants[line["series_datetime"]]
    found = client.volumes.query().select(*volumes[0]).collect().sort("identifier").to_dicts()
    assert found == sorted(volumes, key=lambda line: line["identifier"])


def test_parquet_of_mixed_types_is_held_value_by_value(client: Client, tmp_path: Path) -> None:
    rows = [patient(1, birthyear=1950.0, value=None), patient(2, birthyear=None, value=None)]
    rows += [
        {"identifier": "psameasurement/1", "parent_identifier": "patient/1", "birthyear": None, "value": float("nan")}
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    report = ingest_files(client, [tmp_path / "a.parquet"])
    assert {name: r.created for name, r in report.reports.items()} == {"patients": 2, "psa_measurements": 1}
    assert held(client, "identifier", "birthyear") == [("patient/1", 1950), ("patient/2", None)]
    assert client.psa_measurements.query().select("value").collect().item() is None


def test_loading_again_writes_nothing(client: Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", 1950, "M"))
    ingest_files(client, [path])
    again = ingest_files(client, [path])
    assert (again.is_written, again.reports["patients"].unchanged) == (False, 1)


def test_thousands_of_columns_are_read(client: Client, tmp_path: Path) -> None:
    names = [f"_{n}" for n in range(3_000)]
    path = write_csv(tmp_path / "a.csv", ("patient/1", *names), header=("identifier", *names))
    with pytest.raises(InvalidInputError, match="no type has a field '_0'"):
        ingest_files(client, [path])


def test_what_does_not_fit_into_memory_goes_through_a_folder(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SPILL_BYTES", 1)
    one = write_lines(tmp_path / "a.ndjson", *(patient(n, birthyear=n) for n in range(20)))
    two = write_csv(
        tmp_path / "b.csv", *((f"patient/{n}", "datasource/d", n) for n in range(20, 40)), header=HEADER[:3]
    )
    ingest_files(client, [one, two])
    assert sorted(held(client, "birthyear")) == [(n,) for n in range(40)]


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_more_faults_than_a_report_holds_refuse_the_files(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_invalid: Any
) -> None:
    monkeypatch.setattr(sources, "MOST_FAULTS", 3)
    good = write_csv(tmp_path / "a.csv", ("patient/good", "datasource/d", 1950), header=HEADER[:3])
    bad = [write_csv(tmp_path / f"{n}.csv", *((f"patient/{n}", "x", "19x0"),) * n, header=HEADER[:3]) for n in (1, 3)]
    with pytest.raises(InvalidInputError, match=r"more than 3 faults.*1\.csv, row 2, birthyear: '19x0': .*in parts"):
        ingest_files(client, [good, *bad], on_invalid=on_invalid)
    assert held(client, "identifier") == []
    assert ingest_files(client, [good, bad[1]], on_invalid="skip").rejected_rows == 3


def test_a_column_that_a_file_lacks_stays_and_an_empty_cell_clears(client: Client, tmp_path: Path) -> None:
    ingest_files(client, [write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", 1950, "M"))])
    ingest_files(client, [write_csv(tmp_path / "b.csv", ("patient/1", ""), header=("identifier", "birthyear"))])
    assert held(client, "birthyear", "sex") == [(None, "M")]


@pytest.mark.parametrize("blank", ["", "\n"], ids=["strictly", "line by line"])
def test_a_key_that_one_type_lacks_clears_nothing_there(client: Client, tmp_path: Path, blank: str) -> None:
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", patient(1, license="CC0"))])
    volume = {"identifier": "datasource/d", "license": "CC BY"}
    ingest_files(client, [write_lines(tmp_path / "b.ndjson", blank + json.dumps(patient(1, sex="F")), volume)])
    assert held(client, "license", "sex") == [("CC0", "F")]


def test_files_that_set_different_fields_of_a_type_are_refused(client: Client, tmp_path: Path) -> None:
    one = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", 1950, "M"))
    two = write_csv(tmp_path / "b.csv", ("patient/2", "datasource/d", 1950), header=HEADER[:3])
    with pytest.raises(InvalidInputError, match=r"b\.csv and .*a\.csv set different fields of patients \('sex'\)"):
        ingest_files(client, [one, two])


# ---- the text of cells


def parsed(cells: Iterable[str | None], wanted: pl.DataType, rules: TextRules | None = None) -> list[Any]:
    """Return the values; "?" for a cell that cannot be read."""
    text = pl.Series("x", list(cells), dtype=pl.String)
    values = parse_cells(text, wanted, rules or TextRules())
    return ["?" if bad else value for bad, value in zip(is_unread(text, values), values.to_list(), strict=True)]


def test_numbers_are_read_in_the_forms_that_are_certain() -> None:
    cells = [
        "3",
        " 3.5 ",
        ".5",
        "5.",
        "-1e-3",
        "+7",
        "",
        None,
        "1,5",
        "1.234,5",
        "1_000",
        "0x10",
        "1e999",
        "3 mm",
        "--1",
    ]
    expected = [3.0, 3.5, 0.5, 5.0, -0.001, 7.0, None, None, *["?"] * 7]
    assert parsed(cells, pl.Float64()) == expected


def test_decimal_commas_are_read_when_named_and_points_then_refused() -> None:
    comma = TextRules(decimal_comma=True)
    assert parsed(["3,5", "3", "1.234", "1.234,5", "1,2,3", "-0,5"], pl.Float64(), comma) == [
        3.5,
        3.0,
        "?",
        "?",
        "?",
        -0.5,
    ]
    assert parsed(["3,0", "3,5"], pl.Int64(), comma) == [3, "?"]


def test_whole_numbers_are_never_rounded() -> None:
    cells = ["3", "3.0", "3.", "007", "-5", "9223372036854775807", "9223372036854775808", "3.5", "1e3", ""]
    assert parsed(cells, pl.Int64()) == [3, 3, 3, 7, -5, 2**63 - 1, "?", "?", "?", None]


def test_booleans_are_words() -> None:
    assert parsed(["true", "FALSE", "yes", "n", "1", "0", "2", "maybe"], pl.Boolean()) == [
        True, False, True, False, True, False, "?", "?",
    ]  # fmt: skip


DAY = datetime(2024, 4, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2024-04-03", DAY),
        ("20240403", DAY),
        ("03.04.2024", DAY),
        ("3.4.2024", DAY),
        ("3.4.2024 15:30", DAY.replace(hour=15, minute=30)),
        ("2024-04-03 15:30", DAY.replace(hour=15, minute=30)),
        ("2024-04-03T15:30:05.5", DAY.replace(hour=15, minute=30, second=5, microsecond=500_000)),
        ("2024-04-03T15:30:05+02:00", DAY.replace(hour=13, minute=30, second=5)),
        ("2024-04-03 15:30:05Z", DAY.replace(hour=15, minute=30, second=5)),
        ("20240403153005.25", DAY.replace(hour=15, minute=30, second=5, microsecond=250_000)),
        ("", None),
        ("03/04/2024", "?"),
        ("2024/04/03", "?"),
        ("2024-4-3", "?"),
        ("03.04.24", "?"),
        ("20240231", "?"),
        ("0000-01-01", "?"),
        ("1712102400", "?"),
        ("yesterday", "?"),
    ],
)
def test_dates_are_read_in_the_forms_that_are_certain(cell: str, expected: Any) -> None:
    assert parsed([cell, "2000-01-01", cell], pl.Datetime("us", "UTC"))[::2] == [expected, expected]


def test_another_form_of_dates_is_named_and_then_the_only_one() -> None:
    rules = TextRules(date_formats=("%d/%m/%Y", "%d/%m/%Y %H:%M"))
    cells = ["03/04/2024", "03/04/2024 00:00", "03/04/24", "2024-04-03"]
    assert parsed(cells, pl.Datetime("us", "UTC"), rules) == [DAY, DAY, "?", "?"]


@pytest.mark.parametrize("form", ["%Q", "d/m/y", "%d/%m", ""])
def test_a_form_of_dates_that_is_none_is_refused(client: Client, tmp_path: Path, form: str) -> None:
    with pytest.raises(InvalidInputError, match="date"):
        ingest_files(client, [tmp_path / "a.csv"], date_formats=[form])


def test_lists_and_nested_models_are_json() -> None:
    cells = ['["a", "b"]', "[]", '["a", 1]', "a;b", '"a"', None]
    assert parsed(cells, pl.List(pl.String())) == [["a", "b"], [], "?", "?", "?", None]
    nested = pl.Struct({"a": pl.Int64()})
    assert parsed(['{"a": 1}', '{"b": 1}', '{"a": "1"}'], nested) == [{"a": 1}, "?", "?"]


# ---- rows that cannot be


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_each_bad_row_is_named_by_row_field_and_value(client: Client, tmp_path: Path, on_invalid: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "identifier,parent_identifier,birthyear,sex\n"
        "patient/1,datasource/d,1950,M\n"
        'patient/2,datasource/d,19x,"two\nlines"\n'
        "patient/3,datasource/none,1950,M\n"
        ",datasource/d,1950,M\n"
        "\n"
        "patient/6,datasource/d,1950\n"
        "patient/7,datasource/d,1950,M,more\n"
        "patien/8,datasource/d,1950,M\n"
        "patient/ 9,datasource/d,1950,M\n"
        "patient/10,datasource/d,1,M\n"
        "patient/10,datasource/d,2,M\n"
        "patient/11,datasource/d,1950,a\0b\n"
    )
    report = ingest_files(client, [path], on_invalid=on_invalid)
    assert faults(report) == [
        (3, "birthyear", "19x"),
        (4, "parent_identifier", "datasource/none"),
        (5, "identifier", None),
        (7, None, "patient/6,datasource/d,1950"),
        (8, None, "patient/7,datasource/d,1950,M,more"),
        (9, "identifier", "patien/8"),
        (10, "identifier", "patient/ 9"),
        (11, "identifier", "patient/10"),
        (12, "identifier", "patient/10"),
        (13, "sex", "a\0b"),
    ]
    assert report.rejected_rows == 10
    assert held(client, "identifier") == ([("patient/1",)] if on_invalid == "skip" else [])
    assert report.is_written is (on_invalid == "skip")


def test_rows_are_counted_over_blocks_batches_and_records_that_fit_no_block(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCKS", (1 << 12, 1 << 20))
    monkeypatch.setattr(csv_source, "_BATCH_ROWS", 100)
    rows: list[Sequence[Any]] = [(f"patient/{n}", "datasource/d", n, "two\nlines") for n in range(2_000)]
    rows[100], rows[1_300], rows[1_999] = ("patient/100",), ("patient/1300", "x", 1, "F", "more"), ("",)
    rows[777], rows[1_500] = (
        ("patient/777", "datasource/d", "x", "M"),
        ("patient/1500", "datasource/d", 5, "y" * 50_000),
    )
    report = ingest_files(client, [write_csv(tmp_path / "a.csv", *rows)], on_invalid="skip")
    assert [(row, field) for row, field, _ in faults(report)] == [
        (102, None), (779, "birthyear"), (1_302, None), (2_001, None),
    ]  # fmt: skip
    expected = set(range(1_999)) - {100, 777, 1_300}
    assert {int(identifier.partition("/")[2]) for (identifier,) in held(client, "identifier")} == expected


def test_each_bad_line_of_ndjson_is_named(client: Client, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.ndjson",
        patient(1),
        patient(2, birthyear="1950"),
        "{bad",
        "[1]",
        patient(5, birthyear=1950.5, sex=5),
        '{"identifier": "patient/6", "identifier": "patient/7"}',
        patient(7, sex="half \ud800 a pair"),
        patient(8, slice_thickness=3),
        {"identifier": 9},
        patient(10, birthyear=True),
    )
    found = faults(ingest_files(client, [path], on_invalid="skip"))
    assert [(row, field) for row, field, _ in found] == [
        (2, "birthyear"), (3, None), (4, None), (5, "birthyear"), (5, "sex"), (6, None), (7, "sex"),
        (8, "slice_thickness"), (9, "identifier"), (10, "birthyear"),
    ]  # fmt: skip
    assert held(client, "identifier") == [("patient/1",)]


def test_a_near_miss_of_a_column_is_named(client: Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ("volume/1", 3), header=("identifier", "slice_thicknes"))
    with pytest.raises(InvalidInputError, match=r"'slice_thicknes'. Did you mean 'slice_thickness'\?"):
        ingest_files(client, [path])


def test_a_near_miss_of_a_key_refuses_the_file_or_is_skipped_with_its_row(client: Client, tmp_path: Path) -> None:
    near, alone = patient(2, birthyer=1950), {"identifer": "patient/3", "parent_identifier": "datasource/d"}
    path = write_lines(tmp_path / "a.ndjson", patient(1, birthyear=1949), near, alone, patient(4, sex=5, zzz=None))
    with pytest.raises(InvalidInputError, match=r"a\.ndjson: no type has a field 'birthyer'. Did you mean 'birthyear'"):
        ingest_files(client, [path])
    report = ingest_files(client, [path], on_invalid="skip", rejects=tmp_path / "rejects.ndjson")
    assert faults(report) == [
        (2, "birthyer", "1950"),
        (3, "identifer", '"patient/3"'),
        (4, "zzz", "null"),
        (4, "sex", "5"),
    ]
    assert report.rejected["reason"][0] == "no type has a field 'birthyer'. Did you mean 'birthyear'?"
    assert held(client, "identifier", "birthyear") == [("patient/1", 1949)]
    mended = (
        (tmp_path / "rejects.ndjson").read_text().replace("birthyer", "birthyear").replace("identifer", "identifier")
    )
    (tmp_path / "rejects.ndjson").write_text(mended.replace('"sex": 5, "zzz": null', '"sex": "M"'))
    ingest_files(client, [tmp_path / "rejects.ndjson"])
    assert [birthyear for _, birthyear in held(client, "identifier", "birthyear")] == [1949, 1950, None, None]


def test_a_column_of_another_type_is_refused_with_its_owner(client: Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", ""), header=("identifier", "slice_thickness"))
    with pytest.raises(
        InvalidInputError, match="holds patients, which have no field 'slice_thickness'; volumes have it"
    ):
        ingest_files(client, [path])


def test_the_one_type_may_be_named(client: Client, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "", ""), ("volume/1", "patient/1", "", ""))
    for name in ("patients", "patient"):
        assert faults(ingest_files(client, [path], type=name)) == [(3, "identifier", "volume/1")]
    with pytest.raises(InvalidInputError, match=r"unknown type 'patiens'. Did you mean 'patients'"):
        ingest_files(client, [path], type="patiens")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.ndjson", b"", "is empty"),
        ("a.csv", b"name,sex\nx,M\n", "no column 'identifier'; it has 'name', 'sex'"),
        ("a.csv", b"identifer,sex\nx,M\n", "'identifer': Did you mean 'identifier'"),
        ("a.csv", b"identifier,sex,sex\npatient/1,M,F\n", "names 'sex' more than once"),
        ("a.csv", b'identifier,sex\npatient/1,"M\npatient/2,F\n', "a quote is not closed in the record of line 2"),
        ("a.ndjson", b'[{"identifier": "patient/1"}]', "one JSON array"),
        ("a.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("a.xlsx", b"PK", "ends in .csv, .tsv, .ndjson, .jsonl, .parquet is expected"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_refused(
    client: Client, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError) as raised:
        ingest_files(client, [tmp_path / name], on_invalid="skip")
    assert words in str(raised.value)
    assert name in str(raised.value)


def test_a_truncated_parquet_file_is_refused(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame([patient(n) for n in range(1_000)]).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInputError, match=r"a\.parquet cannot be read as Parquet"):
        ingest_files(client, [path])


def test_a_parquet_column_of_a_wrong_type_is_refused(client: Client, tmp_path: Path) -> None:
    for value in ("1950", True):
        pl.DataFrame([patient(1, birthyear=value)]).write_parquet(tmp_path / "a.parquet")
        with pytest.raises(InvalidInputError, match=r"column 'birthyear' is of \w+, but patients.birthyear of Int64"):
            ingest_files(client, [tmp_path / "a.parquet"])


def test_a_whole_number_in_a_float_column_is_one_and_a_fraction_is_named(client: Client, tmp_path: Path) -> None:
    rows = [patient(1, birthyear=1950.0), patient(2, birthyear=1950.5), patient(3, birthyear=None)]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    assert faults(ingest_files(client, [tmp_path / "a.parquet"], on_invalid="skip")) == [(2, "birthyear", "1950.5")]
    assert held(client, "birthyear") == [(1950,), (None,)]


def test_a_header_alone_is_a_file_without_rows(client: Client, tmp_path: Path) -> None:
    report = ingest_files(client, [write_csv(tmp_path / "a.csv")])
    assert (report.is_written, report.rejected_rows, dict(report.reports)) == (False, 0, {})


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_record_of_many_megabytes_is_read(client: Client, tmp_path: Path, form: str) -> None:
    text, path = "x" * 40_000_000, tmp_path / f"a.{form}"
    if form == "csv":
        write_csv(path, ("patient/0", "datasource/d", "", ""), ("patient/1", "datasource/d", "", text))
    else:
        write_lines(path, patient(0, sex=None), patient(1, sex=text))
    ingest_files(client, [path])
    assert [len(sex or "") for (sex,) in held(client, "sex")] == [0, 40_000_000]


def test_derived_columns_are_ignored_and_named(client: Client, tmp_path: Path) -> None:
    rows = [patient(1, valid_from="1999-01-01", datasource_id="nonsense", ancestors=5)]
    for path in (
        write_lines(tmp_path / "a.ndjson", *rows),
        write_csv(tmp_path / "a.csv", tuple(rows[0].values()), header=tuple(rows[0])),
    ):
        assert ingest_files(client, [path]).ignored == ("ancestors", "datasource_id", "valid_from")
    assert client.patients.retrieve("patient/1").valid_from.year > 2000


def test_an_export_of_the_lake_can_be_loaded_again(client: Client, tmp_path: Path) -> None:
    ingest_files(client, [write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", 1950, "M"))])
    export = client.patients.query().collect().with_columns(sex=pl.lit("F"))
    export.write_ndjson(tmp_path / "b.ndjson")
    export.with_columns(pl.col("ancestors").list.join(" ")).write_csv(tmp_path / "b.csv")
    assert ingest_files(client, [tmp_path / "b.ndjson"]).reports["patients"].updated == 1
    assert ingest_files(client, [tmp_path / "b.csv"]).reports["patients"].unchanged == 1


# ---- the rejects file


def mend(path: Path, wrong: str, right: str) -> None:
    path.write_text(path.read_text().replace(wrong, right))


def test_rejected_csv_rows_can_be_mended_and_loaded(client: Client, tmp_path: Path) -> None:
    rows = [("patient/1", "datasource/d", 1950, "M"), ("patient/2", "datasource/d", "19x", 'a "b", c\nd')]
    path = write_csv(tmp_path / "a.csv", *rows, delimiter=";")
    path.write_text(path.read_text() + 'patient/3;datasource/e;;""\npatient/4;datasource/d\n')
    rejects = tmp_path / "r.csv"
    ingest_files(client, [path], on_invalid="skip", rejects=rejects)
    with rejects.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [(r["_file"], r["_row"], r["_field"]) for r in found] == [
        (str(path), "3", "birthyear"), (str(path), "4", "parent_identifier"), (str(path), "5", ""),
    ]  # fmt: skip
    mend(rejects, "19x", "1951")
    mend(rejects, "datasource/e", "datasource/d")
    assert [fault[0] for fault in faults(ingest_files(client, [rejects]))] == [4]
    mend(rejects, "patient/4,datasource/d\n", "patient/4,datasource/d,,\n")
    assert ingest_files(client, [rejects]).reports["patients"].created == 3
    assert held(client, "birthyear", "sex")[1:] == [(1951, 'a "b", c\nd'), (None, ""), (None, None)]


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
def test_rejected_rows_of_other_forms_can_be_mended_and_loaded(client: Client, tmp_path: Path, form: str) -> None:
    rows = [patient(1, sex="M"), patient(2, sex="F") | {"parent_identifier": "datasource/e"}]
    path, rejects = tmp_path / f"a.{form}", tmp_path / "r.ndjson"
    if form == "ndjson":
        write_lines(path, *rows, "{bad")
    else:
        pl.DataFrame(rows).write_parquet(path)
    ingest_files(client, [path], on_invalid="skip", rejects=rejects)
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert (found[0]["_row"], found[0]["_field"], found[0].get("_line")) == (2, "parent_identifier", None)
    assert [r.get("_line") for r in found[1:]] == (["{bad"] if form == "ndjson" else [])
    mend(rejects, "datasource/e", "datasource/d")
    rejects.write_text(rejects.read_text().splitlines()[0] + "\n")
    assert ingest_files(client, [rejects]).reports["patients"].created == 1
    assert held(client, "sex") == [("M",), ("F",)]


def test_a_rejects_file_that_cannot_keep_the_form_is_refused_before_anything_is_written(
    client: Client, tmp_path: Path
) -> None:
    one = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", 1950, "M"))
    two = write_lines(tmp_path / "b.ndjson", patient(2))
    for paths, rejects in (([one, two], "r.csv"), ([one], "r.ndjson"), ([two], "r.csv"), ([one], one.name)):
        with pytest.raises(InvalidInputError):
            ingest_files(client, paths, on_invalid="skip", rejects=tmp_path / rejects)
    assert held(client, "identifier") == []


# ---- what may be closed, dry runs, history


def test_a_dry_run_says_what_would_be_done_and_makes_no_lake(tmp_path: Path) -> None:
    client, path = Client(tmp_path / "none"), tmp_path / "a.ndjson"
    write_lines(path, patient(1), {"identifier": "datasource/d"}, patient(2, birthyear="x"))
    report = ingest_files(client, [path], dry_run=True)
    assert {name: r.created for name, r in report.reports.items()} == {"datasources": 1, "patients": 1}
    assert faults(report) == [(3, "birthyear", '"x"')]
    assert not (tmp_path / "none").exists()


def test_a_dry_run_with_missing_delete_counts_what_the_run_then_closes(client: Client, tmp_path: Path) -> None:
    studies = [{"identifier": f"imagingstudy/{n}", "parent_identifier": f"patient/{n}"} for n in (1, 2)]
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", *studies, patient(1), patient(2, sex="M"))])
    second = write_lines(tmp_path / "b.ndjson", studies[0], patient(1, sex="F"))
    planned, done = (ingest_files(client, [second], missing="delete", dry_run=dry) for dry in (True, False))
    assert (planned.is_written, done.is_written) == (False, True)
    assert {n: (r.updated, r.deleted) for n, r in planned.reports.items()} == {
        "patients": (1, 1),
        "imaging_studies": (0, 1),
    }
    assert dict(planned.reports) == {n: planned.reports[n] for n in done.reports}
    assert [(r.updated, r.deleted) for r in planned.reports.values()] == [
        (r.updated, r.deleted) for r in done.reports.values()
    ]
    assert held(client, "identifier") == [("patient/1",)]


def test_missing_delete_that_would_leave_children_behind_writes_nothing(client: Client, tmp_path: Path) -> None:
    study = {"identifier": "imagingstudy/1", "parent_identifier": "patient/1"}
    psa = {"identifier": "psameasurement/1", "parent_identifier": "patient/1"}
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", study, patient(1), psa)])
    second = write_lines(
        tmp_path / "b.ndjson", patient(2), study | {"parent_identifier": "patient/2", "identifier": "imagingstudy/2"}
    )
    for dry in (True, False):
        with pytest.raises(InvalidInputError, match=r"live children are left \(1 psa_measurements\)"):
            ingest_files(client, [second], missing="delete", dry_run=dry)
    assert held(client, "identifier") == [("patient/1",)]


def test_history_is_loaded_with_its_instant(client: Client, tmp_path: Path) -> None:
    lake = Client(tmp_path / "past")
    path = write_lines(tmp_path / "a.ndjson", {"identifier": "datasource/d"}, patient(1))
    ingest_files(lake, [path], valid_from="2020-01-01", reason="first delivery")
    assert lake.patients.retrieve("patient/1").valid_from == datetime(2020, 1, 1, tzinfo=UTC)
    late = write_lines(tmp_path / "b.ndjson", patient(1, sex="M"))
    report = ingest_files(lake, [late], valid_from="2019-01-01")
    assert faults(report) == [(1, "valid_from", "patient/1")] or faults(report)[0][0] == 1
    assert "valid_from is not later" in report.rejected["reason"][0]


# ---- where files are


def test_a_folder_is_searched_and_hidden_files_are_left(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    write_lines(folder / "deep" / "a.jsonl", patient(1, birthyear=1))
    write_csv(folder / "b.CSV", ("patient/2", "datasource/d", 2), header=HEADER[:3])
    (folder / "deep" / ".hidden" / "c.csv").write_text("nonsense")
    (folder / "readme.txt").write_text("nonsense")
    report = ingest_files(client, [folder])
    assert report.files == (str(folder / "b.CSV"), str(folder / "deep" / "a.jsonl"))
    assert held(client, "identifier") == [("patient/1",), ("patient/2",)]


def test_a_folder_without_files_and_a_missing_file_are_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "scan.dcm").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"in' has no file that ends in .*; it holds 'scan.dcm'"):
        ingest_files(client, [tmp_path / "in"])
    with pytest.raises(NotFoundError, match=r"there is no file '.*nope.csv'"):
        ingest_files(client, [tmp_path / "nope.csv"])
    with pytest.raises(InvalidInputError, match="no file was named"):
        ingest_files(client, [])


def test_objects_of_a_bucket_are_read(
    lake_uri: str, tmp_path: Path, moto_url: str, use_endpoint: Callable[[str], None]
) -> None:
    from obstore.store import S3Store

    if not lake_uri.startswith("s3://"):
        use_endpoint(moto_url)
        lake_uri = "s3://files-for-local/unused"
        make_bucket(moto_url, "files-for-local")
    bucket = lake_uri.split("/")[2]
    from vxdata.lake.aws import find_s3_settings

    store = S3Store(bucket, **find_s3_settings(lake_uri).obstore_keywords())
    lines = [{"identifier": "datasource/d"}, patient(1)]
    store.put("in/a b/x=1.ndjson", "\n".join(map(json.dumps, lines)).encode())
    for name in ("readme.txt", ".hidden.csv", "_tmp/b.csv", "deep/.git/c.ndjson"):
        store.put(f"in/{name}", b"nonsense")
    store.put("_in/d.ndjson", json.dumps(patient(1)).encode())
    client = Client(lake_uri)
    for address in (f"s3://{bucket}/in", f"s3://{bucket}/in/a b/x=1.ndjson"):
        report = ingest_files(client, [address])
        assert report.files == (f"s3://{bucket}/in/a b/x=1.ndjson",)
    assert ingest_files(client, [f"s3://{bucket}/_in/"]).files == (f"s3://{bucket}/_in/d.ndjson",)  # named as such
    assert client.patients.query().filter(F.datasource_id == "d").count() == 1
    with pytest.raises(NotFoundError, match="nothing to read at s3://"):
        ingest_files(client, [f"s3://{bucket}/nothing/"])


# ---- quotes, bytes and numbers that no reader may take in silence

HEAD = ",".join(HEADER) + "\n"


def reasons(report: Any) -> list[str]:
    return list(report.rejected["reason"])


def write_text(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def refusal(client: Client, path: Path, **options: Any) -> str:
    """Return why a file is refused as a whole, though invalid rows are skipped."""
    with pytest.raises(InvalidInputError) as raised:
        ingest_files(client, [path], on_invalid="skip", **options)
    assert held(client, "identifier") == []
    return str(raised.value)


SWALLOWING = {
    "after a stray quote": ('5" x', '"F', "x", "y"),
    "two open ones": ("x", '"F', "x", '"M'),
    "one before a quoted cell": ("x", '"F', '"M"', "y"),
    "at the end": ("x", "y", "z", '"F'),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("cells", SWALLOWING.values(), ids=SWALLOWING)
def test_a_file_with_a_quote_that_swallows_rows_is_refused(
    client: Client, tmp_path: Path, cells: Sequence[str], encoding: str
) -> None:
    rows = "".join(f"patient/{n},datasource/d,,{cell}\n" for n, cell in enumerate(cells, 2))
    path = write_text(tmp_path / "a.csv", HEAD + rows, encoding)
    row = next(n for n, cell in enumerate(cells, 2) if cell in ('"F', '"M'))
    assert f"in the record of line {row} (row {row}): '\"F" in refusal(client, path)


def test_a_byte_of_a_quote_in_a_character_of_two_bytes_hides_no_open_one(client: Client, tmp_path: Path) -> None:
    rows = 'patient/1,datasource/d,,\u2265\npatient/2,datasource/d,,"F\npatient/3,datasource/d,,M\n'
    path = write_text(tmp_path / "a.csv", HEAD + rows, "utf-16")
    assert "a quote is not closed in the record of line 3 (row 3)" in refusal(client, path)


@pytest.mark.parametrize("blocks", [(16 << 20, 1 << 30), (1 << 10, 1 << 20)], ids=["one block", "many blocks"])
def test_a_quote_within_one_line_is_a_fault_of_its_row(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]
) -> None:
    monkeypatch.setattr(csv_source, "_BLOCKS", blocks)
    monkeypatch.setattr(csv_source, "_BATCH_ROWS", 10)
    cells = {n: '"' + n % 50 * "ä€" + ' ""x""\n"' for n in range(300)} | {7: '5" x', 250: '"M" x', 251: ' "F"'}
    rows = "".join(f"patient/{n},datasource/d,,{cell}\n" for n, cell in cells.items())
    path = write_text(tmp_path / "a.csv", HEAD + rows)
    report = ingest_files(client, [path], on_invalid="skip", rejects=tmp_path / "r.csv")
    assert faults(report) == [(9, "sex", '5" x'), (252, "sex", '"M" x'), (253, "sex", ' "F"')]
    inside, behind = "sex holds a quote inside, but does not begin with one", "sex has text behind a closing quote"
    assert reasons(report) == [inside, behind, inside]
    assert client.patients.query().count() == 297
    assert client.patients.query().filter(F.identifier == "patient/8").collect()["sex"].item() == 8 * "ä€" + ' "x"\n'
    with (tmp_path / "r.csv").open(newline="") as stream:
        assert [row["sex"] for row in csv.DictReader(stream)] == ['5" x', '"M" x', ' "F"']


def test_the_watch_of_quotes_finds_what_cell_by_cell_is_found() -> None:
    chance = random.Random(3)
    found = set()
    for _ in range(1_000):
        text = "".join(chance.choice('",\na') for _ in range(chance.randint(1, 9)))
        watch, rest = QuoteWatch(","), text.encode()
        while rest:
            size = chance.randint(1, 4)
            watch.see(rest[:size])
            rest = rest[size:]
        watch.see(b"")
        try:
            cells = [cell for _, row in records(text.splitlines(keepends=True), ",") for cell in row]
            is_sound = not any(map(quote_fault, cells))
        except OpenQuoteError:
            is_sound = False
        assert (text, watch.is_sound) == (text, is_sound)
        found.add(is_sound)
    assert found == {True, False}


@pytest.mark.parametrize(
    ("name", "encoding", "text"),
    [
        ("a.csv", "utf-8", HEAD + "patient/1,datasource/d,,a\0b\n"),
        ("a.csv", "utf-16", HEAD + "patient/1,datasource/d,,a\0b\n"),
        ("a.ndjson", "utf-8", "\n" + json.dumps(patient(1, sex="a\0b"))),
        ("a.ndjson", "utf-8", json.dumps(patient(0)) + "\n" + json.dumps(patient(1, sex="a\0b"))),
    ],
)
def test_a_nul_byte_is_a_fault_of_its_row(client: Client, tmp_path: Path, name: str, encoding: str, text: str) -> None:
    report = ingest_files(client, [write_text(tmp_path / name, text, encoding)])
    assert [(row, field) for row, field, _ in faults(report)] == [(2, "sex")]
    assert reasons(report) == ["sex holds a NUL byte"]


def test_a_nul_byte_in_parquet_is_a_fault_of_its_row(client: Client, tmp_path: Path) -> None:
    pl.DataFrame([patient(1, sex=None), patient(2, sex="a\0b")]).write_parquet(tmp_path / "a.parquet")
    report = ingest_files(client, [tmp_path / "a.parquet"])
    assert (faults(report), reasons(report)) == ([(2, "sex", "a\0b")], ["sex holds a NUL byte"])


@pytest.mark.parametrize("blank", [b"", b"\n"], ids=["strictly", "line by line"])
def test_a_byte_that_is_no_utf8_is_a_fault_of_its_line(client: Client, tmp_path: Path, blank: bytes) -> None:
    lines = [json.dumps(patient(n, sex="M")).encode() for n in (1, 2, 3)]
    lines[1] = lines[1].replace(b'"M"', b'"M\xe4"')
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(lines) + b"\n" + blank)
    report = ingest_files(client, [tmp_path / "a.ndjson"], on_invalid="skip")
    assert [(row, field) for row, field, _ in faults(report)] == [(2, None)]
    assert "can't decode byte 0xe4" in reasons(report)[0]
    assert held(client, "identifier", "sex") == [("patient/1", "M"), ("patient/3", "M")]


@pytest.mark.parametrize("blank", ["", "\n"], ids=["strictly", "line by line"])
def test_a_number_that_does_not_fit_is_a_fault_and_an_infinite_one_none(
    client: Client, tmp_path: Path, blank: str
) -> None:
    head = '{"identifier": "psameasurement/%d", "parent_identifier": "patient/1", "value": %s}'
    numbers = ["1e400", "-1e400", "9" * 400, "9" * 5_000, "Infinity", "-Infinity", "1e308"]
    path = write_lines(tmp_path / "a.ndjson", patient(1), *(head % pair for pair in enumerate(numbers)), *blank)
    report = ingest_files(client, [path], on_invalid="skip")
    assert [row for row, _, _ in faults(report)] == [2, 3, 4, 5]
    assert set(reasons(report)) == {"value is no number of 64 bits"}
    found = client.psa_measurements.query().sort("identifier").select("value").collect()["value"]
    assert found.to_list() == parsed(["inf", "-Infinity", "1e308"], pl.Float64())


@pytest.mark.parametrize("cell", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_an_instant_beyond_the_calendar_is_a_fault_of_its_row(client: Client, tmp_path: Path, cell: str) -> None:
    rows = [("imagingstudy/1", "patient/1", cell), ("patient/1", "datasource/d", "")]
    header = ("identifier", "parent_identifier", "study_datetime")
    report = ingest_files(client, [write_csv(tmp_path / "a.csv", *rows, header=header)], on_invalid="skip")
    assert faults(report) == [(2, "study_datetime", cell)]
    assert "is no date that is certain, of the years 1 to 9999" in reasons(report)[0]
    assert held(client, "identifier") == [("patient/1",)]


@pytest.mark.parametrize("seconds", [400_000_000_000, -100_000_000_000, 300 * 10**12])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_an_instant_of_parquet_beyond_the_calendar_is_a_fault_of_its_row(
    client: Client, tmp_path: Path, seconds: int, zone: str | None
) -> None:
    rows = [{"identifier": "imagingstudy/1", "parent_identifier": "patient/1", "study_datetime": 0}]
    rows.append(rows[0] | {"identifier": "imagingstudy/2", "study_datetime": seconds * 1000})
    frame = pl.DataFrame([patient(1, study_datetime=None), *rows])
    path = tmp_path / "a.parquet"
    frame.with_columns(pl.col("study_datetime").cast(pl.Datetime("ms", zone))).write_parquet(path)
    report = ingest_files(client, [path], on_invalid="skip")
    assert faults(report) == [(3, "study_datetime", f"{seconds * 1000} ms since 1970-01-01")]
    assert reasons(report) == ["study_datetime is no instant of the years 1 to 9999"]
    found = client.imaging_studies.query().collect()
    assert found["study_datetime"].to_list() == [datetime(1970, 1, 1, tzinfo=UTC)]


LONG = "x" * 140_000


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", f"identifier,{LONG}\n", "the header has a name of 140,000 characters, 'xxx"),
        ("a.csv", LONG + "\n", "no column 'identifier'; it has 'xxx"),
        ("a.csv", "x" * 5_000_000, "its first line is longer than 4 MiB"),
        ("a.csv", "\nidentifier\n", "its first line is blank"),
        ("a.csv", 'identifier,"sex\npatient/1,M\n', "a name in the header, row 1, begins with a quote that is not"),
        ("a.csv", "identifier,:row\npatient/1,7\n", "no type has a field ':row'"),
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused_in_words(
    client: Client, tmp_path: Path, name: str, text: str, words: str
) -> None:
    message = refusal(client, write_text(tmp_path / name, text))
    assert words in message
    assert len(message) < 1_000


def test_a_ragged_row_with_a_long_cell_is_kept_as_it_stands(client: Client, tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", HEAD + f'patient/1,"",{LONG}\n')
    ingest_files(client, [path], on_invalid="skip", rejects=tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().endswith(f',patient/1,"",{LONG}\n')


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_a_line_nested_too_deeply_is_a_fault_of_its_row(client: Client, tmp_path: Path, on_invalid: Any) -> None:
    path = write_lines(tmp_path / "a.ndjson", patient(1), "[" * 200_000, '{"identifier": ' + "[" * 200_000)
    report = ingest_files(client, [path], on_invalid=on_invalid)
    assert [row for row, _, _ in faults(report)] == [2, 3]
    assert reasons(report) == ["the line is no JSON object: it is nested too deeply"] * 2


def test_a_nested_value_where_text_is_expected_is_a_fault_of_its_row(client: Client, tmp_path: Path) -> None:
    line = json.dumps(patient(1, sex=5)).replace("5", "[" * 900 + "]" * 900)
    report = ingest_files(client, [write_lines(tmp_path / "a.ndjson", line)])
    assert [(row, field) for row, field, _ in faults(report)] == [(1, "sex")]
    assert reasons(report) == ["sex is no text"]


def test_a_key_with_the_name_of_row_numbers_is_none(client: Client, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.ndjson", patient(1), patient(2) | {":row": 77, "sex": 5})
    with pytest.raises(InvalidInputError, match="no type has a field ':row'"):
        ingest_files(client, [path])
    report = ingest_files(client, [path], on_invalid="skip")
    assert faults(report) == [(2, ":row", "77"), (2, "sex", "5")]
    pl.DataFrame([patient(1) | {":row": 77}]).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"a\.parquet: no type has a field ':row'"):
        ingest_files(client, [tmp_path / "a.parquet"])


def test_an_undecodable_ragged_row_far_into_a_file_gives_the_hint_of_encodings(
    client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD.encode() + b"patient/1,datasource/d,,M\n" * 200_000 + b"patient/2,datasource/d,m\xe4nnlich\n")
    assert "is not written in utf-8" in (words := refusal(client, path))
    assert "--encoding cp1252" in words
    assert "m\\xe4nnlich" in words
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("named", "written"), [("utf-8", "utf-8-sig"), ("utf-16-le", "utf-16"), ("utf-16", "utf-16")])
def test_a_byte_order_mark_is_no_part_of_the_header_of_a_named_encoding(
    client: Client, tmp_path: Path, named: str, written: str
) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "", "\u2265"), encoding=written)
    ingest_files(client, [path], encoding=named)
    assert held(client, "sex") == [("\u2265",)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_files_in_another_encoding_of_unicode_are_told_how_to_be_read(
    client: Client, tmp_path: Path, encoding: str
) -> None:
    lines = write_text(tmp_path / "a.ndjson", json.dumps(patient(1)) + "\n" + json.dumps(patient(2)), encoding)
    assert "a.ndjson is not written in UTF-8, but UTF-16" in refusal(client, lines)
    if encoding.startswith("utf-16-"):
        cells = write_text(tmp_path / "a.csv", HEAD, encoding)
        assert "--encoding utf-16-le" in refusal(client, cells)


@pytest.mark.parametrize("delimiter", ["", "::", "\u00b6", '"'])
def test_a_delimiter_that_is_none_is_refused(client: Client, tmp_path: Path, delimiter: str) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "", "M"))
    assert "one ASCII character is expected" in refusal(client, path, delimiter=delimiter)


# ---- columns of several files


def instants(*values: int, unit: Literal["ms", "us"] = "us", zone: str | None = None) -> pl.Series:
    return pl.Series(values, dtype=pl.Int64).cast(pl.Datetime(unit, zone))


def volumes(client: Client) -> pl.DataFrame:
    rows = [{"identifier": f"imagingstudy/{n}", "parent_identifier": f"patient/{n}"} for n in (1, 2)]
    ingest(client, {"patients": pl.DataFrame([patient(1), patient(2)]), "imaging_studies": pl.DataFrame(rows)})
    names = {"identifier": ["volume/1", "volume/2"], "parent_identifier": ["imagingstudy/1", "imagingstudy/2"]}
    return pl.DataFrame(names)


def test_numbers_of_one_file_are_no_texts_because_another_file_has_texts(client: Client, tmp_path: Path) -> None:
    rows = volumes(client)
    a = rows[:1].with_columns(derived_from=pl.Series([["volume/a"]]))
    b = rows[1:].with_columns(derived_from=pl.Series([[1, 2]]))
    a.write_parquet(tmp_path / "a.parquet")
    b.write_parquet(tmp_path / "b.parquet")
    for names in (("a", "b"), ("b", "a"), ("b",)):
        with pytest.raises(InvalidInputError, match=r"b\.parquet: the column 'derived_from' is of List\(Int64\), but"):
            ingest_files(client, [tmp_path / f"{name}.parquet" for name in names])


def test_instants_with_and_without_a_zone_in_two_files_are_both_read(client: Client, tmp_path: Path) -> None:
    rows = volumes(client)
    naive, aware = instants(3_600_000, unit="ms"), instants(0, zone="Europe/Berlin")
    rows[:1].with_columns(acquisition_datetime=naive).write_parquet(tmp_path / "a.parquet")
    rows[1:].with_columns(acquisition_datetime=aware).write_parquet(tmp_path / "b.parquet")
    ingest_files(client, [tmp_path / "a.parquet", tmp_path / "b.parquet"])
    found = client.volumes.query().sort("identifier").select("acquisition_datetime").collect().to_series()
    assert found.to_list() == [datetime(1970, 1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("name", "values", "value"),
    [
        ("acquisition_datetime", instants(0, 3 * 10**17, unit="ms"), "300000000000000000 ms since 1970-01-01"),
        (
            "acquisition_datetime",
            instants(0, 3 * 10**17, unit="ms", zone="UTC"),
            "300000000000000000 ms since 1970-01-01",
        ),
        ("acquisition_datetime", instants(0, 253_402_300_800_000_000), "253402300800000000 us since 1970-01-01"),
        ("series_number", pl.Series([1, 2**63 + 5], dtype=pl.UInt64), str(2**63 + 5)),
        ("modality", pl.Series([b"MR", b"\xe4"]), "b'\\xe4'"),
    ],
)
def test_a_value_beyond_its_type_is_named_and_its_row_rejected(
    client: Client, tmp_path: Path, name: str, values: pl.Series, value: str
) -> None:
    volumes(client).with_columns(values.alias(name)).write_parquet(tmp_path / "a.parquet")
    assert faults(ingest_files(client, [tmp_path / "a.parquet"], on_invalid="skip")) == [(2, name, value)]
    assert client.volumes.query().count() == 1


def test_identifiers_that_are_bytes_are_text_or_rejected(client: Client, tmp_path: Path) -> None:
    names = pl.Series([b"patient/1", b"patient/\xe4", "patient/ü".encode(), None])
    rows = pl.DataFrame({"identifier": names, "parent_identifier": ["datasource/d"] * 4})
    rows.write_parquet(tmp_path / "a.parquet")
    report = ingest_files(client, [tmp_path / "a.parquet"], on_invalid="skip")
    assert faults(report)[0] == (2, "identifier", "b'patient/\\xe4'")
    assert report.rejected["reason"].to_list() == ["identifier is no text in UTF-8", "identifier is null"]
    assert held(client, "identifier") == [("patient/1",), ("patient/ü",)]


@pytest.mark.parametrize(
    "values",
    [pl.Series([1, 2]).cast(pl.Duration("us")), pl.Series([1, 2]).cast(pl.Time), pl.Series([b"a", b"b"])],
    ids=["duration", "time", "binary"],
)
def test_a_column_that_fits_no_type_is_refused_with_its_file(client: Client, tmp_path: Path, values: pl.Series) -> None:
    volumes(client).with_columns(values.alias("slice_thickness")).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"a\.parquet: the column 'slice_thickness' is of"):
        ingest_files(client, [tmp_path / "a.parquet"], on_invalid="skip")


def test_nan_is_null_also_in_a_float_column_of_whole_numbers(client: Client, tmp_path: Path) -> None:
    rows = [patient(1, birthyear=1950.0), patient(2, birthyear=float("nan"))]
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    ingest_files(client, [tmp_path / "a.parquet"])
    assert held(client, "birthyear") == [(1950,), (None,)]


# ---- invalid rows and what the files lack


def family(client: Client, tmp_path: Path) -> None:
    """Load three patients of one datasource, each with a study."""
    studies = [{"identifier": f"imagingstudy/{n}", "parent_identifier": f"patient/{n}"} for n in (1, 2, 3)]
    ingest_files(client, [write_lines(tmp_path / "family.ndjson", *(patient(n, birthyear=1950) for n in (1, 2, 3)))])
    ingest_files(client, [write_lines(tmp_path / "studies.ndjson", *studies)])


@pytest.mark.parametrize("held_bytes", [1, 1 << 30], ids=["slices", "whole"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_an_invalid_row_does_not_make_its_resource_missing(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, held_bytes: int
) -> None:
    family(client, tmp_path)
    monkeypatch.setattr(slices, "POLICY", slices.SlicePolicy(held_bytes=held_bytes, run_bytes=1, sample_rows=1))
    path = tmp_path / f"m.{form}"
    if form == "csv":
        write_csv(path, ("patient/1", "datasource/d", 1950), ("patient/2", "datasource/d", "19x1"), header=HEADER[:3])
    elif form == "ndjson":
        write_lines(path, patient(1, birthyear=1950), patient(2, birthyear="19x1"))
    else:
        pl.DataFrame([patient(1, birthyear=1950.0), patient(2, birthyear=19.5)]).write_parquet(path)
    options: Any = {"missing": "delete", "cascade": True, "on_invalid": "skip"}
    for dry in (True, False):
        report = ingest_files(client, [path], dry_run=dry, **options)
        assert (report.rejected["field"].to_list(), report.reports["patients"].deleted) == (["birthyear"], 1)
    assert held(client, "identifier") == [("patient/1",), ("patient/2",)]
    assert client.imaging_studies.query().count() == 2


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("a.csv", "patient/2,datasource/d", "the row has 2 cells, but the header 3"),
        ("a.csv", ",datasource/d,1950", "identifier is null"),
        ("a.csv", "pateint/2,datasource/d,1950", "identifier is of the type 'pateint'"),
        ("a.ndjson", '{"identifier": "patient/2"', "the line is no JSON object"),
        ("a.ndjson", '{"identifier": 2}', "identifier is no text"),
    ],
)
def test_what_is_missing_cannot_be_told_beside_a_row_that_nobody_can_name(
    client: Client, tmp_path: Path, name: str, bad: str, words: str
) -> None:
    family(client, tmp_path)
    good = "identifier,parent_identifier,birthyear\npatient/1,datasource/d,1951\n"
    lines = json.dumps(patient(1, birthyear=1951)) + "\n"
    (tmp_path / name).write_text((good if name == "a.csv" else lines) + bad + "\n")
    for dry in (True, False):
        with pytest.raises(InvalidInputError, match=rf"{name}, row [23]: {words}.* cannot be told"):
            ingest_files(client, [tmp_path / name], missing="delete", on_invalid="skip", dry_run=dry)
    assert held(client, "birthyear") == [(1950,)] * 3
    assert ingest_files(client, [tmp_path / name], on_invalid="skip").reports["patients"].updated == 1


def test_a_row_of_another_type_than_the_one_that_was_named_may_hang_on_what_would_be_closed(
    client: Client, tmp_path: Path
) -> None:
    family(client, tmp_path)
    path = write_csv(tmp_path / "a.csv", ("patient/1",), ("volume/1",), header=HEADER[:1])
    with pytest.raises(InvalidInputError, match="row 3: identifier is of the type 'volume'"):
        ingest_files(client, [path], type="patients", missing="delete", cascade=True, on_invalid="skip")


def test_an_invalid_row_is_not_closed_with_an_ancestor_of_its_own_type(client: Client, tmp_path: Path) -> None:
    names = [("1", "patient/1"), ("2", "pathologyspecimen/1"), ("3", "patient/1")]
    rows = [{"identifier": f"pathologyspecimen/{n}", "parent_identifier": parent} for n, parent in names]
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", patient(1), *rows)])
    second = write_lines(tmp_path / "b.ndjson", {**rows[1], "is_event_root": "x"}, {**rows[2], "is_event_root": True})
    with pytest.raises(InvalidInputError, match="holds 'pathologyspecimen/2' but lacks an ancestor"):
        ingest_files(client, [second], missing="delete", cascade=True, on_invalid="skip")
    assert client.pathology_specimens.query().count() == 3


# ---- what is rejected, mended and loaded again is what the mended original says


def skip(client: Client, rejects: Path, *paths: Path, **options: Any) -> Any:
    return ingest_files(client, paths, on_invalid="skip", rejects=rejects, **options)


def states(client: Client, namespace: str, *columns: str) -> list[tuple[Any, ...]]:
    return list(getattr(client, namespace).query().sort("identifier").select(*columns).collect().iter_rows())


def test_rejects_of_one_type_of_a_mixed_csv_file_are_loaded_again(client: Client, tmp_path: Path) -> None:
    header = ("identifier", "parent_identifier", "birthyear", "study_description")
    rows = [("patient/1", "datasource/d", "19x", ""), ("imagingstudy/1", "patient/2", "", "a")]
    path = write_csv(tmp_path / "a.csv", *rows, ("patient/2", "datasource/d", "1952", ""), header=header)
    skip(client, tmp_path / "r.csv", path)
    mend(tmp_path / "r.csv", "19x", "1951")
    ingest_files(client, [tmp_path / "r.csv"])
    assert held(client, "birthyear") == [(1951,), (1952,)]


def test_a_column_of_another_file_in_the_rejects_clears_nothing(client: Client, tmp_path: Path) -> None:
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", patient(1, license="CC0", sex="M"))])
    a = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "19x"), header=HEADER[:3])
    header = ("identifier", "parent_identifier", "study_description", "license")
    b = write_csv(tmp_path / "b.csv", ("imagingstudy/1", "patient/9", "a", ""), header=header)
    rejects, again = tmp_path / "r.csv", tmp_path / "again.csv"
    skip(client, rejects, a, b)
    assert rejects.read_text().startswith("_file,_row,_field,_reason,_columns,identifier,parent_identifier,birthyear,")
    mend(rejects, "patient/9", "patient/1")
    skip(client, again, rejects)  # what it rejects still says which columns it has
    mend(again, "19x", "1951")
    ingest_files(client, [again])
    assert states(client, "patients", "birthyear", "license", "sex") == [(1951, "CC0", "M")]
    assert states(client, "imaging_studies", "study_description", "license") == [("a", None)]
    again.write_text(again.read_text().rstrip("\n") + "CC-BY\n")
    assert faults(ingest_files(client, [again])) == [(2, "license", "CC-BY")]


@pytest.mark.parametrize("other", [None, ("imagingstudy/1", "patient/9", "x")], ids=["one header", "two headers"])
def test_a_row_with_too_few_cells_is_rejected_again_unless_it_is_mended(
    client: Client, tmp_path: Path, other: tuple[str, ...] | None
) -> None:
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", patient(2, sex="M"))])
    a = write_csv(tmp_path / "a.csv", ("patient/2", "datasource/d", "1951"))
    b = [] if other is None else [write_csv(tmp_path / "b.csv", other, header=(*HEADER[:2], "study_description"))]
    skip(client, tmp_path / "r.csv", a, *b)
    found = faults(ingest_files(client, [tmp_path / "r.csv"], on_invalid="skip"))
    assert {row for row, field, _ in found if field is None} == {2}
    assert held(client, "birthyear", "sex") == [(None, "M")]


def test_a_line_with_a_key_twice_is_rejected_again_unless_it_is_mended(client: Client, tmp_path: Path) -> None:
    line = '{"identifier": "patient/1", "parent_identifier": "datasource/d", "sex": "M", "sex": "F"}'
    rejects = tmp_path / "r.ndjson"
    skip(client, rejects, write_lines(tmp_path / "a.ndjson", line))
    assert json.loads(rejects.read_text())["_line"] == line
    assert ingest_files(client, [rejects]).rejected_rows == 1


def test_a_key_that_a_rejected_line_lacks_clears_as_in_its_file(client: Client, tmp_path: Path) -> None:
    ingest_files(client, [write_lines(tmp_path / "a.ndjson", patient(1, sex="M"), patient(2, sex="M"))])
    second = write_lines(tmp_path / "b.ndjson", patient(1, birthyear="x"), patient(2, sex="F", birthyear=1950))
    rejects, again = tmp_path / "r.ndjson", tmp_path / "again.ndjson"
    skip(client, rejects, second)
    skip(client, again, rejects)
    mend(again, '"x"', "1951")
    ingest_files(client, [again])
    assert held(client, "birthyear", "sex") == [(1951, None), (1950, "F")]


def test_rejected_records_of_parquet_come_back_with_their_types(client: Client, tmp_path: Path) -> None:
    values = {"birthyear": [1956.0, 1957.0], "sex": [b"M", None]}
    wrong = pl.DataFrame([patient(1), patient(2)]).with_columns(**{k: pl.Series(v) for k, v in values.items()})
    psa = {"identifier": ["psameasurement/1"], "parent_identifier": ["patient/1"], "value": [Decimal("2.50")]}
    at = instants(1_000, unit="ms")
    wrong.with_columns(parent_identifier=pl.lit("datasource/e")).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(psa).with_columns(measured_at=at).write_parquet(tmp_path / "b.parquet")
    skip(client, tmp_path / "r.ndjson", tmp_path / "a.parquet", tmp_path / "b.parquet")
    mend(tmp_path / "r.ndjson", "datasource/e", "datasource/d")
    assert ingest_files(client, [tmp_path / "r.ndjson"]).rejected_rows == 0
    assert held(client, "birthyear", "sex") == [(1956, "M"), (1957, None)]
    second = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert states(client, "psa_measurements", "value", "measured_at") == [(2.5, second)]


def test_an_instant_beyond_the_calendar_is_kept_in_the_rejects(client: Client, tmp_path: Path) -> None:
    rows = volumes(client).with_columns(acquisition_datetime=instants(0, 3 * 10**17, unit="ms"))
    rows.write_parquet(tmp_path / "a.parquet")
    skip(client, tmp_path / "r.ndjson", tmp_path / "a.parquet")
    told = json.loads((tmp_path / "r.ndjson").read_text())["acquisition_datetime"]
    assert told == "300000000000000000 ms since 1970-01-01"


def test_what_is_no_number_and_what_nests_too_deep_is_kept_in_the_rejects_as_it_is(
    client: Client, tmp_path: Path
) -> None:
    psa = '{"identifier": "psameasurement/1", "parent_identifier": "patient/1", "value": 1e400}'
    deep = '{"identifier": ' + "[" * 100_000
    path = write_lines(tmp_path / "a.ndjson", patient(1), psa, deep)
    skip(client, tmp_path / "r.ndjson", path)
    told = [json.loads(line)["_line"] for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert told == [psa, deep]
    assert ingest_files(client, [tmp_path / "r.ndjson"], on_invalid="skip", dry_run=True).rejected.height == 2


@pytest.mark.parametrize("name", ["nofolder/r.csv", "folder.csv", "readonly/r.csv"])
def test_a_rejects_file_that_cannot_be_written_stops_the_run_before_it_commits(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "readonly").mkdir()
    rows = [("patient/1", "datasource/d", 1950, ""), ("patient/2", "datasource/d", "x", "")]
    path = write_csv(tmp_path / "a.csv", *rows)
    if name.startswith("readonly"):
        monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises((InvalidInputError, StorageError)):
        skip(client, tmp_path / name, path)
    assert held(client, "identifier") == []
    assert not list(tmp_path.rglob("*.part"))


def test_the_name_of_a_file_is_not_bound_to_the_encoding_of_its_rows(client: Client, tmp_path: Path) -> None:
    rows = [("patient/1", "datasource/d", 1950, "ä"), ("patient/2", "datasource/d", "19x", "ü")]
    path = write_csv(tmp_path / "数据.csv", *rows, encoding="cp1252")
    skip(client, tmp_path / "r.csv", path, encoding="cp1252")
    text = (tmp_path / "r.csv").read_text(encoding="cp1252")
    assert r"\u6570\u636e.csv,3,birthyear" in text
    (tmp_path / "r.csv").write_text(text.replace("19x", "1951"), encoding="cp1252")
    ingest_files(client, [tmp_path / "r.csv"], encoding="cp1252")
    assert held(client, "birthyear", "sex") == [(1950, "ä"), (1951, "ü")]


def test_a_run_that_rejects_nothing_leaves_no_rejects_of_an_earlier_one(client: Client, tmp_path: Path) -> None:
    path, rejects = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "x", "")), tmp_path / "r.csv"
    skip(client, rejects, path)
    assert rejects.exists()
    skip(client, rejects, write_csv(path, ("patient/1", "datasource/d", "1950", "")))
    assert not rejects.exists()


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_a_batch_that_was_loaded_is_not_judged_again(client: Client, tmp_path: Path, on_invalid: Any) -> None:
    path = write_csv(tmp_path / "a.csv", ("patient/1", "datasource/d", "1950", ""))
    ingest_files(client, [path], batch_id="1")
    write_csv(path, ("patient/1", "datasource/d", "19x", ""), ("", "datasource/d", "", ""))
    report = ingest_files(client, [path], batch_id="1", on_invalid=on_invalid, missing="delete")
    assert (report.already_committed, report.rejected_rows) == (True, 0)
    assert ingest_files(client, [path], batch_id="2").rejected_rows == 2


# ---- what tells rows apart


def test_rows_of_one_identifier_are_each_reported_with_their_own_reason(client: Client, tmp_path: Path) -> None:
    wrong = [{"identifier": "volume/1", "parent_identifier": parent} for parent in ("volume/9", "imagingstudy/1")]
    rows = volumes(client).with_columns(derived_from=pl.lit(None, pl.List(pl.String)), slice_thickness=float("nan"))
    more = pl.DataFrame(wrong).with_columns(derived_from=pl.Series([["a"], []]), slice_thickness=float("nan"))
    pl.concat([more, rows[1:], more[1:]]).write_parquet(tmp_path / "a.parquet")
    report = ingest_files(client, [tmp_path / "a.parquet"], on_invalid="skip")
    assert list(report.rejected.select("row", "field", "reason").iter_rows()) == [
        (1, "parent_identifier", "parent_identifier 'volume/9' is of the type 'volume'; expected: 'imagingstudy'"),
        (2, "identifier", "identifier occurs again with other values"),
        (4, "identifier", "identifier occurs again with other values"),
    ]


def test_what_is_missing_cannot_be_told_beside_an_identifier_that_is_none(client: Client, tmp_path: Path) -> None:
    family(client, tmp_path)
    rows = [("patient/1", "datasource/d", 1951), ("patient/2/", "datasource/d", 1951)]
    path = write_csv(tmp_path / "a.csv", *rows, header=HEADER[:3])
    for dry in (True, False):
        with pytest.raises(InvalidInputError, match="a row of patients: identifier 'patient/2/' is no identifier"):
            ingest_files(client, [path], missing="delete", cascade=True, on_invalid="skip", dry_run=dry)
        assert faults(ingest_files(client, [path], missing="delete", dry_run=dry)) == [(3, "identifier", "patient/2/")]
    nameless = pl.DataFrame({"identifier": ["patient/1", None], "parent_identifier": ["datasource/d"] * 2})
    with pytest.raises(InvalidInputError, match="a row of patients: identifier is null"):
        client.patients.upsert(nameless, missing="delete", cascade=True, on_invalid="skip")
    assert held(client, "birthyear") == [(1950,)] * 3


def test_a_file_whose_name_is_no_utf8_is_loaded_and_named(client: Client, tmp_path: Path) -> None:
    rows = [("patient/1", "datasource/d", 1950, ""), ("patient/2", "datasource/d", "x", "")]
    path = write_csv(tmp_path / "a.csv", *rows).rename(tmp_path / os.fsdecode(b"\xff.csv"))
    report = ingest_files(client, [path], on_invalid="skip", rejects=tmp_path / "r.csv")
    assert report.rejected["file"].to_list() == [str(tmp_path / "\\udcff.csv")]
    assert held(client, "identifier") == [("patient/1",)]
    assert "\\udcff.csv,3,birthyear" in (tmp_path / "r.csv").read_text()


@pytest.mark.parametrize(
    "row",
    [
        "patient/1 ,datasource/d,abc,M\n",
        "patient//1,datasource/d,abc,M\n",
        '"patient/1 ",datasource/d,1950,5" x\n',
        'patient/"1,datasource/d,1950,M\n',
        "patient/1\0,datasource/d,1950,M\n",
        "imagingstudy/1,patient/1,,\n",
    ],
)
def test_a_row_that_may_mean_a_resource_keeps_all_from_being_closed(client: Client, tmp_path: Path, row: str) -> None:
    ingest_files(client, [write_csv(tmp_path / "a.csv", *(patient(n).values() for n in (1, 2)), header=patient(1))])
    path = write_text(tmp_path / "b.csv", HEAD + "patient/2,datasource/d,,\n" + row)
    with pytest.raises(InvalidInputError, match="row 3"):
        ingest_files(client, [path], type="patients", on_invalid="skip", missing="delete", cascade=True)
    assert held(client, "identifier") == [("patient/1",), ("patient/2",)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_empty_last_cell_is_null_however_the_file_ends(
    client: Client, tmp_path: Path, encoding: str, end: str
) -> None:
    path = write_text(tmp_path / "a.csv", HEAD + 'patient/1,datasource/d,"1950",' + end, encoding)
    assert ingest_files(client, [path]).is_written
    assert held(client, "identifier", "birthyear", "sex") == [("patient/1", 1950, None)]


def test_bytes_and_instants_of_parquet_survive_the_rejects(client: Client, tmp_path: Path) -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    rows = volumes(client).with_columns(
        pl.Series("modality", [b"MR", b"\xe4"]),
        pl.Series("series_number", [1.5, float("nan")]),
        pl.Series("acquisition_datetime", [last] * 2, pl.Datetime("us", "UTC")).dt.convert_time_zone("Europe/Berlin"),
    )
    rows.with_columns(pl.col("identifier").cast(pl.Binary)).write_parquet(tmp_path / "a.parquet")
    skip(client, tmp_path / "r.ndjson", tmp_path / "a.parquet")
    first, second = map(json.loads, (tmp_path / "r.ndjson").read_text().splitlines())
    assert (first["identifier"], first["modality"], first["series_number"]) == (rows["identifier"][0], "MR", 1.5)
    assert (first["acquisition_datetime"], second["series_number"]) == (last.isoformat(), None)
    again = ingest_files(client, [tmp_path / "r.ndjson"], on_invalid="skip", dry_run=True)
    assert [field for _, field, _ in faults(again)] == ["series_number", "modality"]


def test_a_misspelt_type_is_the_one_fault_of_its_row_beside_a_broken_one(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "mixed.ndjson"
    sound = '{"identifier": "patint/b", "parent_identifier": "datasource/d", "birthyear": 1950, "sex": 3}'
    file.write_text(sound + '\n{"identifier": "patient/c", "parent_identifier": "datasource/d", "birthyear": "x"}\n')
    rejected = ingest_files(client, [file], on_invalid="skip").rejected
    assert rejected.select("row", "field").rows() == [(1, "identifier"), (2, "birthyear")]
    assert rejected["reason"][0] == "identifier is of the type 'patint'. Did you mean 'patient'?"
