"""Loading a million-row CSV, NDJSON and Parquet file against Polars' bare read plus the SDK's upsert of the frame."""

import shutil
import statistics
from pathlib import Path

from benchmarks.measure import Row, Run, in_process

ROWS, STUDIES, LIMIT = 1_000_000, 1_000, 1.5

MAKE = """
import sys
import polars as pl
rows, studies, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
n = pl.int_range(rows)
frame = pl.select(
    identifier=pl.format("volume/p{}/{}", n % studies, n),
    parent_identifier=pl.format("imagingstudy/p{}", n % studies),
    modality=pl.lit("MR"),
    slice_thickness=n / 7,
    series_description=pl.format("t2 tse, tra {}", n % 50),
    series_number=n,
    acquisition_datetime=pl.lit("2024-01-02T03:04:05Z"),
)
frame.write_csv(f"{folder}/volumes.csv")
frame.write_ndjson(f"{folder}/volumes.ndjson")
instants = pl.col("acquisition_datetime").str.to_datetime(time_unit="us", time_zone="UTC")
frame.with_columns(instants).write_parquet(f"{folder}/volumes.parquet")
"""

LAKE = """
import sys
import polars as pl
from vxdata.sdk import Client
client, studies = Client(sys.argv[1]), int(sys.argv[2])
n = pl.int_range(studies)
client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/d"]}))
client.patients.upsert(pl.select(identifier=pl.format("patient/p{}", n), parent_identifier=pl.lit("datasource/d")))
parents = pl.format("patient/p{}", n)
client.imaging_studies.upsert(pl.select(identifier=pl.format("imagingstudy/p{}", n), parent_identifier=parents))
"""

OURS = """
import json, sys
from vxdata.sdk import Client
from vxdata.sdk.files import ingest_files
report = ingest_files(Client(sys.argv[1]), [sys.argv[2]])
print(json.dumps(report.reports["volumes"].created))
"""

PEER = """
import json, sys
import polars as pl
from vxdata.sdk import Client
read = {"csv": pl.read_csv, "ndjson": pl.read_ndjson, "parquet": pl.read_parquet}[sys.argv[2].rpartition(".")[2]]
frame = read(sys.argv[2])
if frame["acquisition_datetime"].dtype == pl.String:
    instants = pl.col("acquisition_datetime").str.to_datetime(time_unit="us", time_zone="UTC")
    frame = frame.with_columns(instants)
print(json.dumps(Client(sys.argv[1]).volumes.upsert(frame).created))
"""


def measure(work: Path, runs: int = 3) -> list[Row]:
    """Load each file, and read and upsert it, in turn; each time into a fresh copy of a lake of parents."""
    folder, parents = work / "files", work / "parents"
    folder.mkdir()
    in_process(MAKE, str(ROWS), str(STUDIES), str(folder))
    in_process(LAKE, str(parents), str(STUDIES))
    rows = []
    for form in ("csv", "ndjson", "parquet"):
        file = str(folder / f"volumes.{form}")
        pairs = [(_load(OURS, parents, file, work), _load(PEER, parents, file, work)) for _ in range(runs)]
        rows += _rows(form, pairs)
    return rows


def _load(code: str, parents: Path, file: str, work: Path) -> Run:
    lake = work / "files-lake"
    shutil.copytree(parents, lake)
    run = in_process(code, str(lake), file)
    assert run.result == ROWS, f"{run.result} rows were created"
    shutil.rmtree(lake)
    return run


def _rows(form: str, pairs: list[tuple[Run, Run]]) -> list[Row]:
    """The ratio of wall clocks, which is the promise, and that of processor time, which other work disturbs less."""
    wall = [(ours.wall, peer.wall) for ours, peer in pairs]
    cpu = [(ours.cpu, peer.cpu) for ours, peer in pairs]
    words = f"ingest of a million-row {form} file / bare read + upsert"
    return [_row(words, wall, LIMIT), _row(f"{words}, processor time", cpu, None)]


def _row(words: str, pairs: list[tuple[float, float]], limit: float | None) -> Row:
    ours, peer = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return Row(words, statistics.median(ours), statistics.median(peer), ratio, limit, "s")
