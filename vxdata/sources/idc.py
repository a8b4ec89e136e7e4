"""The public index of NCI Imaging Data Commons (IDC) as resource frames: datasources, patients, studies and volumes.

The PyPI package `idc-index-data` (``pip install 'vxdata[idc]'``) carries one row per DICOM series. Only its Parquet
files are read; none of its code runs and nothing is fetched. How its rows become resources:

- **Identifiers** are whole paths, collection/patient/study/series, because one PatientID occurs in several collections
  and one StudyInstanceUID under several patients. Segments are stored as given.
- **An empty string** is null: DICOM writes an unknown value with length zero, and releases differ in which they store.
- **A value of a patient or a study** is the one that most of its series have: nulls do not count, ties go to the
  smallest (of dates the earliest). The series of one study do disagree, above all on the dates of derived ones.
- **A license** of a study, patient or datasource is that of its series where all agree, else null.
- **Dates** are de-identified calendar days; they become 00:00 UTC of that day.
- **What does not parse** (dates, DICOM age strings, series numbers) is null; a warning counts the values per column.
- **What the index does not say** has no column (birth year, volume type, plane, slice thickness), so that an upsert
  leaves alone what a team has filled in. A segmentation has the modality ``SEG``.

Source: https://github.com/ImagingDataCommons/idc-index-data; DICOM PS3.5, section 6.2 (AS, DA, IS).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from vxdata.errors import InvalidInputError, NotFoundError, did_you_mean, name_some
from vxdata.schemas.identifiers import MAX_LENGTH, identifier_fault

ORIGIN = "NCI Imaging Data Commons"
"""The `origin` of the datasources that come from here."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdcRelease:
    """One release of the IDC index on this machine.

    Attributes:
        version: number of the IDC release, such as ``25``; None if the files do not say it or contradict each other.
        released: 00:00 UTC of the day of the release; None if the files do not say it or contradict each other.
        index: the file of all series, ``idc_index.parquet``.
        collections: the file of the collections, ``collections_index.parquet``; None if it is not there.
    """

    version: str | None
    released: datetime | None
    index: Path
    collections: Path | None


def find_release(index: str | Path | None = None) -> IdcRelease:
    """Find the IDC index: the installed one, or that of a path.

    The version is the newest one that revised a series of the index. Its date comes from
    ``version_metadata_index.parquet`` beside the index; if that ends with another version, then neither is known.

    Args:
        index: an ``idc_index.parquet`` or the folder that holds one; None for the installed package idc-index-data.

    Returns:
        The release, with the sibling files that are there.

    Raises:
        NotFoundError: the package is not installed, or there is no such file.
        InvalidInputError: a file is no Parquet file, or lacks columns.
    """
    path = _installed_folder() if index is None else Path(index).expanduser()
    path = path / "idc_index.parquet" if path.is_dir() else path
    version, released = _version_and_date(_newest_revision(path), path.with_name("version_metadata_index.parquet"))
    collections = path.with_name("collections_index.parquet")
    return IdcRelease(version, released, path, collections if collections.is_file() else None)


def read_release(release: IdcRelease, collections: Sequence[str] | None = None) -> dict[str, pl.DataFrame]:
    """Read a release as resource frames.

    Args:
        release: as `find_release` returns it.
        collections: the collections to read, by id, such as ``["4d_lung"]``; None for all of them.

    Returns:
        Frames by namespace, root first: datasources, patients, imaging_studies, volumes. Each has the columns
        identifier, parent_identifier and license, then the fields of its payload model that the index knows, in the
        model's order; datetimes are UTC, microseconds. One row per identifier, sorted by it. Without a collections
        file the datasources have no payload columns.

    Raises:
        NotFoundError: a file is not there.
        InvalidInputError: a collection is unknown, a file is no Parquet file or lacks columns, a value cannot be a
            segment of an identifier, or a series occurs twice.
    """
    series = _name_resources(_read_series(release.index, collections))
    return {
        "datasources": _datasources(series, release.collections),
        "patients": _fold(series, "patient", "datasource", ["sex"]),
        "imaging_studies": _imaging_studies(series),
        "volumes": series.select(*_VOLUME_COLUMNS),
    }


# ---- files


def _installed_folder() -> Path:
    """Return the folder of the installed package; finding its spec does not run it."""
    spec = find_spec("idc_index_data")
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError("The package idc-index-data is not installed. Hint: pip install 'vxdata[idc]'.")
    return Path(spec.submodule_search_locations[0])


def _scan(path: Path, needed: Iterable[str]) -> pl.LazyFrame:
    """Open a file of the index, and make sure that it has the columns."""
    if not path.is_file():
        raise NotFoundError(f"There is no file {str(path)!r}. Hint: pip install 'vxdata[idc]' brings the IDC index.")
    frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    with _parquet_errors(path):
        present = frame.collect_schema().names()
    if missing := [name for name in needed if name not in present]:
        raise InvalidInputError(f"{str(path)!r} lacks needed columns: {', '.join(missing)}.")
    return frame


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInputError(f"{str(path)!r} cannot be read as a Parquet file of the IDC index: {error}") from error


def _newest_revision(index: Path) -> int | None:
    revisions = _scan(index, [*_NEEDED, "series_revised_idc_version"]).select("series_revised_idc_version")
    with _parquet_errors(index):
        newest = revisions.max().collect().item()
    return None if newest is None else int(newest)


def _version_and_date(newest: int | None, metadata: Path) -> tuple[str | None, datetime | None]:
    if newest is None or not metadata.is_file():
        return None if newest is None else str(newest), None
    day = pl.col("version_timestamp").cast(pl.String).str.head(10).str.to_date("%Y-%m-%d", strict=False)
    known = _scan(metadata, ["idc_version", "version_timestamp"]).select("idc_version", day)
    with _parquet_errors(metadata):
        versions = dict(known.collect().iter_rows())
    if max(versions, default=None) != newest:
        _log.warning("%s does not end with version %d, which revised series of the index beside it", metadata, newest)
        return None, None
    return str(newest), versions[newest] and datetime.combine(versions[newest], time(), UTC)


# ---- rows of the index, one per series

_SEGMENTS = ("collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID")
_TEXTS = {
    "series_description": "SeriesDescription",
    "modality": "Modality",
    "body_part_examined": "BodyPartExamined",
    "manufacturer": "Manufacturer",
    "manufacturer_model_name": "ManufacturerModelName",
    "sop_class_uid": "SOPClassUID",
    "transfer_syntax_uid": "TransferSyntaxUID",
    "photometric_interpretation": "PhotometricInterpretation",
    "pixel_representation": "PixelRepresentation",
    "source_doi": "source_DOI",
    "analysis_result": "analysis_result_id",
    "license": "license_short_name",
    "sex": "PatientSex",
    "study_description": "StudyDescription",
}


def _filled(column: str) -> pl.Expr:
    """A text column with its empty strings as nulls."""
    text = pl.col(column).cast(pl.String)
    return pl.when(text != "").then(text)


def _day(column: str) -> pl.Expr:
    day = pl.col(column).str.to_date("%Y-%m-%d", strict=False)
    is_written_in_full = pl.col(column).str.len_bytes() == len("YYYY-MM-DD")
    is_a_year_of_ours = day.is_between(date.min, date.max)  # `to_date` also takes year 0 and negative ones
    return pl.when(is_written_in_full & is_a_year_of_ours).then(day.cast(pl.Datetime("us", "UTC")))


def _age(column: str) -> pl.Expr:
    return pl.when(pl.col(column).str.contains("^[0-9]{3}[DWMY]$")).then(pl.col(column))


def _integer(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars(" ").cast(pl.Int64, strict=False)


_PARSED: dict[str, tuple[str, Callable[[str], pl.Expr]]] = {
    "patient_age": ("PatientAge", _age),
    "study_datetime": ("StudyDate", _day),
    "series_datetime": ("SeriesDate", _day),
    "series_number": ("SeriesNumber", _integer),
}
_NEEDED = (
    *_SEGMENTS,
    *_TEXTS.values(),
    *(source for source, _ in _PARSED.values()),
    *("series_aws_url", "instanceCount", "series_size_MB"),
)


def _read_series(index: Path, collections: Sequence[str] | None) -> pl.DataFrame:
    """Read the segments under the names of the index, the rest as the payload's fields."""
    rows = _scan(index, _NEEDED)
    if collections is not None:
        _refuse_unknown(collections, rows, index)
        rows = rows.filter(pl.col("collection_id").is_in(list(collections)))
    columns = [
        pl.col(*_SEGMENTS).cast(pl.String),
        _filled("series_aws_url").str.strip_suffix("*").alias("path_dicom"),
        pl.col("instanceCount").cast(pl.Int64).alias("number_of_series_related_instances"),
        pl.col("series_size_MB").cast(pl.Float64).alias("size_mb"),
    ]
    texts = [_filled(source).alias(field) for field, source in _TEXTS.items()]
    unparsed = [_filled(source).alias(field) for field, (source, _) in _PARSED.items()]
    with _parquet_errors(index):  # in memory, since streaming takes 0.3 GiB more at its peak
        return _parse(rows.select(*columns, *texts, *unparsed).collect(engine="in-memory"))


def _refuse_unknown(collections: Sequence[str], rows: pl.LazyFrame, index: Path) -> None:
    if isinstance(collections, str):
        raise InvalidInputError(f"collections={collections!r}: a list is expected, such as [{collections!r}].")
    with _parquet_errors(index):
        known = rows.select(pl.col("collection_id").unique().sort()).collect().to_series().to_list()
    if unknown := [name for name in collections if name not in known]:
        raise InvalidInputError(f"{str(index)!r} has no collection {unknown[0]!r}.{did_you_mean(unknown[0], known)}")


def _parse(rows: pl.DataFrame) -> pl.DataFrame:
    """Parse the texts that are no texts; count what could not be parsed."""
    parsed = rows.with_columns(parse(field).alias(field) for field, (_, parse) in _PARSED.items())
    for field, (source, _) in _PARSED.items():
        if lost := parsed[field].null_count() - rows[field].null_count():
            _log.warning("%d values of %s could not be parsed; they are null in %s", lost, source, field)
    return parsed


# ---- identifiers

_PLAIN = "^[0-9A-Za-z_][!-.0-~]*$"
"""Segments beyond doubt: visible ASCII without a slash. The few others are judged one by one."""


def _name_resources(series: pl.DataFrame) -> pl.DataFrame:
    """Add the identifiers as columns named like the types, and sort by the volume's.

    Those above the volume are made once per study and joined, so that all its rows share one text in memory.
    """
    for segment in _SEGMENTS:
        _refuse_segments(series[segment])
    above = list(_SEGMENTS[:-1])
    paths = {
        kind: pl.concat_str(pl.lit(kind), *_SEGMENTS[:depth], separator="/")
        for depth, kind in enumerate(("datasource", "patient", "imagingstudy"), start=1)
    }
    studies = series.select(above).unique().with_columns(**paths)
    _refuse_long(studies["imagingstudy"])
    joined = series.select(above).join(studies, on=above, how="left", maintain_order="left").select(*paths)
    volume = pl.concat_str(pl.lit("volume"), *_SEGMENTS, separator="/").alias("volume")
    named = series.with_columns(volume, *joined).drop(above)
    _refuse_long(named["volume"])
    named = named if named["volume"].is_sorted() else named.sort("volume")
    _refuse_repeats(named["volume"])
    return named


def _refuse_segments(values: pl.Series) -> None:
    doubtful = values.filter(~values.str.contains(_PLAIN).fill_null(False)).unique().to_list()
    if faulty := [value for value in doubtful if value is None or "/" in value or identifier_fault(f"x/{value}")]:
        shown = name_some(sorted(map(str, faulty)), 5)
        raise InvalidInputError(f"{values.name}: {len(faulty)} values cannot be a segment of an identifier: {shown}.")


def _refuse_long(identifiers: pl.Series) -> None:
    if len(long := identifiers.filter(identifiers.str.len_chars() > MAX_LENGTH)):
        raise InvalidInputError(f"{len(long)} identifiers exceed {MAX_LENGTH} characters: {name_some(long, 5)}.")


def _refuse_repeats(identifiers: pl.Series) -> None:
    """Refuse identifiers that occur twice; they come sorted."""
    if len(repeats := identifiers.filter(identifiers == identifiers.shift())):
        raise InvalidInputError(f"{len(repeats)} identifiers occur twice: {name_some(repeats, 5)}.")


# ---- frames

_COLLECTION_TEXTS = {
    "name": "collection_name",
    "description": "description",
    "program": "program_id",
    "species": "species",
    "cancer_types": "cancer_types",
    "tumor_locations": "tumor_locations",
}
_VOLUME_COLUMNS = (
    pl.col("volume").alias("identifier"),
    pl.col("imagingstudy").alias("parent_identifier"),
    "license",
    "series_description",
    "modality",
    "path_dicom",
    pl.col("SeriesInstanceUID").alias("series_instance_uid"),
    "series_number",
    "series_datetime",
    "body_part_examined",
    "manufacturer",
    "manufacturer_model_name",
    "sop_class_uid",
    "transfer_syntax_uid",
    "photometric_interpretation",
    "pixel_representation",
    "number_of_series_related_instances",
    "size_mb",
    "source_doi",
    "analysis_result",
)


def _datasources(series: pl.DataFrame, collections: Path | None) -> pl.DataFrame:
    frame = _fold(series, "datasource", None, [])
    if collections is not None:
        frame = frame.join(_read_collections(collections), on="identifier", how="left", maintain_order="left")
    return frame.with_columns(pl.lit(ORIGIN).alias("origin"))


def _read_collections(path: Path) -> pl.DataFrame:
    identifier = pl.concat_str(pl.lit("datasource"), "collection_id", separator="/").alias("identifier")
    texts = [_filled(source).alias(field) for field, source in _COLLECTION_TEXTS.items()]
    rows = _scan(path, ["collection_id", *_COLLECTION_TEXTS.values()]).select(identifier, *texts)
    with _parquet_errors(path):
        frame = rows.sort("identifier").collect()
    _refuse_repeats(frame["identifier"])
    return frame


def _imaging_studies(series: pl.DataFrame) -> pl.DataFrame:
    fields = ["study_datetime", "study_description", "patient_age"]
    uid = pl.col("identifier").str.split("/").list.last().alias("study_instance_uid")
    frame = _fold(series, "imagingstudy", "patient", fields)
    return frame.select("identifier", "parent_identifier", "license", uid, *fields)


def _fold(series: pl.DataFrame, kind: str, parent: str | None, fields: Sequence[str]) -> pl.DataFrame:
    """Fold the series into one row per resource of a kind; the series of a resource stand together."""
    rows = series.lazy().with_columns(pl.col(kind).rle_id().alias("run"))
    frame = rows.group_by("run").agg(
        pl.col(kind).first().alias("identifier"),
        (pl.lit(None, pl.String) if parent is None else pl.col(parent).first()).alias("parent_identifier"),
        pl.when(pl.col("license").n_unique() == 1).then(pl.col("license").first()),
    )
    for field in fields:
        frame = frame.join(_most_frequent(rows, field), on="run", how="left")
    return frame.drop("run").sort("identifier").collect()


def _most_frequent(rows: pl.LazyFrame, field: str) -> pl.LazyFrame:
    """Return the value that most rows of a run have; nulls do not count, ties go to the smallest."""
    counts = rows.drop_nulls(field).group_by("run", field).len()
    first = counts.sort("run", "len", field, descending=[False, True, False]).unique("run", keep="first")
    return first.drop("len")
