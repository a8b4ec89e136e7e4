"""The IDC reader against the installed index; DuckDB, which reads the same Parquet file, is the oracle."""

import logging
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from vxdata.errors import InvalidInputError, NotFoundError
from vxdata.schemas.identifiers import identifier_fault
from vxdata.schemas.payload import DatasourcePayload, ImagingStudyPayload, PatientPayload, Payload, VolumePayload
from vxdata.sources.idc import IdcRelease, find_release, read_release

Frames = dict[str, pl.DataFrame]
PAYLOADS = [DatasourcePayload, PatientPayload, ImagingStudyPayload, VolumePayload]
RIDER_BLANKS = "patient/rider_phantom_mri/ZZ RIDER MR8 1"

PATHS = {
    "datasources": "'datasource/' || collection_id",
    "patients": "'patient/' || collection_id || '/' || PatientID",
    "imaging_studies": "'imagingstudy/' || collection_id || '/' || PatientID || '/' || StudyInstanceUID",
    "volumes": "'volume/' || collection_id || '/' || PatientID || '/' || StudyInstanceUID || '/' || SeriesInstanceUID",
}
VOLUMES_SQL = f"""
    SELECT {PATHS["volumes"]} AS identifier, {PATHS["imaging_studies"]} AS parent_identifier,
        license_short_name AS license,
        nullif(SeriesDescription, '') AS series_description, Modality AS modality,
        left(series_aws_url, -1) AS path_dicom, SeriesInstanceUID AS series_instance_uid,
        try_cast(SeriesNumber AS BIGINT) AS series_number, SeriesDate::TIMESTAMP AS series_datetime,
        BodyPartExamined AS body_part_examined, Manufacturer AS manufacturer,
        ManufacturerModelName AS manufacturer_model_name, SOPClassUID AS sop_class_uid,
        TransferSyntaxUID AS transfer_syntax_uid, PhotometricInterpretation AS photometric_interpretation,
        PixelRepresentation AS pixel_representation, instanceCount AS number_of_series_related_instances,
        series_size_MB AS size_mb, source_DOI AS source_doi, analysis_result_id AS analysis_result
    FROM idc"""
DATASOURCES_SQL = f"""
    SELECT {PATHS["datasources"]} AS identifier, NULL::VARCHAR AS parent_identifier,
        CASE WHEN count(DISTINCT license_short_name) = 1 THEN any_value(license_short_name) END AS license,
        any_value(collection_name) AS name, any_value(description) AS description, any_value(program_id) AS program,
        any_value(species) AS species, any_value(cancer_types) AS cancer_types,
        any_value(tumor_locations) AS tumor_locations, 'NCI Imaging Data Commons' AS origin
    FROM idc JOIN collections USING (collection_id) GROUP BY ALL"""


@pytest.fixture(scope="module")
def release() -> IdcRelease:
    return find_release()


@pytest.fixture(scope="module")
def frames(release: IdcRelease) -> Frames:
    return read_release(release)


@pytest.fixture(scope="module")
def oracle(release: IdcRelease) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.read_parquet(str(release.index)).create_view("idc")
    connection.read_parquet(str(release.collections)).create_view("collections")
    return connection


def ask(oracle: duckdb.DuckDBPyConnection, sql: str) -> pl.DataFrame:
    rows: pl.DataFrame = oracle.sql(sql).pl()
    rows = rows if rows["identifier"].is_sorted() else rows.sort("identifier")
    naive = [name for name, dtype in rows.schema.items() if dtype == pl.Datetime]
    return rows.with_columns(pl.col(naive).dt.replace_time_zone("UTC"))


def most_frequent(oracle: duckdb.DuckDBPyConnection, path: str, value: str) -> pl.DataFrame:
    return ask(
        oracle,
        f"""SELECT identifier, value FROM (SELECT {path} AS identifier, {value} AS value, count(*) AS n
            FROM idc WHERE {value} IS NOT NULL GROUP BY ALL)
            QUALIFY row_number() OVER (PARTITION BY identifier ORDER BY n DESC, value) = 1""",
    )


def series(n: int, **values: Any) -> dict[str, Any]:
    """One row of a synthetic index; unlike the others of it in its UID."""
    row = {
        "collection_id": "lab", "PatientID": "P1", "StudyInstanceUID": "1.2", "SeriesInstanceUID": f"1.2.{n}",
        "SeriesDescription": "T2", "Modality": "MR", "BodyPartExamined": "PROSTATE", "Manufacturer": "ACME",
        "ManufacturerModelName": "One", "SOPClassUID": "1", "TransferSyntaxUID": "2", "PixelRepresentation": "0",
        "PhotometricInterpretation": "MONOCHROME2", "source_DOI": "10.1/x", "analysis_result_id": None,
        "license_short_name": "CC BY 4.0", "PatientSex": "M", "StudyDescription": "MRI", "PatientAge": "061Y",
        "StudyDate": "2001-02-03", "SeriesDate": "2001-02-03", "SeriesNumber": str(n), "instanceCount": 3,
        "series_aws_url": f"s3://bucket/{n}/*", "series_size_MB": 1.5, "series_revised_idc_version": 7,
    }  # fmt: skip
    return row | values


def write_index(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "idc_index.parquet"
    pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col(pl.Null).cast(pl.String)).write_parquet(path)
    return path


def read_rows(folder: Path, *rows: dict[str, Any]) -> Frames:
    return read_release(find_release(write_index(folder, *rows)))


# ---- the installed release


@pytest.mark.parametrize("namespace", PATHS)
def test_each_namespace_has_one_row_per_distinct_key(
    frames: Frames, oracle: duckdb.DuckDBPyConnection, namespace: str
) -> None:
    identifiers = frames[namespace]["identifier"]
    expected = oracle.sql(f"SELECT count(DISTINCT {PATHS[namespace]}) FROM idc").fetchall()
    assert [(len(identifiers),)] == expected
    assert identifiers.n_unique() == len(identifiers)
    assert identifiers.is_sorted()


def test_every_volume_equals_its_row_of_the_index(frames: Frames, oracle: duckdb.DuckDBPyConnection) -> None:
    assert_frame_equal(frames["volumes"], ask(oracle, VOLUMES_SQL), check_exact=True)


def test_every_datasource_equals_its_collection(frames: Frames, oracle: duckdb.DuckDBPyConnection) -> None:
    assert_frame_equal(frames["datasources"], ask(oracle, DATASOURCES_SQL))


@pytest.mark.parametrize(
    ("namespace", "field", "value"),
    [
        ("patients", "sex", "PatientSex"),
        ("imaging_studies", "study_datetime", "StudyDate::TIMESTAMP"),
        ("imaging_studies", "study_description", "StudyDescription"),
        ("imaging_studies", "patient_age", "regexp_extract(PatientAge, '^[0-9]{3}[DWMY]$')"),
        ("imaging_studies", "study_instance_uid", "StudyInstanceUID"),
        ("imaging_studies", "parent_identifier", PATHS["patients"]),
        ("patients", "parent_identifier", PATHS["datasources"]),
    ],
)
def test_a_patient_or_study_has_the_most_frequent_value_of_its_series(
    frames: Frames, oracle: duckdb.DuckDBPyConnection, namespace: str, field: str, value: str
) -> None:
    expected = most_frequent(oracle, PATHS[namespace], f"nullif({value}, '')" if "regexp" in value else value)
    found = frames[namespace].select("identifier", value=field).drop_nulls()
    assert_frame_equal(found, expected)


@pytest.mark.parametrize("namespace", ["patients", "imaging_studies"])
def test_a_license_stands_only_where_all_series_agree(
    frames: Frames, oracle: duckdb.DuckDBPyConnection, namespace: str
) -> None:
    agreed = "CASE WHEN min(license_short_name) = max(license_short_name) THEN min(license_short_name) END"
    expected = ask(oracle, f"SELECT {PATHS[namespace]} AS identifier, {agreed} AS license FROM idc GROUP BY 1")
    assert_frame_equal(frames[namespace].select("identifier", "license"), expected)
    assert expected["license"].null_count() > 0


def test_namespaces_come_root_first_and_every_parent_is_there(frames: Frames) -> None:
    assert list(frames) == ["datasources", "patients", "imaging_studies", "volumes"]
    assert frames["datasources"]["parent_identifier"].is_null().all()
    for parents, children in pairwise(frames.values()):
        found = children["parent_identifier"].unique().sort()
        assert found.equals(parents["identifier"].alias("parent_identifier"))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_columns_are_fields_of_the_payload_model_in_its_order(frames: Frames, payload: type[Payload]) -> None:
    frame = frames[payload.namespace]
    fields = frame.columns[3:]
    assert frame.columns[:3] == ["identifier", "parent_identifier", "license"]
    assert fields == [name for name in payload.model_fields if name in fields]
    assert {dtype for dtype in frame.dtypes if dtype.is_temporal()} <= {pl.Datetime("us", "UTC")}
    for row in frame.select(fields).sample(min(200, len(frame)), seed=1).to_dicts():
        assert payload.model_validate(row).model_dump(include=set(fields)) == row


def test_every_patient_code_makes_a_valid_identifier(frames: Frames) -> None:
    assert not [i for i in frames["patients"]["identifier"] if identifier_fault(i)]


def test_blanks_and_equals_signs_survive(frames: Frames) -> None:
    identifiers = frames["patients"]["identifier"]
    odd = identifiers.filter(identifiers.str.contains("[ =]")).to_list()
    assert RIDER_BLANKS in odd
    assert any(identifier.endswith("/GBM_DSC_MRI_DRO_Bo=3T") for identifier in odd)
    below = frames["imaging_studies"].filter(parent_identifier=RIDER_BLANKS)
    assert below["identifier"].str.contains("/ZZ RIDER MR8 1/", literal=True).all()
    assert len(below) > 0


def test_a_patient_code_in_two_collections_is_two_patients(frames: Frames) -> None:
    codes = frames["patients"].select(
        pl.col("identifier").str.split("/").list.last().alias("code"), "parent_identifier"
    )
    shared = codes.group_by("code").agg(pl.col("parent_identifier").n_unique().alias("collections"), pl.len())
    assert shared.filter(pl.col("collections") > 1).height > 0
    assert (shared["collections"] == shared["len"]).all()


def test_a_study_uid_under_two_patients_is_two_studies(frames: Frames) -> None:
    studies = frames["imaging_studies"]
    twice = studies.filter(pl.col("study_instance_uid").is_duplicated())
    assert twice.height > 0
    assert twice["parent_identifier"].n_unique() == twice.height


def test_dates_of_the_19th_century_are_kept(frames: Frames) -> None:
    assert frames["imaging_studies"]["study_datetime"].min() == datetime(1880, 9, 9, tzinfo=UTC)


def test_chosen_collections_give_the_same_rows_as_all(frames: Frames, release: IdcRelease) -> None:
    chosen = ["rider_phantom_mri", "tcga_tgct"]
    some = read_release(release, chosen)
    for namespace, frame in some.items():
        collection = pl.col("identifier").str.split("/").list.get(1)
        assert_frame_equal(frame, frames[namespace].filter(collection.is_in(chosen)))


def test_the_order_of_the_index_does_not_matter(frames: Frames, release: IdcRelease, tmp_path: Path) -> None:
    chosen = ["breast_mri_nact_pilot", "tcga_tgct"]  # with ages and dates that differ within a study
    rows = pl.scan_parquet(release.index).filter(pl.col("collection_id").is_in(chosen)).collect()
    shuffled = tmp_path / "idc_index.parquet"
    rows.sample(fraction=1, shuffle=True, seed=7).write_parquet(shuffled, row_group_size=1000)
    again = read_release(IdcRelease(None, None, shuffled, release.collections))
    for namespace, frame in read_release(release, chosen).items():
        assert_frame_equal(again[namespace], frame)


def test_no_collections_give_empty_frames_of_the_same_schema(frames: Frames, release: IdcRelease) -> None:
    for namespace, frame in read_release(release, []).items():
        assert frame.is_empty()
        assert frame.schema == frames[namespace].schema


@pytest.mark.parametrize(("wrong", "named"), [("rider_phantommri", "rider_phantom_mri"), ("4d_lungs", "4d_lung")])
def test_an_unknown_collection_is_refused_with_the_nearest_names(release: IdcRelease, wrong: str, named: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{wrong}.*Did you mean.*{named}"):
        read_release(release, ["4d_lung", wrong])


def test_a_bare_string_is_no_list_of_collections(release: IdcRelease) -> None:
    with pytest.raises(InvalidInputError, match=r"\['4d_lung'\]"):
        read_release(release, "4d_lung")


# ---- which release


def test_the_release_is_dated_by_its_own_metadata(release: IdcRelease, oracle: duckdb.DuckDBPyConnection) -> None:
    newest = oracle.sql("SELECT max(series_revised_idc_version) FROM idc").fetchall()
    metadata = pl.read_parquet(release.index.with_name("version_metadata_index.parquet")).sort("idc_version")
    assert newest == [(int(release.version or 0),)] == [(metadata["idc_version"][-1],)]
    assert release.released == datetime.fromisoformat(metadata["version_timestamp"][-1]).replace(tzinfo=UTC)


def test_finding_the_release_runs_no_code_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "idc_index_data", raising=False)
    find_release()
    assert "idc_index_data" not in sys.modules


def test_a_path_to_the_file_or_its_folder_finds_the_same(release: IdcRelease) -> None:
    assert find_release(release.index) == find_release(str(release.index.parent)) == release


def test_an_index_without_siblings_has_a_version_but_no_date(tmp_path: Path) -> None:
    index = write_index(tmp_path, series(1))
    assert find_release(index) == IdcRelease("7", None, index, None)
    datasources = read_release(find_release(index))["datasources"]
    assert datasources.columns == ["identifier", "parent_identifier", "license", "origin"]


@pytest.mark.parametrize(
    ("last", "day", "version", "released"),
    [
        (7, "2021-07-13", "7", datetime(2021, 7, 13, tzinfo=UTC)),
        (7, "summer", "7", None),
        (8, "2021-07-13", None, None),
        (6, "2021-07-13", None, None),
    ],
)
def test_metadata_that_contradicts_the_index_is_not_believed(
    tmp_path: Path, last: int, day: str, version: str | None, released: datetime | None
) -> None:
    index = write_index(tmp_path, series(1))
    known = pl.DataFrame({"idc_version": [last, 1], "version_timestamp": [day, "2020-06-01"]})
    known.write_parquet(tmp_path / "version_metadata_index.parquet")
    found = find_release(index)
    assert (found.version, found.released) == (version, released)


def test_a_package_that_is_not_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idc_index_data", None)
    with pytest.raises(NotFoundError, match=r"pip install 'vxdata\[idc\]'"):
        find_release()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no_index\.parquet"):
        find_release(tmp_path / "no_index.parquet")
    with pytest.raises(NotFoundError, match=r"idc_index\.parquet"):
        find_release(tmp_path)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "idc_index.parquet").write_text("collection_id,PatientID\n")
    with pytest.raises(InvalidInputError, match=r"idc_index\.parquet.*Parquet"):
        find_release(tmp_path)


def test_columns_that_a_file_lacks_are_named(tmp_path: Path, release: IdcRelease) -> None:
    with pytest.raises(InvalidInputError, match=r"SeriesInstanceUID.*StudyDate"):
        find_release(release.collections)
    index = write_index(tmp_path, series(1))
    with pytest.raises(InvalidInputError, match="lacks needed columns: collection_name, description, program_id"):
        read_release(IdcRelease(None, None, index, index))


# ---- values that the installed release does not have


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("1880-09-09", datetime(1880, 9, 9, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
        *((text, None) for text in ("2001-02-30", "20010203", "2001-2-3", "0000-01-01", "-001-01-01", "10000-01-01")),
        *((text, None) for text in (" 2001-02-03", "2001-02-03 ", "2001-02-03T04:05", "unknown", "", None)),
    ],
)
def test_a_malformed_date_is_null(tmp_path: Path, text: str | None, day: datetime | None) -> None:
    frames = read_rows(tmp_path, series(1, StudyDate=text, SeriesDate=text))
    assert frames["volumes"]["series_datetime"].to_list() == [day]
    assert frames["imaging_studies"]["study_datetime"].to_list() == [day]


@pytest.mark.parametrize(
    ("text", "age"),
    [("061Y", "061Y"), ("003D", "003D"), ("90", None), ("042y", None), ("N-A", None), ("061Y\n", None), ("٠٦١Y", None)],
)
def test_an_age_that_is_no_dicom_age_string_is_null(tmp_path: Path, text: str, age: str | None) -> None:
    frames = read_rows(tmp_path, series(1, PatientAge=text))
    assert frames["imaging_studies"]["patient_age"].to_list() == [age]


@pytest.mark.parametrize(
    ("text", "number"), [("007", 7), ("-3", -3), (" 7 ", 7), ("1.5", None), ("1e3", None), ("9" * 20, None)]
)
def test_a_series_number_that_is_no_integer_is_null(tmp_path: Path, text: str, number: int | None) -> None:
    assert read_rows(tmp_path, series(1, SeriesNumber=text))["volumes"]["series_number"].to_list() == [number]


def test_values_that_do_not_parse_are_counted_but_not_quoted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [series(1, PatientAge="90"), series(2, PatientAge="90", SeriesDate="soon"), series(3, StudyDate="")]
    with caplog.at_level(logging.WARNING):
        read_rows(tmp_path, *rows)
    assert [record.getMessage()[:28] for record in caplog.records] == [
        "2 values of PatientAge could",
        "1 values of SeriesDate could",
    ]
    assert "soon" not in caplog.text


@pytest.mark.parametrize(
    ("ages", "age"),
    [
        (["060Y", "061Y", "061Y"], "061Y"),
        (["061Y", "060Y"], "060Y"),
        ([None, None, "061Y"], "061Y"),
        (["90", "90", "061Y"], "061Y"),
        ([None, ""], None),
    ],
)
def test_the_most_frequent_age_wins_and_a_tie_goes_to_the_smallest(
    tmp_path: Path, ages: list[str | None], age: str | None
) -> None:
    rows = [series(n, PatientAge=text) for n, text in enumerate(ages)]
    assert read_rows(tmp_path, *rows)["imaging_studies"]["patient_age"].to_list() == [age]


@pytest.mark.parametrize("second", ["CC BY-NC 4.0", None])
def test_licenses_that_differ_leave_null_above_the_volume(tmp_path: Path, second: str | None) -> None:
    frames = read_rows(tmp_path, series(1), series(2, license_short_name=second), series(3, PatientID="P2"))
    assert frames["volumes"]["license"].to_list() == ["CC BY 4.0", second, "CC BY 4.0"]
    assert frames["imaging_studies"]["license"].to_list() == [None, "CC BY 4.0"]
    assert frames["patients"]["license"].to_list() == [None, "CC BY 4.0"]
    assert frames["datasources"]["license"].to_list() == [None]


def test_an_empty_string_is_null(tmp_path: Path) -> None:
    volumes = read_rows(tmp_path, series(1, SeriesDescription="", Manufacturer=""))["volumes"]
    assert volumes.select("series_description", "manufacturer").row(0) == (None, None)


def test_identifiers_sort_as_texts_where_one_code_begins_another(tmp_path: Path) -> None:
    frames = read_rows(tmp_path, *(series(n, PatientID=code) for n, code in enumerate(["P1", "P1-a", "P1 b", "P10"])))
    for frame in frames.values():
        assert frame["identifier"].to_list() == sorted(frame["identifier"].to_list())
    assert frames["patients"]["sex"].to_list() == ["M"] * 4


@pytest.mark.parametrize("code", ["a/b", " a", "a ", "", ".", "..", "a\tb", "a\u00a0b", None])
def test_a_code_that_no_identifier_can_hold_is_refused(tmp_path: Path, code: str | None) -> None:
    with pytest.raises(InvalidInputError, match="PatientID: 1 values") as caught:
        read_rows(tmp_path, series(1), series(2, PatientID=code), series(3, PatientID=code))
    assert repr(str(code)) in str(caught.value)


def test_only_the_first_faulty_codes_are_named_with_the_count(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"StudyInstanceUID: 7 values .*: '0/', '1/', '2/', '3/', '4/' and 2 more"
    ):
        read_rows(tmp_path, *(series(n, StudyInstanceUID=f"{n}/") for n in range(7)))


def test_codes_beyond_ascii_survive(tmp_path: Path) -> None:
    codes = ["Ämne 1", "患者#1", "P(1)", "-1"]
    patients = read_rows(tmp_path, *(series(n, PatientID=code) for n, code in enumerate(codes)))["patients"]
    assert patients["identifier"].to_list() == sorted(f"patient/lab/{code}" for code in codes)


def test_an_identifier_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="512 characters"):
        read_rows(tmp_path, series(1, PatientID="P" * 500))


def test_a_series_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"occur twice: 'volume/lab/P1/1\.2/1\.2\.1'"):
        read_rows(tmp_path, series(1), series(2), series(1, Modality="CT"))
