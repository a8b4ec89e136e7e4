"""`vxdata query` and `vxdata funnel`: what they answer is what the SDK answers, in each format."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from tests.support.cli import ROOT, VXDATA, environment, plain, run, run_here, run_on_terminal
from tests.support.small_lake import ADC, ODD, T2, fill
from vxdata.schemas.columns import to_arrow_type
from vxdata.sdk import Client, F
from vxdata.sdk.query import Query
from vxdata_cli.main import PIPE_CLOSED

DOC = ROOT / "docs" / "query-text.md"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    return fill(str(tmp_path_factory.mktemp("lakes") / "small"))


@pytest.fixture(autouse=True)
def uri(monkeypatch: pytest.MonkeyPatch, client: Client) -> str:
    monkeypatch.setenv("VXDATA_URI", client.uri)
    monkeypatch.setenv("COLUMNS", "80")
    return client.uri


def rows(*args: str) -> list[dict[str, object]]:
    done = run_here("query", *args, "--format", "ndjson")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


# ---- the question


def test_conditions_order_limit_and_columns_are_the_sdk_s(client: Client) -> None:
    where = ["--where", "volume_type in ('T2', 'ADC')", "--where", "patient_id startswith 'DA'"]
    found = rows(
        "volumes", *where, "--select", "identifier, slice_thickness", "--sort=-slice_thickness", "--limit", "2"
    )
    query = client.volumes.query().filter(F.volume_type.is_in(["T2", "ADC"]), F.patient_id.startswith("DA"))
    expected = query.sort("slice_thickness", descending=True).limit(2).select("identifier", "slice_thickness")
    assert found == expected.collect().to_dicts()
    assert found[0] == {"identifier": T2, "slice_thickness": 3.6}


def test_a_type_may_be_named_by_its_word_too() -> None:
    asked = ("--select", "identifier", "--sort", "identifier")
    assert rows("volume", *asked) == rows("volumes", *asked)


def test_the_past_and_all_versions(client: Client) -> None:
    first = client.volumes.history(T2)[0]
    seen = rows("volumes", "-w", f"identifier == '{T2}'", "--as-of", first.valid_from.isoformat())
    assert [row["slice_thickness"] for row in seen] == [3.0]
    both = rows("volumes", "-w", f"identifier == '{T2}'", "--versions", "--sort", "valid_from")
    assert [row["slice_thickness"] for row in both] == [3.0, 3.6]


def test_count_and_funnel(client: Client) -> None:
    assert run_here("query", "volumes", "--count").stdout == "3\n"
    where = ("volume_type == 'T2'", "slice_thickness < 4")
    done = run_here("funnel", "volumes", "-w", where[0], "-w", where[1], "--json")
    query = client.volumes.query().filter(F.volume_type == "T2", F.slice_thickness < 4)
    expected = query.funnel().with_columns(pl.Series("filter", ["all", *where]))
    assert json.loads(done.stdout) == {"namespace": "volumes", "steps": expected.to_dicts()}
    assert expected["removed_null"].to_list() == [0, 0, 1]


@pytest.mark.parametrize("width", [72, 80, 100])
def test_a_funnel_shows_all_its_counts_and_cuts_the_filters(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    where = "volume_type == 'T2' and (slice_thickness > 2.5 or slice_thickness is null) and modality != 'CT'"
    shown = run_here("funnel", "volumes", "-w", "slice_thickness < 4", "-w", where).stdout
    assert max(map(len, shown.splitlines())) <= width
    assert shown.split()[:6] == ["filter", "resources", "patients", "studies", "removed", "removed_null"]
    assert shown.splitlines()[3].split()[-5:] == ["1", "1", "1", "2", "2"]
    assert "…" in shown
    assert "--select" not in shown


QUESTIONS = [
    [
        "volumes",
        "-w",
        "volume_type == 'T2' and (slice_thickness > 2.5 or slice_thickness is null)",
        "--sort=identifier",
    ],
    ["volumes", "-w", "derived_from contains any ('volume/DA1/s/t2')", "--select", "identifier,derived_from"],
    ["volumes", "-w", "not has_ancestor('patient/DA2') and slice_thickness < inf"],
    ["volumes", "-w", "valid_from after '2020-01-01T00:00+02:00'", "--as-of", "2999-01-01", "--versions"],
    ["patients", "--sort=-identifier", "--limit", "1"],
]


@pytest.mark.parametrize("args", QUESTIONS, ids=lambda args: args[0])
def test_the_python_runs_and_answers_the_same(args: list[str]) -> None:
    code = run_here("query", *args, "--python").stdout
    names: dict[str, pl.DataFrame] = {}
    exec(code.replace("print(frame)", ""), names)
    assert code.endswith("print(frame)\n")
    shown = [json.loads(line) for line in names["frame"].write_ndjson().splitlines()]
    assert sorted(shown, key=str) == sorted(rows(*args), key=str)


def test_the_sql_and_the_explanation_are_the_sdk_s(client: Client) -> None:
    query = client.volumes.query().filter(F.slice_thickness < 4).select("identifier")
    args = ("query", "volumes", "-w", "slice_thickness < 4", "--select", "identifier")
    assert run_here(*args, "--sql").stdout == f"{query.to_sql()}\n"
    assert "F.slice_thickness < 4" in run_here(*args, "--explain").stdout
    assert json.loads(run_here(*args, "--sql", "--json").stdout) == {"namespace": "volumes", "sql": query.to_sql()}


# ---- formats


def test_csv_is_read_back_to_the_same_values(client: Client, tmp_path: Path) -> None:
    done = run_here("query", "volumes", "--format", "csv", "--sort", "identifier")
    (tmp_path / "a.csv").write_text(done.stdout)
    expected = client.volumes.query().sort("identifier").collect()
    types = {
        name: pa.string() if isinstance(dtype, pl.List) else to_arrow_type(dtype)
        for name, dtype in expected.schema.items()
    }
    found = arrow_csv.read_csv(
        tmp_path / "a.csv",
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    ).to_pylist()
    for name in ("ancestors", "derived_from"):
        found = [{**row, name: json.loads(row[name] or "null")} for row in found]
    assert found == expected.to_dicts()


def test_a_formula_and_an_empty_text_stay_as_they_are() -> None:
    args = ("query", "volumes", "--format", "csv", "--select", "series_description", "--sort", "identifier")
    assert run_here(*args).stdout == 'series_description\n"=SUM(A1)\n\x1b[31m""é"\n""\n\n'


def test_json_is_one_document_with_the_same_rows() -> None:
    document = json.loads(run_here("query", "volumes", "--json").stdout)
    assert (document["namespace"], document["count"]) == ("volumes", 3)
    assert sorted(document["rows"], key=str) == sorted(rows("volumes"), key=str)


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson", "a.jsonl", "a.parquet"])
def test_a_file_s_name_says_its_format(client: Client, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    done = run_here("query", "volumes", "--select", "identifier,slice_thickness", "-o", tmp_path / name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    readers = {".csv": pl.read_csv, ".parquet": pl.read_parquet}
    found = readers.get(Path(name).suffix, pl.read_ndjson)(tmp_path / name)
    expected = client.volumes.query().select("identifier", "slice_thickness").collect()
    assert_frame_equal(found, expected, check_row_order=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_parquet_holds_all_types_and_no_view_types(tmp_path: Path) -> None:
    run_here("query", "volumes", "-o", tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    types = [str(schema.field(name).type) for name in ("identifier", "derived_from", "valid_from")]
    assert types == ["large_string", "large_list<element: large_string>", "timestamp[us, tz=UTC]"]


def test_a_failed_answer_leaves_the_old_file(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("old")
    gone = Path(fill(str(tmp_path / "lake")).uri)
    for file in (gone / "volumes").glob("*/*.parquet"):
        file.unlink()
    done = run_here("query", "volumes", "--uri", gone, "-o", tmp_path / "a.csv")
    assert done.returncode == 6
    assert "a file of the lake is missing" in done.stderr
    assert (tmp_path / "a.csv").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "lake"}


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_a_panic_while_reading_is_an_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def panic(rows: pl.DataFrame) -> pl.DataFrame:
        raise pl.exceptions.PanicException("an array is too short")

    plan = Query.lazy
    monkeypatch.setattr(Query, "lazy", lambda asked: plan(asked).map_batches(panic))
    for target in (["-o", f"{tmp_path}/a.{form}"], ["--format", form]):
        done = run_here("query", "volumes", *target)
        assert done.returncode == 6
        assert "read volumes of" in done.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_no_rows_are_an_answer(tmp_path: Path, form: str) -> None:
    done = run_here("query", "volumes", "-w", "b_value > 99", "-o", tmp_path / f"a.{form}", "--select", "identifier")
    assert done.returncode == 0
    text = (tmp_path / f"a.{form}").read_bytes()
    expected = {"csv": b"identifier\n", "ndjson": b""}
    assert text == expected[form] if form in expected else pl.read_parquet(text).is_empty()
    assert run_here("query", "volumes", "-w", "b_value > 99").stdout == "No rows.\n"


# ---- what a person sees

TABLE = """
 identifier             volume_type   slice_thickness   b_value
────────────────────────────────────────────────────────────────
 volume/DA1/s/a b=c#d   T2
 volume/DA1/s/t2        T2                        3.6       0.5
… and 32 more fields (--select A,B)"""


def trimmed(written: str) -> str:
    return "".join(f"\n{line.rstrip()}" for line in plain(written).splitlines())


def test_a_table_is_cut_to_the_terminal_and_says_what_it_leaves_out() -> None:
    args = ("query", "volumes", "-w", "volume_type == 'T2'", "--sort", "identifier", "--limit", "9")
    code, written = run_on_terminal(*args)
    assert code == 0
    assert trimmed(written) == TABLE


def test_a_narrow_terminal_gets_fewer_and_shorter_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = run_here(
        "query", "volumes", "--sort", "identifier", "--select", "identifier,parent_identifier,license"
    ).stdout
    assert max(map(len, shown.splitlines())) <= 40
    assert "volume/DA1/s/adc" in shown


def test_a_table_shows_stored_control_characters_as_text() -> None:
    done = run_here("query", "volumes", "-w", "series_description contains 'SUM'", "--select", "series_description")
    assert '=SUM(A1)\\n\\x1b[31m"é' in done.stdout
    assert "\x1b" not in done.stdout


def test_without_a_limit_a_table_shows_twenty_rows_and_counts_the_rest(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.upsert(pl.DataFrame({"identifier": [f"datasource/{n:04}" for n in range(45)]}))
    shown = run_here(
        "query", "datasources", "--uri", client.uri, "--sort", "identifier", "--select", "identifier"
    ).stdout
    assert len(re.findall(r"datasource/\d{4}", shown)) == 20
    assert "… and 25 more rows (--limit N)" in shown


def test_a_long_identifier_keeps_both_ends() -> None:
    from vxdata_cli.grid import shortened

    assert shortened("volume/prostatex/ProstateX-0000/1.3.6.1.4", 20) == "volume/pro…1.3.6.1.4"
    assert shortened("日本語" * 10, 9) == "日本…本語"[:5]


# ---- mistakes


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["volums"], 2, ["'volums'", "'volumes'"]),
        (["volumes", "--select", "identifer"], 2, ["'identifer'", "'identifier'"]),
        (["volumes", "--select", "a,,b"], 2, ["--select a,,b", "a name is empty"]),
        (["volumes", "--sort", "derived_from"], 2, ["'derived_from'", "no scalar column"]),
        (["volumes", "--limit", "-1"], 2, ["limit(-1)"]),
        (["volumes", "--as-of", "yesterday"], 2, ["'yesterday'", "ISO"]),
        (["volumes", "-w", "slice_thickness == '3'"], 2, ["is a float", "\n  slice_thickness == '3'\n  ^"]),
        (["volumes", "-w", "volume_type == 'T2"], 2, ["no closing '", "\n                 ^"]),
        (["volumes", "--count", "--sql"], 2, ["--count", "--sql"]),
        (["volumes", "--count", "--format", "csv"], 2, ["--count", "--format"]),
        (["volumes", "--json", "-o", "x.csv"], 2, ["--json", "-o"]),
        (["volumes", "-o", "x.txt"], 2, ["x.txt", ".parquet"]),
        (["volumes", "-o", "/nowhere/x.csv"], 2, ["/nowhere/x.csv", "a folder that exists"]),
        (["volumes", "-o", "/dev/null", "--format", "csv"], 2, ["/dev/null"]),
        (["volumes", "--uri", "/nowhere/lake"], 3, ["no lake at /nowhere/lake"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_names_value_and_remedy(args: list[str], code: int, words: list[str]) -> None:
    done = run_here("query", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert [word for word in words if word not in done.stderr] == []
    assert "bug" not in done.stderr


# ---- the doc


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(), re.S)


@pytest.mark.parametrize("line", [line for block in blocks("console") for line in block.splitlines()])
def test_each_example_of_the_doc_runs(line: str) -> None:
    done = run_here(*shlex.split(line.removeprefix("$ vxdata ")))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("block", blocks("text"))
def test_each_error_of_the_doc_is_what_is_said(block: str) -> None:
    line, _, expected = block.partition("\n")
    assert run_here(*shlex.split(line.removeprefix("$ vxdata "))).stderr == expected


# ---- processes, pipes and S3


@pytest.mark.parametrize("form", ["csv", "parquet", "table"])
def test_a_closed_pipe_is_silent(form: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    args = [*VXDATA, "query", "volumes", "--format", form]
    done = subprocess.run(args, env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (PIPE_CLOSED, b"")


def test_it_works_on_each_store(lake_uri: str) -> None:
    fill(lake_uri)
    done = run(
        "query", "volumes", "--uri", lake_uri, "-w", "volume_type != 'T2'", "--format", "csv", "--select", "identifier"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"identifier\n{ADC}\n", "")
    script = run_here("query", "volumes", "--uri", lake_uri, "-w", f"identifier == '{ODD}'", "--python").stdout
    names: dict[str, pl.DataFrame] = {}
    exec(script, names)
    assert names["frame"]["identifier"].to_list() == [ODD]
