"""A lake of generated volumes: the same rows each time, written in chunks of one datasource by `upsert`."""

import time
from pathlib import Path

import polars as pl

from vxdata.sdk import Client

ROWS, DATASOURCES, CHUNK_ROWS = 10_000_000, 20, 500_000
VOLUMES_OF_A_STUDY, STUDIES_OF_A_PATIENT = 50, 4
TYPES = ("T1", "T2", "ADC", "DWI", "SEG", "T2 FLAIR", "DCE", "CT", "PET", "localizer")
PLANES = ("transversal", "sagittal", "coronal")
MAKERS = ("SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "TOSHIBA", "Canon")


def make_lake(lake: Path, rows: int = ROWS) -> float:
    """Write the lake; return the seconds that the upserts of the volumes took."""
    client, seconds = Client(lake), 0.0
    sources = [f"g{n:02}" for n in range(DATASOURCES)]
    client.datasources.upsert(pl.DataFrame({"identifier": [f"datasource/{name}" for name in sources]}))
    for name in sources:
        patients, studies, volumes = chunk(name, rows // DATASOURCES)
        client.patients.upsert(patients)
        client.imaging_studies.upsert(studies)
        start = time.perf_counter()
        client.volumes.upsert(volumes)
        seconds += time.perf_counter() - start
    return seconds


def make_partition(lake: Path | str, rows: int, source: str = "g00") -> None:
    """Write a lake of one datasource, so that one partition holds all volumes."""
    client = Client(lake)
    client.datasources.upsert(pl.DataFrame({"identifier": [f"datasource/{source}"]}))
    for start in range(0, rows, CHUNK_ROWS):
        patients, studies, volumes = chunk(source, min(CHUNK_ROWS, rows - start), start)
        client.patients.upsert(patients)
        client.imaging_studies.upsert(studies)
        client.volumes.upsert(volumes)


def chunk(source: str, rows: int, start: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the patients, studies and volumes of one datasource, or of a part of it that begins at a patient."""
    numbers = pl.select(n=pl.int_range(start, start + rows, dtype=pl.Int64))
    study = pl.col("n") // VOLUMES_OF_A_STUDY
    names = numbers.with_columns(
        study=_name(source, study), patient=_name(source, study // STUDIES_OF_A_PATIENT), volume=_name(source, "n")
    )
    studies = names.unique("study", keep="first", maintain_order=True)
    patients = studies.unique("patient", keep="first", maintain_order=True)
    return (
        patients.select(
            identifier="patient/" + pl.col("patient"),
            parent_identifier=pl.lit(f"datasource/{source}"),
            birthyear=1930 + _scattered(70),
        ),
        studies.select(
            identifier="imagingstudy/" + pl.col("study"),
            parent_identifier="patient/" + pl.col("patient"),
            study_description=_one_of(("PROSTATE", "CHEST", "HEAD", "ABDOMEN", "KNEE", "SPINE", "BREAST", "HEART")),
        ),
        names.select(
            identifier="volume/" + pl.col("volume"),
            parent_identifier="imagingstudy/" + pl.col("study"),
            volume_type=_one_of(TYPES),
            image_plane=_one_of(PLANES, 3),
            manufacturer=_one_of(MAKERS, 5),
            modality=_one_of(("MR", "MR", "CT", "PT"), 7),
            slice_thickness=_scattered(60, 11) / 10,
            series_number=_scattered(1000, 13),
            series_description=_one_of(TYPES, 17) + " " + _one_of(PLANES, 19) + " " + _scattered(500).cast(pl.String),
        ),
    )


def _name(source: str, number: pl.Expr | str) -> pl.Expr:
    number = pl.col(number) if isinstance(number, str) else number
    return pl.lit(f"{source}/") + number.cast(pl.String).str.zfill(8)


def _scattered(count: int, salt: int = 1) -> pl.Expr:
    """Return numbers below `count`, spread over the rows by a multiplicative hash."""
    return ((pl.col("n") * 2_654_435_761 * salt) % 4_294_967_291) % count


def _one_of(words: tuple[str, ...], salt: int = 1) -> pl.Expr:
    return pl.lit(pl.Series([list(words)])).list.get(_scattered(len(words), salt), null_on_oob=False)
