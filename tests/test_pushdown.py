"""Which files a query opens: exactly those that its filters and the statistics leave, and not one more."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from tests.support.proxy import Proxy, Record
from tests.support.servers import Server, make_bucket
from vxdata.errors import VxDataError
from vxdata.lake.snapshot import polars_statistics
from vxdata.sdk import ALL, ANY, Client, F, has_ancestor

Build = Callable[[Client], Any]
BATCHES: dict[str, tuple[str, float, tuple[str | None, str | None]]] = {
    "a1": ("T1", 1.0, (None, None)),
    "a2": ("T2", 2.0, ("MR", "MR")),
    "b1": ("T1", 3.0, ("MR", "MR")),
    "b2": ("ADC", 4.0, (None, None)),
    "c1": ("T2", 5.0, (None, "CT")),
    "d1": ("SEG", 6.0, ("SEG", "SEG")),
}
"""One file each: volume_type, the least slice_thickness, and modality (of even and odd rows)."""
FILES = tuple(BATCHES)
ROWS = 10


def batch(name: str) -> pl.DataFrame:
    """Return the volumes of one file; its name is their license, and its first letter the datasource."""
    kind, least, modality = BATCHES[name]
    start = datetime(2020 + int(least), 1, 1, tzinfo=UTC)
    rows = [
        {
            "identifier": f"volume/{name[0]}/{name[1]}{n}",
            "parent_identifier": f"imagingstudy/{name}",
            "license": name,
            "volume_type": kind,
            "slice_thickness": least + n / 10,
            "series_number": 10 * int(least) + n,
            "acquisition_datetime": start + timedelta(days=n),
            "modality": modality[n % 2],
        }
        for n in range(ROWS)
    ]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("modality").cast(pl.String))


def load(client: Client) -> Client:
    """Write two batches of datasources a and b, one of c and d."""
    sources = {name: f"datasource/{name[0]}" for name in BATCHES}
    client.datasources.upsert(pl.DataFrame({"identifier": sorted(set(sources.values()))}))
    for verbs, kind, above in ((client.patients, "patient", ""), (client.imaging_studies, "imagingstudy", "patient")):
        parents = [f"{above}/{name}" if above else sources[name] for name in BATCHES]
        verbs.upsert(pl.DataFrame({"identifier": [f"{kind}/{n}" for n in BATCHES], "parent_identifier": parents}))
    for names in (("a1", "b1", "c1", "d1"), ("a2", "b2")):
        client.volumes.upsert(pl.concat(map(batch, names)))
    return client


def update(client: Client) -> Client:
    """Leave a tail: new versions of two volumes of a1 in a file `up`, and of one of c1 in `up2`."""
    some = pl.DataFrame({"identifier": ["volume/a/13", "volume/a/15"], "license": "up", "volume_type": "T9"})
    client.volumes.upsert(some.with_columns(slice_thickness=pl.lit(9.5)))
    client.volumes.update("volume/c/12", {"modality": "XX"}, license="up2")
    return client


# -- files that are there and files that are not


def files_of(client: Client) -> dict[str, Path]:
    """Return the data files of the volumes by the license of their rows; that of tombstones is `gone`."""
    files = Path(client.uri, "volumes").rglob("*.parquet")
    return {pl.read_parquet(file, hive_partitioning=False)["license"][0] or "gone": file for file in files}


@contextmanager
def hidden(files: Sequence[Path]) -> Iterator[None]:
    away = [file.with_suffix(".hidden") for file in files]
    for file, other in zip(files, away, strict=True):
        file.rename(other)
    try:
        yield
    finally:
        for file, other in zip(files, away, strict=True):
            other.rename(file)


def is_needed(file: Path, run: Callable[[], Any]) -> bool:
    with hidden([file]):
        try:
            run()
        except VxDataError:
            return True
    return False


def opened(client: Client, run: Callable[[], pl.DataFrame]) -> set[str]:
    """Return the files that a query of a warm client cannot do without; show that it needs no others."""
    files, answer = files_of(client), run()
    needed = {name for name, file in files.items() if is_needed(file, run)}
    with hidden([file for name, file in files.items() if name not in needed]):
        assert run().sort(pl.all()).equals(answer.sort(pl.all()))
    return needed


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a lake without a tail."""
    return load(Client(tmp_path_factory.mktemp("pushdown") / "lake"))


@pytest.fixture(scope="module")
def tailed(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A client of a lake with an unfolded tail of updates; it has read the closings."""
    client = update(load(Client(tmp_path_factory.mktemp("tailed") / "lake")))
    client.volumes.query().count()
    return client


# -- predicates, the files that they need, and those of the tail that they need further

CASES: dict[str, tuple[Any, str, str]] = {
    "partition ==": (F.datasource_id == "datasource/a", "a1 a2", "up"),
    "partition without type": (F.datasource_id == "c", "c1", "up2"),
    "partition !=": (F.datasource_id != "datasource/a", "b1 b2 c1 d1", "up2"),
    "partition not ==": (~(F.datasource_id == "datasource/a"), "b1 b2 c1 d1", "up2"),
    "partition is_in": (F.datasource_id.is_in(["a", "d"]), "a1 a2 d1", "up"),
    "partition startswith": (F.datasource_id.startswith("b"), "b1 b2", ""),
    "partition of nothing": (F.datasource_id == "datasource/none", "", ""),
    "is_in of nothing": (F.volume_type.is_in([]), "", ""),
    "identifier ==": (F.identifier == "volume/a/25", "a2", ""),
    "identifier == of a new version": (F.identifier == "volume/a/13", "a1", "up"),
    "identifier is_in": (F.identifier.is_in(["volume/a/11", "volume/d/19"]), "a1 d1", ""),
    "identifier startswith": (F.identifier.startswith("volume/b/"), "b1 b2", ""),
    "patient ==": (F.patient_id == "patient/a2", "a2", ""),
    "patient is_in": (F.patient_id.is_in(["patient/a1", "c1"]), "a1 c1", "up up2"),
    "patient startswith": (F.patient_id.startswith("b"), "b1 b2", ""),
    "study ==": (F.study_id == "imagingstudy/c1", "c1", "up2"),
    "parent ==": (F.parent_identifier == "imagingstudy/c1", "c1", "up2"),
    "ancestor datasource": (has_ancestor("datasource/b"), "b1 b2", ""),
    "ancestor patient": (has_ancestor("patient/d1"), "d1", ""),
    "ancestor study": (has_ancestor("imagingstudy/a1"), "a1", "up"),
    "ancestor without a column": (has_ancestor("volume/a/11"), "a1 a2 b1 b2 c1 d1", "up up2"),
    "float >": (F.slice_thickness > 4.95, "c1 d1", "up up2"),
    "float > int": (F.slice_thickness >= 6, "d1", "up"),
    "float between": (F.slice_thickness.between(2, 3.0), "a2 b1", ""),
    "float ==": (F.slice_thickness == 3.2, "b1", ""),
    "float is_in": (F.slice_thickness.is_in([1.1, 6.1, 7]), "a1 d1", ""),
    "int <": (F.series_number < 20, "a1", "up"),
    "int < float": (F.series_number < 19.5, "a1", "up"),
    "int ==": (F.series_number == 42, "b2", ""),
    "int is_in": (F.series_number.is_in([42, 60]), "b2 d1", ""),
    "string ==": (F.volume_type == "T2", "a2 c1", "up2"),
    "string is_in": (F.volume_type.is_in(["ADC", "SEG"]), "b2 d1", ""),
    "string startswith": (F.volume_type.startswith("T1"), "a1 b1", ""),
    "string >": (F.volume_type > "T1", "a2 c1", "up up2"),
    "string contains": (F.volume_type.contains("T"), "a1 a2 b1 c1", "up up2"),  # all rows of b2 are one text
    "instant after": (F.acquisition_datetime.after("2025-06-01"), "d1", ""),
    "instant before": (F.acquisition_datetime.before("2022-01-01"), "a1", "up"),
    "instant ==": (F.acquisition_datetime == "2023-01-02", "b1", ""),
    "instant between": (F.acquisition_datetime.between("2023-01-01", "2024-06-01"), "b1 b2", ""),
    "begun later": (F.valid_from.after("2900-01-01"), "", ""),
    "is_null": (F.modality.is_null(), "a1 b2 c1", "up"),
    "== None": (F.modality == None, "a1 b2 c1", "up"),  # noqa: E711
    "is_not_null": (F.modality.is_not_null(), "a2 b1 c1 d1", "up2"),
    "eq_missing None": (F.modality.eq_missing(None), "a1 b2 c1", "up"),
    "eq_missing": (F.modality.eq_missing("SEG"), "d1", ""),
    "and": ((F.datasource_id == "a") & (F.volume_type == "T2"), "a2", ""),
    "and of one column": ((F.slice_thickness > 2.95) & (F.slice_thickness < 4), "b1", ""),
    "or": ((F.volume_type == "ADC") | (F.slice_thickness >= 6), "b2 d1", "up"),
    "or with null": ((F.volume_type == "SEG") | F.modality.is_null(), "a1 b2 c1 d1", "up"),
    "and of ors": (((F.volume_type == "T1") | (F.volume_type == "ADC")) & (F.datasource_id == "b"), "b1 b2", ""),
    "long int is_in": (F.series_number.is_in([42, *range(1000, 1200)]), "b2", ""),
    "long float is_in of ints": (F.series_number.is_in([42.0, *(n + 0.5 for n in range(1000, 1200))]), "b2", ""),
    "long float is_in": (F.slice_thickness.is_in([1.1, *range(6, 200)]), "a1 d1", ""),
    "long string is_in": (F.volume_type.is_in(["SEG", *(f"Z{n}" for n in range(200))]), "d1", ""),
    "long identifier is_in": (F.identifier.is_in([f"volume/{n}/25" for n in ("a", *range(200))]), "a2", ""),
    "long patient is_in": (F.patient_id.is_in(["c1", *(f"q{n}" for n in range(200))]), "c1", "up2"),
    "long instant is_in": (F.acquisition_datetime.is_in([f"20{n}-01-02" for n in (23, *range(30, 99))] * 2), "b1", ""),
    "long is_in, or": (F.volume_type.is_in(["SEG", *map(str, range(200))]) | (F.slice_thickness < 2), "a1 d1", ""),
    "long is_in, not": (~F.series_number.is_in(range(200)), "a1 a2 b1 b2 c1 d1", "up up2"),
    "long is_in and partition": (
        F.volume_type.is_in([*map(str, range(200)), "T1"]) & (F.datasource_id == "a"),
        "a1",
        "",
    ),
    "not >": (~(F.slice_thickness > 2), "a1 a2", ""),
    "not or": (~((F.slice_thickness > 2) | (F.volume_type == "T2")), "a1", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_query_opens_the_files_that_may_hold_its_rows(client: Client, case: str) -> None:
    predicate, files, _ = CASES[case]
    assert opened(client, client.volumes.query().filter(predicate).collect) == set(files.split())


@pytest.mark.parametrize("case", CASES)
def test_with_a_tail_it_opens_the_same_files_and_those_of_the_tail_that_may(tailed: Client, case: str) -> None:
    predicate, files, tail = CASES[case]
    assert opened(tailed, tailed.volumes.query().filter(predicate).collect) == {*files.split(), *tail.split()}


@pytest.mark.parametrize("case", CASES)
def test_explain_counts_the_files_that_are_opened(client: Client, tailed: Client, case: str) -> None:
    predicate, files, tail = CASES[case]
    counted = [counted_files(one.volumes.query().filter(predicate).explain()) for one in (client, tailed)]
    both = {*files.split(), *tail.split()}
    assert counted == [[(len(files.split()), len(FILES))], [(len(both), len(FILES) + 2)]]


def counted_files(explanation: str) -> list[tuple[int, int]]:
    return [(int(n), int(m)) for n, m in re.findall(r"files +(\d+) of (\d+)", explanation)]


@pytest.mark.parametrize(
    "steps", [lambda q: q.versions(), lambda q: q.as_of("2900-01-01"), lambda q: q.select("license")]
)
@pytest.mark.parametrize("case", ["partition ==", "identifier ==", "float between", "string ==", "or with null"])
def test_filters_go_down_to_the_files_in_every_kind_of_query(
    tailed: Client, case: str, steps: Callable[[Any], Any]
) -> None:
    predicate, files, tail = CASES[case]
    query = steps(tailed.volumes.query().filter(predicate))
    assert opened(tailed, query.collect) == {*files.split(), *tail.split()}
    assert counted_files(query.explain()) == [(len({*files.split(), *tail.split()}), len(FILES) + 2)]


def test_a_filter_beside_a_subquery_goes_down_to_the_files(client: Client) -> None:
    thickest = client.volumes.query().filter(F.datasource_id == "d").select("slice_thickness")
    query = client.volumes.query().filter(F.datasource_id == "a", F.slice_thickness < ALL(thickest))
    assert opened(client, query.collect) == {"a1", "a2", "d1"}
    assert counted_files(query.explain()) == [(2, len(FILES)), (1, len(FILES))]


@pytest.mark.parametrize(
    "case", ["float ==", "string ==", "int <", "string startswith", "instant before", "string is_in"]
)
def test_a_file_without_any_value_of_the_column_is_not_opened(tmp_path: Path, case: str) -> None:
    client = load(Client(tmp_path / "lake"))
    client.volumes.delete("volume/d/15")  # leaves a file of one tombstone: its payload and its license are null
    client.volumes.query().count()
    predicate, files, _ = CASES[case]
    assert opened(client, client.volumes.query().filter(predicate).collect) == set(files.split())


@pytest.mark.parametrize("versions", [False, True])
def test_a_filter_on_the_derived_end_opens_all_files_and_answers(tailed: Client, versions: bool) -> None:
    query = tailed.volumes.query().filter(F.valid_to.is_not_null())
    query = query.versions() if versions else query
    assert query.count() == (3 if versions else 0)


def test_closings_of_other_partitions_are_not_joined(tailed: Client) -> None:
    known = {
        name: re.findall(r"closings +(.*)", tailed.volumes.query().filter(F.datasource_id == name).explain())
        for name in "abc"
    }
    assert known == {"a": ["2, by an anti-join"], "b": ["none needed"], "c": ["1, by an anti-join"]}
    beside = tailed.volumes.query().filter(F.datasource_id == "a", F.volume_type == "T2")
    assert "none needed" in beside.explain()  # what was closed lies outside the identifiers of its file


def test_a_count_opens_no_other_files(client: Client) -> None:
    query = client.volumes.query().filter(F.datasource_id == "a")
    assert opened(client, lambda: pl.DataFrame({"n": query.count()})) == {"a1", "a2"}


# -- on S3


@pytest.fixture(scope="module")
def proxy(ministack_server: Server) -> Iterator[Proxy]:
    with Proxy(ministack_server.endpoint_url) as proxy:
        make_bucket(ministack_server.endpoint_url, "pushdown")
        yield proxy


def remote_options(proxy: Proxy) -> dict[str, str]:
    return {
        "endpoint_url": proxy.endpoint_url,
        "access_key_id": "k",
        "secret_access_key": "s",
        "region": "us-east-1",
    }


@pytest.fixture(scope="module")
def remote(proxy: Proxy) -> Client:
    """A warm client of the lake with a tail, on S3."""
    client = Client("s3://pushdown/lake", storage_options=remote_options(proxy))
    update(load(client))
    noise = Random(1)
    texts = [noise.randbytes(1500).hex() for _ in range(2000)]  # 3 MB: Polars reads gaps of up to 1 MB along
    frame = pl.DataFrame({"identifier": [f"volume/w/{n}" for n in range(2000)], "series_description": texts})
    words = {"parent_identifier": "imagingstudy/d1", "modality": "wide", "volume_type": "wide"}
    client.volumes.upsert(frame.with_columns(pl.lit(word).alias(name) for name, word in words.items()))
    for namespace in (client.volumes, client.imaging_studies):
        namespace.query().count()
    return client


def requests(proxy: Proxy, run: Callable[[], Any]) -> list[Record]:
    proxy.reset()
    run()
    return proxy.requests()


def kinds(records: Iterable[Record]) -> Counter[str]:
    return Counter(record.kind for record in records)


def size(records: Iterable[Record]) -> int:
    return sum(record.response_bytes for record in records)


@pytest.fixture(scope="module")
def headless(proxy: Proxy, remote: Client) -> Client:
    """A warm client of the lake without a tail, on S3."""
    client = load(Client("s3://pushdown/headless", storage_options=remote_options(proxy)))
    client.volumes.query().count()
    return client


ON_S3 = (
    *("partition ==", "partition without type", "partition startswith", "partition of nothing"),
    *("identifier ==", "identifier == of a new version", "identifier is_in", "identifier startswith"),
    *("patient ==", "patient is_in", "patient startswith", "study ==", "ancestor datasource", "ancestor study"),
    *("float between", "float >", "int ==", "int <", "instant between", "string ==", "string startswith"),
    *("string is_in", "int is_in", "is_in of nothing", "long string is_in", "long identifier is_in", "and", "is_null"),
)


@pytest.mark.parametrize("case", ON_S3)
def test_on_s3_a_query_costs_one_head_and_one_get_for_each_file_that_may_hold_its_rows(
    proxy: Proxy, headless: Client, case: str
) -> None:
    predicate, files, _ = CASES[case]
    asked = requests(proxy, headless.volumes.query().filter(predicate).collect)
    assert kinds(asked) == Counter(HEAD=1, GET=len(files.split()))


@pytest.mark.parametrize("case", ON_S3)
def test_on_s3_a_tail_adds_one_get_for_each_of_its_files_that_may(proxy: Proxy, remote: Client, case: str) -> None:
    predicate, files, tail = CASES[case]
    asked = requests(proxy, remote.volumes.query().filter(predicate).collect)
    assert kinds(asked) == Counter(HEAD=1, GET=len({*files.split(), *tail.split()}))


def test_closings_are_read_only_where_the_query_reads(proxy: Proxy, remote: Client) -> None:
    def paths(predicate: Any) -> Counter[str]:
        asked = requests(proxy, cold.volumes.query().filter(predicate).collect)
        return Counter(record.path for record in asked if record.path.endswith(".parquet"))

    cold = Client(remote.uri, storage_options=remote_options(proxy))
    assert len(paths(F.datasource_id == "b")) == 2  # nothing was closed there
    assert sum(paths(F.datasource_id == "c").values()) == 3  # c1, and up2 for its rows and its closing
    assert sum(paths(F.datasource_id == "c").values()) == 2  # the closing is known now
    assert len(paths(F.patient_id == "a2")) == 1  # all that was closed in a lies in other files


def test_each_small_file_costs_one_request(proxy: Proxy, remote: Client) -> None:
    query = remote.volumes.query().filter(F.datasource_id == "b").select("volume_type")
    assert kinds(requests(proxy, query.collect)) == {"HEAD": 1, "GET": 2}


def test_select_reads_only_its_columns(proxy: Proxy, remote: Client) -> None:
    wide = remote.volumes.query().filter(F.modality == "wide")
    whole = size(requests(proxy, wide.collect))
    assert size(requests(proxy, wide.select("volume_type").collect)) < whole / 5
    assert size(requests(proxy, wide.count)) < whole / 5


SUBQUERIES: dict[str, tuple[Build, int]] = {
    "of the same table": (lambda c: F.slice_thickness > ANY(c.volumes.query().select("slice_thickness")), 1),
    "of the same table, twice": (
        lambda c: (
            F.identifier.is_in(c.volumes.query().filter(F.volume_type == "T1").select("identifier"))
            | (F.slice_thickness >= ALL(c.volumes.query().select("slice_thickness")))
        ),
        1,
    ),
    "of another table": (lambda c: F.study_id.is_in(c.imaging_studies.query().select("identifier")), 2),
}


@pytest.mark.parametrize("case", SUBQUERIES)
def test_a_table_that_is_read_twice_is_refreshed_once(proxy: Proxy, remote: Client, case: str) -> None:
    build, tables = SUBQUERIES[case]
    asked = requests(proxy, remote.volumes.query().filter(build(remote)).collect)
    assert {kind: n for kind, n in kinds(asked).items() if kind != "GET"} == {"HEAD": tables}


@pytest.mark.parametrize("case", SUBQUERIES)
def test_a_cold_client_opens_a_table_once(proxy: Proxy, remote: Client, case: str) -> None:
    build, tables = SUBQUERIES[case]
    cold = Client(remote.uri, storage_options=remote_options(proxy))
    asked = requests(proxy, cold.volumes.query().filter(build(cold)).collect)
    opened = Counter(record.path for record in asked if record.path.endswith("00000.json"))
    assert len(opened) == tables
    assert set(opened.values()) == {2}  # deltalake reads each log entry twice


SCANS: dict[str, tuple[Build, int]] = {
    "is_in": (lambda c: F.study_id.is_in(studies(c)), 2),
    "not is_in": (lambda c: ~F.study_id.is_in(studies(c)), 2),
    "or": (lambda c: F.study_id.is_in(studies(c)) | (F.modality == "CT"), 2),
    "contains_any": (lambda c: ~F.derived_from.contains_any(studies(c)), 2),
    "contains_any of the same table": (lambda c: F.ancestors.contains_any(thick(c).select("study_id")), 2),
    "ANY or ALL of one subquery": (
        lambda c: (F.b_value > ANY(thick(c).select("b_value"))) | (F.b_value < ALL(thick(c).select("b_value"))),
        2,
    ),
}


def studies(client: Client) -> Any:
    return client.imaging_studies.query().select("identifier")


def thick(client: Client) -> Any:
    return client.volumes.query().filter(F.slice_thickness > 4)


@pytest.mark.parametrize("case", SCANS)
def test_a_plan_scans_the_outer_table_once_and_each_subquery_once(tailed: Client, case: str) -> None:
    build, scans = SCANS[case]
    assert tailed.volumes.query().filter(build(tailed)).lazy().explain().count("Parquet SCAN") == scans


def test_a_funnel_reads_each_file_once(proxy: Proxy, headless: Client) -> None:
    query = headless.volumes.query().filter(F.volume_type == "T1", F.study_id.is_in(["imagingstudy/a1"]))
    asked = requests(proxy, query.funnel)
    assert kinds(asked) == Counter(HEAD=1, GET=len(FILES))
    assert len({record.path for record in asked}) == 1 + len(FILES)


def test_building_a_query_costs_nothing(proxy: Proxy, remote: Client) -> None:
    def build() -> None:
        sub = remote.volumes.query().filter(has_ancestor("datasource/a")).select("slice_thickness")
        query = remote.volumes.query().filter(F.slice_thickness > ANY(sub), ~F.slice_thickness.is_in(sub))
        query = query.as_of("2900-01-01").versions().sort("identifier").limit(3)
        query.select("identifier").to_sql()
        assert repr(query)

    assert requests(proxy, build) == []


def test_building_a_query_needs_no_lake(tmp_path: Path) -> None:
    client = Client(tmp_path / "none")
    client.volumes.query().filter(F.volume_type == "T2").sort("identifier").limit(1).select("identifier").to_sql()
    assert list(tmp_path.iterdir()) == []


def test_a_column_with_one_bound_alone_is_one_without_bounds() -> None:
    """Another writer may leave one out, and Polars wants both."""
    bounds = {"null_count": {"a": 0, "n": 0}, "min": {"a": "x"}, "max": {"a": "y", "n": 2}}
    files = pl.DataFrame({"num_records": [3], **{name: [fields] for name, fields in bounds.items()}})
    found = polars_statistics(files, {"a": pl.String(), "n": pl.Int64()}).row(0, named=True)
    assert found == {"len": 3, "a_nc": 0, "a_min": "x", "a_max": "y", "n_nc": 0, "n_min": None, "n_max": None}
