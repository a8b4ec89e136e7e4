"""What single operations cost on S3, in requests and bytes; one more request makes a test fail."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pytest

from tests.support.proxy import Proxy
from tests.support.servers import Server, make_bucket
from vxdata.sdk import Client, F

ROWS = 60_000
KIB = 1024


@pytest.fixture(scope="module")
def proxy(ministack_server: Server) -> Iterator[Proxy]:
    with Proxy(ministack_server.endpoint_url) as proxy:
        make_bucket(ministack_server.endpoint_url, "requests")
        yield proxy


@pytest.fixture(scope="module")
def names() -> list[str]:
    return [f"volume/DA{n // 20:05d}/study-{n % 20 // 4}/1.2.840.113654.{n * 7919}" for n in range(ROWS)]


@pytest.fixture(scope="module")
def loaded(proxy: Proxy, names: list[str]) -> dict[str, str]:
    """A lake with one large file of volumes; returns the storage options of its clients."""
    options = {
        "endpoint_url": proxy.endpoint_url,
        "access_key_id": "k",
        "secret_access_key": "s",
        "region": "us-east-1",
    }
    client = Client("s3://requests/lake", storage_options=options)
    client.datasources.upsert(pl.DataFrame({"identifier": ["datasource/a"]}))
    client.patients.upsert(pl.DataFrame({"identifier": ["patient/a"], "parent_identifier": ["datasource/a"]}))
    client.imaging_studies.upsert(pl.DataFrame({"identifier": ["imagingstudy/a"], "parent_identifier": ["patient/a"]}))
    volumes = pl.DataFrame({"identifier": names, "series_description": names, "path_dicom": names})
    client.volumes.upsert(volumes.with_columns(parent_identifier=pl.lit("imagingstudy/a")))
    return options


@pytest.fixture
def client(loaded: dict[str, str], names: list[str]) -> Client:
    """A warm client: it has read and written."""
    client = Client("s3://requests/lake", storage_options=loaded)
    client.volumes.update(names[-1], {"slice_thickness": time.time()})
    client.volumes.query().select("license").limit(1).collect()
    return client


def cost(proxy: Proxy, operation: Callable[[], Any]) -> tuple[dict[str, int], int]:
    proxy.reset()
    operation()
    seen = proxy.requests()
    return dict(Counter(record.kind for record in seen)), sum(record.response_bytes for record in seen)


def test_a_warm_look_up_is_one_head_and_two_gets_under_one_megabyte(
    proxy: Proxy, client: Client, names: list[str]
) -> None:
    requests, size = cost(proxy, lambda: client.volumes.retrieve(names[30_000]))
    assert requests == {"HEAD": 1, "GET": 2}
    assert size < 1000 * KIB


def test_a_look_up_does_not_read_the_whole_file(proxy: Proxy, client: Client, names: list[str]) -> None:
    _, look_up = cost(proxy, lambda: client.volumes.retrieve(names[100]))
    _, whole = cost(proxy, lambda: client.volumes.query().collect())
    assert look_up < whole / 2


def test_one_append_costs_two_puts_and_two_lists(proxy: Proxy, client: Client, names: list[str]) -> None:
    requests, size = cost(proxy, lambda: client.volumes.update(names[30_000], {"volume_type": "T2"}))
    assert requests == {"HEAD": 1, "GET": 5, "PUT": 2, "LIST": 2}
    assert size < 1000 * KIB


def test_an_update_without_effect_writes_nothing(proxy: Proxy, client: Client, names: list[str]) -> None:
    client.volumes.update(names[7], {"volume_type": "T2"})
    client.volumes.retrieve(names[7])
    requests, _ = cost(proxy, lambda: client.volumes.update(names[7], {"volume_type": "T2"}))
    assert "PUT" not in requests


def test_building_a_query_costs_nothing(proxy: Proxy, client: Client) -> None:
    requests, _ = cost(
        proxy, lambda: client.volumes.query().filter(F.volume_type == "T2").limit(3).select("identifier")
    )
    assert requests == {}


def test_another_datasource_is_not_read(proxy: Proxy, client: Client) -> None:
    asked = client.volumes.query().filter(F.datasource_id == "datasource/other")
    requests, _ = cost(proxy, asked.collect)
    assert requests == {"HEAD": 1}


def test_select_reads_only_its_columns(proxy: Proxy, client: Client) -> None:
    _, one = cost(proxy, lambda: client.volumes.query().select("license").collect())
    _, all_of_them = cost(proxy, lambda: client.volumes.query().collect())
    assert one < all_of_them * 0.6  # the identifiers are read too: the table has closings


def test_a_delete_looks_once_for_tables_of_unknown_types(proxy: Proxy, client: Client, names: list[str]) -> None:
    def looks(operation: Callable[[], Any]) -> int:
        cost(proxy, operation)
        return sum("delimiter=/" in record.query.split("&") for record in proxy.requests())

    assert looks(lambda: client.volumes.delete(names[11])) == 1
    assert looks(lambda: client.volumes.update(names[12], {"volume_type": "T2"})) == 0


def test_an_erasure_reads_a_small_file_once_for_each_look_not_for_each_column(
    proxy: Proxy, client: Client, names: list[str]
) -> None:
    """Looks: for its rows, for others of its names, for what points there, for its texts, and twice who shares them."""
    cost(proxy, lambda: client.erase(names[13], reason="withdrawn"))
    reads = Counter(record.path for record in proxy.requests() if "/datasource_id=" in record.path)
    *small, large = sorted(reads.values())
    assert set(small) == {6}
    assert large < 60
