"""Filters over a million volumes against the bare Polars scan, and look-ups against LanceDB with a BTREE index."""

import random
import shutil
from pathlib import Path

import polars as pl

from benchmarks.measure import Row, paired
from vxdata.catalog.table import table_spec
from vxdata.schemas.columns import to_arrow_schema
from vxdata.schemas.payload import VolumePayload
from vxdata.sdk import Client, F

FILTERS = {
    "modality == 'MR'": (F.modality == "MR", pl.col("modality") == "MR"),
    "one datasource": (F.datasource_id == "datasource/prostatex", pl.col("datasource_id") == "datasource/prostatex"),
    "manufacturer == 'SIEMENS' and modality == 'MR'": (
        (F.manufacturer == "SIEMENS") & (F.modality == "MR"),
        (pl.col("manufacturer") == "SIEMENS") & (pl.col("modality") == "MR"),
    ),
    "series_description contains 't2'": (
        F.series_description.contains("t2"),
        pl.col("series_description").str.contains("t2", literal=True),
    ),
}
TAIL_COMMITS = 100


def filters(lake: Path, label: str, target: float) -> list[Row]:
    """Time current-state filters on a warm client against `pl.scan_delta` with the same predicate."""
    client, table = Client(lake), str(lake / "volumes")
    visible = list(table_spec(VolumePayload).visible)
    from deltalake import DeltaTable

    rows = []
    for words, (ours, theirs) in FILTERS.items():
        handle = DeltaTable(table)
        bare = pl.scan_delta(handle).filter(pl.col("valid_to").is_null() & theirs).select(visible)
        query = client.volumes.query().filter(ours)
        rows.append(paired(f"filter, {label}: {words} / bare scan_delta", query.collect, bare.collect, target))
    return rows


def with_tail(lake: Path, work: Path) -> list[Row]:
    """The same on a copy of the lake with a tail of 100 commits, each an update of one volume."""
    copy = work / "tailed"
    shutil.copytree(lake, copy)
    client = Client(copy)
    names = client.volumes.query().select("identifier").collect()["identifier"]
    for n, identifier in enumerate(names.sample(TAIL_COMMITS, seed=1)):
        client.volumes.update(identifier, {"volume_type": f"T{n}"})
    return filters(copy, f"{TAIL_COMMITS} commits in the tail", 1.3)


def lookups(lake: Path, work: Path) -> list[Row]:
    """Time `retrieve` of one volume against LanceDB's look-up by a BTREE index over the same rows."""
    import lancedb

    client = Client(lake)
    frame = client.volumes.query().collect()
    plain = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(to_arrow_schema(frame.schema))
    table = lancedb.connect(str(work / "lance")).create_table("volumes", plain)
    from lancedb.index import BTree

    table.create_index("identifier", config=BTree())
    picked = random.Random(1).choices(frame["identifier"].to_list(), k=1000)
    ours, theirs = iter(picked), iter(picked)

    def lance() -> None:
        found = table.search().where(f"identifier = '{next(theirs)}'").limit(1).to_list()
        assert len(found) == 1

    return [
        paired(
            "retrieve one of a million volumes / LanceDB, BTREE",
            lambda: client.volumes.retrieve(next(ours)),
            lance,
            3.0,
            200,
        )
    ]
