"""Ingest of the whole IDC index against Polars' read and deltalake's write of the same final frames."""

import shutil
import statistics
from pathlib import Path

from benchmarks.measure import Row, Run, in_process

OURS = """
import json, sys, warnings, logging
logging.disable(logging.WARNING)
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest
from vxdata.sources.idc import find_release, read_release
client = Client(sys.argv[1])
release = find_release()
reports = ingest(client, read_release(release), missing="delete", valid_from=release.released)
print(json.dumps({name: [r.created, r.updated, r.unchanged, r.deleted, r.commit_id] for name, r in reports.items()}))
"""

FINAL_FRAMES = """
import sys
from vxdata.sdk import Client
client = Client(sys.argv[1])
for name in ("datasources", "patients", "imaging_studies", "volumes"):
    getattr(client, name).query().collect().write_parquet(f"{sys.argv[2]}/{name}.parquet")
"""

PEER = """
import sys
import polars as pl
from deltalake import write_deltalake
for name in ("datasources", "patients", "imaging_studies", "volumes"):
    frame = pl.read_parquet(f"{sys.argv[1]}/{name}.parquet")
    write_deltalake(f"{sys.argv[2]}/{name}", frame, partition_by=["datasource_id"])
"""


def measure(work: Path, lake: Path, runs: int = 3) -> list[Row]:
    """Ingest, ingest again, and the peer's write, in turn; the lake of the last round stays for other benchmarks."""
    frames, copy = work / "frames", work / "deltalake"
    first: list[Run] = []
    again: list[Run] = []
    peer: list[Run] = []
    for _ in range(runs):
        shutil.rmtree(lake, ignore_errors=True)
        first.append(in_process(OURS, str(lake)))
        again.append(in_process(OURS, str(lake)))
        assert all(report[-1] is None for report in again[-1].result.values()), "the second ingest wrote something"
        if not frames.exists():
            frames.mkdir()
            in_process(FINAL_FRAMES, str(lake), str(frames))
        shutil.rmtree(copy, ignore_errors=True)
        peer.append(in_process(PEER, str(frames), str(copy)))
    shutil.rmtree(copy, ignore_errors=True)
    return [
        _ratio("ingest of the whole IDC index / read_parquet + write_deltalake", first, peer, 3.0),
        _ratio("the same release again / the first ingest", again, first, 1.0),
        _peak("peak memory of the ingest, GiB / 4 GiB", first),
        _peak("peak memory of the ingest again, GiB / 4 GiB", again),
    ]


def _ratio(question: str, ours: list[Run], peer: list[Run], target: float) -> Row:
    ratio = statistics.median(a.wall / b.wall for a, b in zip(ours, peer, strict=True))
    return Row(
        question, statistics.median(r.wall for r in ours), statistics.median(r.wall for r in peer), ratio, target, "s"
    )


def _peak(question: str, runs: list[Run]) -> Row:
    peak = max(run.peak_gib for run in runs)
    return Row(question, peak, 4.0, peak / 4.0, 1.0, "GiB")
