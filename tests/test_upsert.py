"""`upsert`: a frame says what many resources should be; only what differs is written, in one commit."""

import random
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from vxdata.errors import InvalidInputError, VxDataError
from vxdata.schemas import Resource
from vxdata.sdk import Client, F

SOURCES = ["datasource/a", "datasource/b"]
Rows = dict[str, list[Any]]


def make(uri: str | Path) -> Client:
    """Return a client of a new lake with two datasources and four patients, two in each."""
    client = Client(uri)
    patients = [
        Resource(
            identifier=f"patient/{n}",
            parent_identifier=SOURCES[n // 2],
            license="CC0",
            payload={"birthyear": 1950 + n, "sex": "M"},
        )
        for n in range(4)
    ]
    client.resources.create([*patients, *(Resource(identifier=name) for name in SOURCES)])
    return client


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake as `make` leaves it; the tests get copies."""
    return Path(make(tmp_path_factory.mktemp("template") / "lake").uri)


@pytest.fixture
def client(template: Path, tmp_path: Path) -> Client:
    return Client(shutil.copytree(template, tmp_path / "lake"))


def files_of(client: Client) -> dict[str, int]:
    """Return every file of a local lake, with its size."""
    root = Path(client.uri)
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def commits_of(client: Client, namespace: str) -> int:
    """Return how many entries the log of a local table has."""
    return len(list(Path(client.uri, namespace, "_delta_log").glob("*.json")))


def counts(report: Any) -> tuple[int, int, int, int, int]:
    """Return created, updated, unchanged, deleted, and how many rows were rejected."""
    return report.created, report.updated, report.unchanged, report.deleted, report.rejected.height


def live(client: Client) -> list[str]:
    """Return the identifiers of the live patients, without their type."""
    frame = client.patients.query().sort("identifier").select("identifier").collect()
    return [name.removeprefix("patient/") for name in frame["identifier"]]


def patients(**columns: list[Any]) -> pl.DataFrame:
    """Return a frame of patients; `identifier` without the type."""
    frame = pl.DataFrame(columns)
    return frame.with_columns(pl.format("patient/{}", "identifier").alias("identifier"))


# -- what is written


def test_a_frame_creates_updates_and_leaves_alone_in_one_commit(lake_uri: str) -> None:
    client = make(lake_uri)
    frame = patients(
        identifier=["0", "1", "new"],
        parent_identifier=[*SOURCES[:1] * 2, "datasource/b"],
        birthyear=[1950, 1900, 2000],
        license=["CC0", "CC0", None],
    )
    report = client.patients.upsert(frame, reason="release 2")
    assert counts(report) == (1, 1, 1, 0, 0)
    rows = Client(lake_uri).patients.query().sort("identifier").select("birthyear", "sex", "license").collect().rows()
    assert rows == [(1950, "M", "CC0"), (1900, "M", "CC0"), (1952, "M", "CC0"), (1953, "M", "CC0"), (2000, None, None)]
    new, old = Client(lake_uri).patients.retrieve(["patient/new", "patient/1"])
    assert (new.ancestors, new.valid_from) == (("datasource/b",), old.valid_from)


def test_an_upsert_is_one_commit_and_its_repetition_none(client: Client) -> None:
    frame = patients(identifier=["0", "1", "9"], parent_identifier=SOURCES[:1] * 3, sex=["F", "M", "O"])
    before = commits_of(client, "patients")
    first = client.patients.upsert(frame)
    files = files_of(client)
    second = client.patients.upsert(frame)
    assert (counts(first), counts(second)) == ((1, 1, 1, 0, 0), (0, 0, 3, 0, 0))
    assert first.commit_id
    assert second.commit_id is None
    assert commits_of(client, "patients") == before + 1
    assert files_of(client) == files


def test_collect_change_upsert_round_trips(lake_uri: str) -> None:
    client = make(lake_uri)
    frame = client.patients.query().collect()
    assert counts(client.patients.upsert(frame)) == (0, 0, 4, 0, 0)
    older = frame.with_columns(birthyear=pl.col("birthyear") - (pl.col("birthyear") > 1951).cast(pl.Int64))
    assert counts(client.patients.upsert(older)) == (0, 2, 2, 0, 0)
    found = Client(lake_uri).patients.query().collect()
    same = ["identifier", "birthyear", "sex", "license", "created_at", "datasource_id"]
    assert_frame_equal(found.select(same), older.select(same), check_row_order=False)


def test_a_column_that_the_frame_lacks_is_unchanged_and_null_in_a_new_resource(client: Client) -> None:
    client.patients.upsert(patients(identifier=["0", "9"], parent_identifier=SOURCES[:1] * 2, species=["dog", "cat"]))
    old, new = client.patients.retrieve(["patient/0", "patient/9"])
    assert old.payload.model_dump() == {"birthyear": 1950, "sex": "M", "species": "dog", "ethnic_group": None}
    assert old.license == "CC0"
    assert new.payload.model_dump() == {"birthyear": None, "sex": None, "species": "cat", "ethnic_group": None}


def test_a_null_clears_and_an_empty_text_does_not(client: Client) -> None:
    report = client.patients.upsert(patients(identifier=["0", "1"], sex=[None, ""], license=[None, ""]))
    cleared, emptied = client.patients.retrieve(["patient/0", "patient/1"])
    assert counts(report) == (0, 2, 0, 0, 0)
    assert (cleared.payload.sex, cleared.license) == (None, None)
    assert (emptied.payload.sex, emptied.license) == ("", "")


def test_derived_columns_are_ignored(client: Client) -> None:
    frame = (
        client.patients.query()
        .collect()
        .with_columns(
            pl.lit("datasource/elsewhere").alias("datasource_id"),
            pl.lit("nonsense").alias("valid_from"),
            pl.lit(3).alias("created_at"),
            pl.lit(None).alias("ancestors"),
            pl.lit("x").alias("study_id"),
        )
    )
    assert counts(client.patients.upsert(frame)) == (0, 0, 4, 0, 0)
    assert counts(client.patients.upsert(frame.with_columns(sex=pl.lit("F")))) == (0, 4, 0, 0, 0)
    assert set(client.patients.query().collect()["datasource_id"]) == set(SOURCES)


@pytest.mark.parametrize("wrap", [pl.DataFrame.lazy, lambda frame: frame.lazy().filter(pl.col("sex") == "F")])
def test_a_lazy_frame_will_do(client: Client, wrap: Callable[[pl.DataFrame], pl.LazyFrame]) -> None:
    frame = patients(identifier=["0", "1"], sex=["F", "F"])
    assert counts(client.patients.upsert(wrap(frame))) == (0, 2, 0, 0, 0)


def test_a_query_feeds_an_upsert_lazily(client: Client) -> None:
    plan = client.patients.query().filter(F.birthyear < 1952).lazy().with_columns(sex=pl.lit("F"))
    assert counts(client.patients.upsert(plan)) == (0, 2, 0, 0, 0)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"identifier": []}),
        pl.DataFrame(schema={"identifier": pl.String, "sex": pl.String, "parent_identifier": pl.String}),
        pl.LazyFrame(schema={"identifier": pl.String}),
    ],
)
def test_an_empty_frame_changes_nothing(client: Client, frame: pl.DataFrame | pl.LazyFrame) -> None:
    files = files_of(client)
    for missing in ("keep", "delete"):
        assert counts(client.patients.upsert(frame, missing=missing)) == (0, 0, 0, 0, 0)  # type: ignore[arg-type]
    assert files_of(client) == files


def test_an_upsert_makes_the_first_rows_of_a_table(client: Client) -> None:
    frame = pl.DataFrame({"identifier": ["psameasurement/1"], "parent_identifier": ["patient/0"], "value": [4]})
    assert counts(client.psa_measurements.upsert(frame)) == (1, 0, 0, 0, 0)
    assert client.psa_measurements.retrieve("psameasurement/1").payload.value == 4.0


def test_nan_is_null(client: Client) -> None:
    frame = pl.DataFrame(
        {"identifier": ["psameasurement/1", "psameasurement/2"], "parent_identifier": ["patient/0"] * 2}
    )
    values = frame.with_columns(value=pl.Series([float("nan"), None]))
    assert counts(client.psa_measurements.upsert(values)) == (2, 0, 0, 0, 0)
    assert counts(client.psa_measurements.upsert(values.reverse())) == (0, 0, 2, 0, 0)
    assert client.psa_measurements.query().filter(F.value.is_null()).count() == 2


def test_lists_are_compared_as_a_whole(client: Client) -> None:
    study = Resource(identifier="imagingstudy/1", parent_identifier="patient/0")
    names = [f"volume/{n}" for n in range(4)]
    lists: list[Any] = [None, [], ["volume/0"], ["volume/0", "volume/1"]]
    client.imaging_studies.create(study)
    frame = pl.DataFrame({"identifier": names, "parent_identifier": ["imagingstudy/1"] * 4, "derived_from": lists})
    client.volumes.upsert(frame)
    assert counts(client.volumes.upsert(frame)) == (0, 0, 4, 0, 0)
    turned = frame.with_columns(pl.col("derived_from").list.reverse())
    assert counts(client.volumes.upsert(turned)) == (0, 1, 3, 0, 0)
    swapped = frame.with_columns(derived_from=pl.Series([[], None, ["volume/0"], lists[3]]))
    assert counts(client.volumes.upsert(swapped)) == (0, 3, 1, 0, 0)
    assert [found.payload.derived_from for found in client.volumes.retrieve(names)] == [
        [],
        None,
        ["volume/0"],
        lists[3],
    ]


@pytest.mark.parametrize("seed", range(3))
def test_specimens_inside_specimens_stand_in_one_frame_in_any_order(client: Client, seed: int) -> None:
    names = [f"pathologyspecimen/{depth}" for depth in range(7)]
    rows = list(zip(names, ["patient/0", *names], strict=False))
    frame = pl.DataFrame(random.Random(seed).sample(rows, 7), schema=["identifier", "parent_identifier"], orient="row")
    assert counts(client.pathology_specimens.upsert(frame)) == (7, 0, 0, 0, 0)
    assert client.pathology_specimens.retrieve(names[-1]).ancestors == ("datasource/a", "patient/0", *names[:-1])
    assert counts(client.pathology_specimens.upsert(frame.reverse())) == (0, 0, 7, 0, 0)


def test_a_deleted_resource_in_the_frame_is_created_again(lake_uri: str) -> None:
    client = make(lake_uri)
    frame = client.patients.query().collect()
    client.patients.delete("patient/0")
    assert counts(client.patients.upsert(frame)) == (1, 0, 3, 0, 0)
    first, second = Client(lake_uri).patients.history("patient/0")
    assert first.valid_to is not None
    assert first.valid_to < second.valid_from == second.created_at
    assert second.payload == first.payload


def test_many_rows_are_few_files(client: Client) -> None:
    names = pl.select(pl.format("patient/many{}", pl.int_range(20_000))).to_series()
    frame = pl.DataFrame({"identifier": names, "parent_identifier": ["datasource/a"] * 20_000, "birthyear": 1})
    before = len(files_of(client))
    assert client.patients.upsert(frame).created == 20_000
    assert len(files_of(client)) <= before + 2
    odd = frame.with_columns(birthyear=pl.int_range(20_000) % 2)
    assert counts(client.patients.upsert(odd)) == (0, 10_000, 10_000, 0, 0)
    assert counts(client.patients.upsert(odd)) == (0, 0, 20_000, 0, 0)


# -- types of columns


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (pl.Series([1], dtype=pl.Int8), 1),
        (pl.Series([1], dtype=pl.UInt64), 1),
        (pl.Series([None]), None),
        (pl.Series([None], dtype=pl.Int64), None),
    ],
)
def test_whole_numbers_of_any_width_fit_an_int(client: Client, column: pl.Series, stored: int | None) -> None:
    client.patients.upsert(pl.DataFrame({"identifier": ["patient/0"], "birthyear": column}))
    assert client.patients.retrieve("patient/0").payload.birthyear == stored


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["F", "M"])])
def test_categories_are_texts(client: Client, dtype: Any) -> None:
    sexes = pl.Series(["F", "M"], dtype=dtype)
    assert counts(client.patients.upsert(patients(identifier=["0", "1"]).with_columns(sex=sexes))) == (0, 1, 1, 0, 0)
    assert client.patients.retrieve("patient/0").payload.sex == "F"


NOON = datetime(2024, 1, 31, 12, 0, 0, 5)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([NOON]),
        pl.Series([NOON], dtype=pl.Datetime("ns")),
        pl.Series([NOON], dtype=pl.Datetime("us", "UTC")),
        pl.Series([NOON]).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Kolkata"),
        pl.Series([NOON]).dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_instants_of_any_zone_are_kept_in_utc_and_naive_means_utc(client: Client, column: pl.Series) -> None:
    frame = pl.DataFrame(
        {"identifier": ["psameasurement/1"], "parent_identifier": ["patient/0"], "measured_at": column}
    )
    client.psa_measurements.upsert(frame)
    assert client.psa_measurements.retrieve("psameasurement/1").payload.measured_at == NOON.replace(tzinfo=UTC)


def test_a_day_is_its_first_instant(client: Client) -> None:
    frame = pl.DataFrame({"identifier": ["psameasurement/1"], "parent_identifier": ["patient/0"]})
    client.psa_measurements.upsert(frame.with_columns(measured_at=pl.lit(date(2024, 2, 29))))
    found = client.psa_measurements.retrieve("psameasurement/1").payload.measured_at
    assert found == datetime(2024, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("birthyear", ["1950"]),
        ("birthyear", [1950.0]),
        ("birthyear", [True]),
        ("birthyear", [date(1950, 1, 1)]),
        ("sex", [1]),
        ("sex", [["M"]]),
        ("sex", [b"M"]),
        ("license", [3]),
        ("identifier", [1]),
        ("parent_identifier", [1]),
        ("birthyear", pl.Series([2**63], dtype=pl.UInt64)),
    ],
    ids=str,
)
def test_a_column_of_a_wrong_type_is_refused_with_its_name(client: Client, name: str, column: Any) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError, match=name):
        client.patients.upsert(pl.DataFrame({"identifier": ["patient/0"]}).with_columns(pl.Series(name, column)))
    assert files_of(client) == files


@pytest.mark.parametrize("name", ["birthyer", "closes", "is_deleted", "commit_id", "closed_by", "Sex", "value"])
def test_an_unknown_column_is_refused_with_the_nearest(client: Client, name: str) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError, match=name) as raised:
        client.patients.upsert(patients(identifier=["0"]).with_columns(pl.lit(None).alias(name)))
    assert ("'sex'" if name == "Sex" else "birthyear") in str(raised.value)
    assert files_of(client) == files


@pytest.mark.parametrize(
    "frame", [None, {"identifier": ["patient/0"]}, [], "patients.parquet", pl.Series(["patient/0"])]
)
def test_what_is_no_frame_is_refused(client: Client, frame: Any) -> None:
    with pytest.raises(InvalidInputError, match="DataFrame"):
        client.patients.upsert(frame)


@pytest.mark.parametrize("frame", [pl.DataFrame(), pl.DataFrame({"sex": ["M"]}), pl.LazyFrame({"Identifier": ["a"]})])
def test_a_frame_without_identifiers_is_refused(client: Client, frame: Any) -> None:
    with pytest.raises(InvalidInputError, match="identifier"):
        client.patients.upsert(frame)


@pytest.mark.parametrize(
    "option",
    [{"missing": "drop"}, {"missing": None}, {"on_invalid": "ignore"}, {"valid_from": "then"}, {"valid_from": 7}]
    + [{"missing": "delete", "datasources": d} for d in ("datasource/a", ["a"], [None], ["patient/0"], 7)],
    ids=str,
)
def test_a_wrong_option_is_refused(client: Client, option: dict[str, Any]) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError):
        client.patients.upsert(patients(identifier=["0"], sex=["F"]), **option)
    assert files_of(client) == files


def test_a_lazy_frame_that_cannot_be_read_is_an_error_of_ours(client: Client, tmp_path: Path) -> None:
    with pytest.raises(VxDataError, match="No such file") as raised:
        client.patients.upsert(pl.scan_parquet(tmp_path / "gone.parquet"))
    assert "of the lake" not in str(raised.value)
    broken = patients(identifier=["0"], sex=["F"]).lazy().with_columns(birthyear=pl.col("sex").str.to_integer())
    with pytest.raises(VxDataError):
        client.patients.upsert(broken)


# -- invalid rows

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"identifier": None}, "null"),
    ({"identifier": "patient/.."}, "'..'"),
    ({"identifier": "volume/1"}, "'volume'"),
    ({"identifier": "patient/9", "parent_identifier": None}, "parent"),
    ({"identifier": "patient/9", "parent_identifier": "datasource/none"}, "datasource/none"),
    ({"identifier": "patient/9", "parent_identifier": "patient/1"}, "'patient'"),
    ({"identifier": "patient/9", "parent_identifier": "datasource"}, "datasource"),
    ({"identifier": "patient/0", "parent_identifier": "datasource/b"}, "parent"),
]
each_invalid = pytest.mark.parametrize(("row", "word"), INVALID, ids=lambda value: str(value)[:60])


def with_a_good_row(row: dict[str, Any]) -> pl.DataFrame:
    """Return a frame of one row that updates a patient, and this one."""
    good = {"identifier": "patient/1", "parent_identifier": "datasource/a", "sex": "F"}
    return pl.DataFrame([good, {"sex": "X", **row}], schema=dict.fromkeys(good, pl.String))


@each_invalid
def test_an_invalid_row_stops_everything(client: Client, row: dict[str, Any], word: str) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError) as raised:
        client.patients.upsert(with_a_good_row(row))
    assert word in str(raised.value)
    assert str(row["identifier"]) in str(raised.value)
    assert files_of(client) == files


@each_invalid
def test_skip_writes_the_others_and_reports_the_row_with_its_reason(
    client: Client, row: dict[str, Any], word: str
) -> None:
    report = client.patients.upsert(with_a_good_row(row), on_invalid="skip")
    assert counts(report) == (0, 1, 0, 0, 1)
    [rejected] = report.rejected.to_dicts()
    assert word in rejected.pop("reason")
    assert rejected == {"parent_identifier": None, "sex": "X", **row}
    assert client.patients.query().filter(F.sex == "F").select("identifier").collect().rows() == [("patient/1",)]


@pytest.mark.parametrize(
    ("stored", "dtype", "shown"),
    [
        (2**60, pl.Datetime("us"), f"{2**60} microseconds"),
        (-(2**60), pl.Datetime("us", "Europe/Berlin"), f"-{2**60} microseconds"),
        (253_402_300_800_000, pl.Datetime("ms"), "253402300800000000 microseconds"),
        (2**62, pl.Datetime("ms", "UTC"), "9223372036854775000 microseconds"),
        (2**31 - 1, pl.Date(), "microseconds"),
    ],
)
def test_an_instant_outside_the_calendar_is_an_invalid_row(
    client: Client, stored: int, dtype: pl.DataType, shown: str
) -> None:
    small = pl.Int32 if dtype == pl.Date else pl.Int64
    frame = pl.DataFrame(
        {
            "identifier": ["psameasurement/1", "psameasurement/2"],
            "parent_identifier": ["patient/1", "patient/1"],
            "measured_at": pl.Series([stored, 0], dtype=small).cast(dtype),
        }
    )
    with pytest.raises(InvalidInputError, match=f"'psameasurement/1': measured_at .*{shown} since 1970.*1 to 9999"):
        client.psa_measurements.upsert(frame)
    report = client.psa_measurements.upsert(frame, on_invalid="skip")
    assert counts(report) == (1, 0, 0, 0, 1)
    assert str(report.rejected["reason"].item()).startswith("measured_at ")
    assert "psameasurement/1" in str(report.rejected)
    measured = client.psa_measurements.retrieve("psameasurement/2").payload.measured_at
    assert measured == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_instants_of_every_unit_and_zone_are_kept(client: Client, unit: Any, zone: str | None) -> None:
    instants = [datetime(1913, 2, 3, 4, 5, 6, 789000, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC), None]
    column = pl.Series(instants, dtype=pl.Datetime(unit, "UTC")).dt.convert_time_zone(zone or "UTC")
    rows = {"identifier": [f"psameasurement/{n}" for n in range(3)], "parent_identifier": ["patient/1"] * 3}
    naive = column if zone else column.dt.replace_time_zone(None)
    client.psa_measurements.upsert(pl.DataFrame({**rows, "measured_at": naive}))
    found = client.psa_measurements.query().sort("identifier").collect()["measured_at"]
    assert found.to_list() == instants


def test_a_parent_of_null_or_none_given_leaves_the_parent(client: Client) -> None:
    nulls = pl.Series([None, None], dtype=pl.String)
    frame = patients(identifier=["0", "1"], sex=["F", "F"])
    assert counts(client.patients.upsert(frame.with_columns(parent_identifier=nulls))) == (0, 2, 0, 0, 0)
    assert {found.parent_identifier for found in client.patients.retrieve(["patient/0", "patient/1"])} == {
        "datasource/a"
    }


def test_equal_duplicates_count_once(client: Client) -> None:
    frame = patients(identifier=["0", "9", "0", "9"], parent_identifier=SOURCES[:1] * 4, sex=["F", None, "F", None])
    assert counts(client.patients.upsert(frame)) == (1, 1, 0, 0, 0)
    assert len(client.patients.history("patient/0")) == 2


def test_rows_that_differ_in_derived_columns_only_are_equal(client: Client) -> None:
    frame = client.patients.query().filter(F.identifier == "patient/0").collect()
    other = frame.with_columns(pl.col("valid_from") + pl.duration(days=1))
    assert counts(client.patients.upsert(pl.concat([frame, other]))) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    "column", [{"sex": ["F", "O", "F"]}, {"sex": ["F", None, "F"]}, {"parent_identifier": [*SOURCES, "datasource/a"]}]
)
def test_different_duplicates_are_all_rejected(client: Client, column: Rows) -> None:
    frame = patients(identifier=["0", "0", "1"], **column)
    report = client.patients.upsert(frame, on_invalid="skip")
    assert report.rejected["identifier"].to_list() == ["patient/0", "patient/0"]
    assert client.patients.retrieve("patient/0").payload.sex == "M"
    with pytest.raises(InvalidInputError, match="patient/0"):
        client.patients.upsert(frame)


def test_specimens_that_hold_each_other_are_rejected_with_all_below_them(client: Client) -> None:
    parents = {"x": "y", "y": "x", "below": "x", "good": None}
    frame = pl.DataFrame({"identifier": list(parents), "parent_identifier": list(parents.values())})
    typed = frame.select(pl.format("pathologyspecimen/{}", pl.all())).with_columns(
        pl.col("parent_identifier").fill_null("patient/0")
    )
    report = client.pathology_specimens.upsert(typed, on_invalid="skip")
    assert counts(report) == (1, 0, 0, 0, 3)
    reasons = {name.rpartition("/")[2]: reason for name, *_, reason in report.rejected.iter_rows()}
    assert reasons == {
        "x": "parent_identifier pathologyspecimen/y descends from the resource itself",
        "y": "parent_identifier pathologyspecimen/x descends from the resource itself",
        "below": "parent_identifier pathologyspecimen/x is in the frame, but cannot be written either",
    }


def test_a_specimen_that_holds_itself_is_told_so(client: Client) -> None:
    own = "pathologyspecimen/x"
    with pytest.raises(InvalidInputError, match="'pathologyspecimen/x': parent_identifier is the resource itself"):
        client.pathology_specimens.upsert(pl.DataFrame({"identifier": [own], "parent_identifier": [own]}))
    with pytest.raises(InvalidInputError, match="'pathologyspecimen/x': parent_identifier is the resource itself"):
        client.resources.create(Resource(identifier=own, parent_identifier=own))


def test_a_report_is_frozen(client: Client) -> None:
    report: Any = client.patients.upsert(patients(identifier=["0"]))
    with pytest.raises(AttributeError):
        report.created = 5


# -- missing="delete"


@pytest.mark.parametrize("gives_datasource", [False, True])
def test_a_row_that_names_the_wrong_parent_does_not_name_the_datasource_where_the_resource_lives(
    client: Client, gives_datasource: bool
) -> None:
    frame = patients(identifier=["0", "2"], parent_identifier=[SOURCES[0]] * 2)  # patient/2 lives in the other one
    named = {"datasources": SOURCES} if gives_datasource else {}
    report = client.patients.upsert(frame, missing="delete", on_invalid="skip", **named)
    assert report.rejected["identifier"].to_list() == ["patient/2"]
    left = {"patient/0", "patient/2"} | (set() if gives_datasource else {"patient/3"})
    assert set(client.patients.query().collect()["identifier"]) == left


def test_missing_delete_closes_what_the_frame_lacks_in_the_datasources_that_it_names(lake_uri: str) -> None:
    client = make(lake_uri)
    report = client.patients.upsert(patients(identifier=["0"], sex=["F"]), missing="delete")
    assert counts(report) == (0, 1, 0, 1, 0)
    assert live(Client(lake_uri)) == ["0", "2", "3"]
    assert counts(client.patients.upsert(patients(identifier=["0"], sex=["F"]), missing="delete")) == (0, 0, 1, 0, 0)


def test_a_new_resource_names_its_datasource_too(client: Client) -> None:
    frame = patients(identifier=["new"], parent_identifier=["datasource/b"])
    assert counts(client.patients.upsert(frame, missing="delete")) == (1, 0, 0, 2, 0)
    assert live(client) == ["0", "1", "new"]


def test_all_that_missing_delete_does_is_one_commit(client: Client) -> None:
    before = commits_of(client, "patients")
    frame = patients(identifier=["0", "new"], parent_identifier=SOURCES[:1] * 2, sex=["F", "F"])
    assert counts(client.patients.upsert(frame, missing="delete")) == (1, 1, 0, 1, 0)
    assert commits_of(client, "patients") == before + 1


@pytest.mark.parametrize(
    ("datasources", "left"),
    [
        (["datasource/b"], ["0", "1"]),
        (SOURCES, ["0"]),
        ([], ["0", "1", "2", "3"]),
    ],
)
def test_the_caller_may_name_the_datasources(client: Client, datasources: list[str], left: list[str]) -> None:
    report = client.patients.upsert(patients(identifier=["0"]), missing="delete", datasources=datasources)
    assert report.deleted == 4 - len(left)
    assert live(client) == left


def test_a_datasource_can_be_emptied_by_an_empty_frame(client: Client) -> None:
    empty = pl.DataFrame(schema={"identifier": pl.String})
    assert client.patients.upsert(empty, missing="delete", datasources=["datasource/a"]).deleted == 2
    assert live(client) == ["2", "3"]


def test_rows_that_are_rejected_are_not_missing(client: Client) -> None:
    frame = patients(identifier=["0", "1", "1"], sex=["F", "F", "O"])
    report = client.patients.upsert(frame, missing="delete", on_invalid="skip")
    assert counts(report) == (0, 1, 0, 0, 2)
    assert live(client) == ["0", "1", "2", "3"]


@pytest.fixture
def with_children(client: Client) -> Client:
    """A client whose patient 1 has a measurement and a study with a volume."""
    chain = ["patient/1", "imagingstudy/1", "volume/1"]
    below = [Resource(identifier=i, parent_identifier=p) for i, p in zip(chain[1:], chain, strict=False)]
    client.resources.create([*below, Resource(identifier="psameasurement/1", parent_identifier="patient/1")])
    return client


def test_missing_ones_with_live_children_are_refused(with_children: Client) -> None:
    files = files_of(with_children)
    with pytest.raises(InvalidInputError, match="patient/1") as raised:
        with_children.patients.upsert(patients(identifier=["0"], sex=["F"]), missing="delete")
    assert "1 imaging_studies" in str(raised.value)
    assert "1 psa_measurements" in str(raised.value)
    assert files_of(with_children) == files


def test_cascade_takes_the_descendants_along(with_children: Client) -> None:
    report = with_children.patients.upsert(patients(identifier=["0"], sex=["F"]), missing="delete", cascade=True)
    assert counts(report) == (0, 1, 0, 1, 0)
    assert report.cascaded == {"imaging_studies": 1, "volumes": 1, "psa_measurements": 1}
    assert live(with_children) == ["0", "2", "3"]
    namespaces = (with_children.imaging_studies, with_children.volumes, with_children.psa_measurements)
    assert [namespace.query().count() for namespace in namespaces] == [0, 0, 0]


def test_missing_specimens_take_no_specimen_that_the_frame_holds(client: Client) -> None:
    outer, inner = "pathologyspecimen/outer", "pathologyspecimen/inner"
    frame = pl.DataFrame({"identifier": [outer, inner], "parent_identifier": ["patient/0", outer]})
    client.pathology_specimens.upsert(frame)
    with pytest.raises(InvalidInputError, match=inner):
        client.pathology_specimens.upsert(frame.tail(1), missing="delete", cascade=True)
    assert client.pathology_specimens.query().count() == 2
    assert client.pathology_specimens.upsert(frame.head(1), missing="delete").deleted == 1


# -- loading history


def test_an_explicit_valid_from_is_taken_as_it_is(lake_uri: str) -> None:
    client = make(lake_uri)
    frame = patients(identifier=["old"], parent_identifier=["datasource/a"], birthyear=[1])
    client.patients.upsert(frame, valid_from="2001-01-01")
    client.patients.upsert(frame.with_columns(birthyear=2), valid_from=datetime(2005, 1, 1, tzinfo=UTC))
    client.patients.upsert(frame.with_columns(birthyear=3), valid_from=date(2009, 1, 1))
    history = Client(lake_uri).patients.history("patient/old")
    assert [(v.payload.birthyear, v.valid_from.year) for v in history] == [(1, 2001), (2, 2005), (3, 2009)]
    assert {version.created_at.year for version in history} == {2001}
    assert Client(lake_uri).as_of("2006-01-01").patients.retrieve("patient/old").payload.birthyear == 2


@pytest.mark.parametrize("instant", ["2005-01-01", "2003-01-01", "1970-01-01"])
def test_a_row_that_is_not_later_than_what_is_known_is_rejected(client: Client, instant: str) -> None:
    frame = patients(identifier=["old", "new"], parent_identifier=SOURCES[:1] * 2, birthyear=[1, 1])
    client.patients.upsert(frame.head(1), valid_from="2005-01-01")
    later = frame.with_columns(birthyear=2)
    report = client.patients.upsert(later, valid_from=instant, on_invalid="skip")
    assert counts(report) == (1, 0, 0, 0, 1)
    assert report.rejected.select("identifier").item() == "patient/old"
    with pytest.raises(InvalidInputError, match="patient/old"):
        client.patients.upsert(later, valid_from=instant)
    assert len(client.patients.history("patient/old")) == 1


def test_an_unchanged_row_is_never_late(client: Client) -> None:
    assert counts(client.patients.upsert(client.patients.query().collect(), valid_from="2001-01-01")) == (0, 0, 4, 0, 0)


def test_the_end_of_a_deleted_resource_counts_too(client: Client) -> None:
    client.patients.delete("patient/0")
    frame = patients(identifier=["0"], parent_identifier=["datasource/a"])
    ended = client.patients.history("patient/0")[0].valid_to
    assert ended is not None
    assert client.patients.upsert(frame, valid_from=ended, on_invalid="skip").rejected.height == 1
    assert client.patients.upsert(frame, valid_from=ended + timedelta(microseconds=1)).created == 1


def test_a_delete_that_is_dated_too_early_is_rejected(client: Client) -> None:
    frame = patients(identifier=["new"], parent_identifier=["datasource/a"])
    report = client.patients.upsert(frame, missing="delete", valid_from="2001-01-01", on_invalid="skip")
    assert counts(report) == (1, 0, 0, 0, 2)
    assert set(report.rejected["identifier"]) == {"patient/0", "patient/1"}
    assert live(client) == ["0", "1", "2", "3", "new"]


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(days=40_000)])
def test_the_future_is_refused(client: Client, ahead: timedelta) -> None:
    files = files_of(client)
    with pytest.raises(InvalidInputError, match="future"):
        client.patients.upsert(patients(identifier=["0"], sex=["F"]), valid_from=datetime.now(UTC) + ahead)
    assert files_of(client) == files


def test_without_an_instant_the_clock_of_the_plan_dates_all_rows(client: Client) -> None:
    before = datetime.now(UTC)
    client.patients.upsert(patients(identifier=["0", "1", "9"], parent_identifier=SOURCES[:1] * 3, sex=["F"] * 3))
    after = datetime.now(UTC)
    found = client.patients.retrieve(["patient/0", "patient/1", "patient/9"])
    assert len({response.valid_from for response in found}) == 1
    assert before <= found[0].valid_from <= after


def test_a_frame_whose_reading_breaks_off_is_refused_whole(tmp_path: Path) -> None:
    client = Client(tmp_path / "lake")
    client.datasources.create(Resource(identifier="datasource/d"))
    names = [f"patient/{n:05}" for n in range(60_000)]
    rows = pl.DataFrame({"identifier": names, "parent_identifier": "datasource/d"})
    client.patients.upsert(rows)
    instants = pl.Series([1_000] * 50_000 + [3 * 10**17] + [1_000] * 9_999).cast(pl.Datetime("ms"))
    years = pl.col("at").cast(pl.Datetime("us")).dt.year().cast(pl.Int64)  # Polars panics at what no cast holds
    broken = rows.lazy().with_columns(at=instants).select("identifier", "parent_identifier", birthyear=years)
    with pytest.raises(InvalidInputError, match="a frame of patients cannot be read: invalid or out-of-range datetime"):
        client.patients.upsert(broken, missing="delete")
    assert client.patients.query().count() == 60_000
