"""Two whole releases of the IDC index, loaded one after the other, against their source files, row by row."""

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise

import duckdb
import polars as pl
import pytest

from tests.test_idc_source import VOLUMES_SQL
from vxdata.sdk import Client
from vxdata.sdk.ingest import ingest
from vxdata.sources.idc import IdcRelease, find_release, read_release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("idc")]
OLDER = "idc-index-data==24.2.2"
NAMESPACES = ("datasources", "patients", "imaging_studies", "volumes")
TICK = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[IdcRelease]:
    """The older release, from the package registry into a folder of its own, and the installed one."""
    folder = tmp_path_factory.mktemp("older")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), OLDER]
    subprocess.run(install, check=True, timeout=600)
    return [find_release(folder / "idc_index_data"), find_release()]


@pytest.fixture(scope="module")
def client(releases: list[IdcRelease], tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = Client(tmp_path_factory.mktemp("idc") / "lake")
    for release in releases:
        ingest(client, read_release(release), missing="delete", valid_from=release.released)
    return client


def instants(releases: list[IdcRelease]) -> list[tuple[IdcRelease, datetime]]:
    """Each release at its own date, and the older one just before the next."""
    older, newer = (r.released for r in releases)
    assert older is not None
    assert newer is not None
    return [(releases[0], older), (releases[0], newer - TICK), (releases[1], newer)]


def differences(found: pl.DataFrame, expected: pl.DataFrame) -> int:
    columns = expected.columns
    mine, theirs = found.select(columns).sort("identifier"), expected.sort("identifier")
    assert mine.height == theirs.height
    unequal = pl.any_horizontal(pl.col(name).ne_missing(theirs[name]) for name in columns)
    return mine.filter(unequal).height


def test_every_release_is_in_the_lake_row_by_row_at_its_own_time(client: Client, releases: list[IdcRelease]) -> None:
    for release, instant in instants(releases):
        frames = read_release(release)
        for name in NAMESPACES:
            found = getattr(client.as_of(instant), name).query().collect()
            assert differences(found, frames[name]) == 0, (name, instant)


def test_the_volumes_are_those_of_the_source_file_read_by_another_engine(
    client: Client, releases: list[IdcRelease]
) -> None:
    for release, instant in instants(releases):
        sql = VOLUMES_SQL.replace("FROM idc", f"FROM read_parquet('{release.index}')")
        source = pl.DataFrame(duckdb.sql(sql).to_arrow_table())
        found = client.as_of(instant).volumes.query().collect()
        times = [name for name, dtype in source.schema.items() if isinstance(dtype, pl.Datetime)]
        utc = source.with_columns(pl.col(times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
        assert differences(found, utc) == 0, instant


def test_no_live_resource_ever_lacks_a_live_parent(client: Client, releases: list[IdcRelease]) -> None:
    for _, instant in instants(releases):
        past = client.as_of(instant)
        for parents, children in pairwise(NAMESPACES):
            live = getattr(past, parents).query().select("identifier").lazy()
            named = getattr(past, children).query().select("parent_identifier").lazy()
            lost = named.join(live, left_on="parent_identifier", right_on="identifier", how="anti").collect()
            assert lost.is_empty(), (children, instant)


def test_loading_a_release_again_writes_nothing(client: Client, releases: list[IdcRelease]) -> None:
    before = client.snapshot().token
    reports = ingest(client, read_release(releases[1]), missing="delete", valid_from=releases[1].released)
    assert [report.commit_id for report in reports.values()] == [None] * 4
    assert client.snapshot().token == before


def test_what_was_withdrawn_is_closed_and_still_in_the_history(client: Client, releases: list[IdcRelease]) -> None:
    older, newer = (read_release(release)["volumes"] for release in releases)
    withdrawn = older.join(newer, on="identifier", how="anti")["identifier"]
    assert len(withdrawn) == 291
    past = client.volumes.history(withdrawn[0])
    assert [version.valid_to for version in past] == [releases[1].released]
