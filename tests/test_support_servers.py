"""The S3 servers and the proxy of the tests do what the tests rely on."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import deltalake
import obstore
import polars as pl
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import S3Store

from tests.support.proxy import ERROR_CODES, Fault, Match, Proxy, Record, Status
from tests.support.servers import ROOT, Server, aws_environment, make_bucket, start_careless

MEGABYTE = 1_000_000


@pytest.fixture(scope="module", params=[pytest.param("moto", marks=pytest.mark.slow), "ministack"])
def server_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="module")
def proxy_process(server_url: str) -> Iterator[Proxy]:
    with Proxy(server_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_process: Proxy) -> Proxy:
    proxy_process.reset()
    return proxy_process


@pytest.fixture
def bucket(server_url: str) -> str:
    return new_bucket(server_url)


@pytest.fixture
def store(proxy: Proxy, bucket: str) -> S3Store:
    return store_at(proxy.endpoint_url, bucket)


def new_bucket(endpoint_url: str) -> str:
    name = f"bucket-{uuid.uuid4()}"
    make_bucket(endpoint_url, name)
    return name


def store_at(endpoint_url: str, bucket: str, *, timeout: str = "20s") -> S3Store:
    """A store that does not retry."""
    config = {name.lower(): value for name, value in aws_environment(endpoint_url).items() if "METADATA" not in name}
    options: Any = {"allow_http": True, "timeout": timeout}
    return S3Store(bucket, config=config, client_options=options, retry_config={"max_retries": 0})  # type: ignore[arg-type]


def winners(store: S3Store, key: str) -> int:
    """Let four threads create one key at the same moment; return how many were told that they did."""
    start = threading.Barrier(4)

    def create(content: bytes) -> bool:
        start.wait()
        try:
            obstore.put(store, key, content, mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(create, [b"a", b"b", b"c", b"d"]))


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return done


def port_of(endpoint_url: str) -> int:
    return int(endpoint_url.rsplit(":", 1)[1])


def listens(endpoint_url: str) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port_of(endpoint_url))) == 0


def exists(endpoint_url: str, bucket: str, key: str) -> bool:
    """Tell whether the server itself has the object."""
    return key in [entry["path"] for entry in obstore.list(store_at(endpoint_url, bucket)).collect()]


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def succeeds(operation: Callable[..., Any], *args: Any) -> bool:
    try:
        operation(*args)
    except BaseError:
        return False
    return True


@contextmanager
def boto3_client(endpoint_url: str) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with closing(client):
        yield client


# Servers


def test_one_writer_wins_each_contested_key(server_url: str, bucket: str) -> None:
    store = store_at(server_url, bucket)
    assert Counter(winners(store, f"key-{n}") for n in range(300)) == {1: 300}


def test_a_careless_store_lets_every_writer_win() -> None:
    with start_careless() as server:
        store = store_at(server.endpoint_url, new_bucket(server.endpoint_url))
        assert [winners(store, f"key-{n}") for n in range(3)] == [4, 4, 4]


def test_overwriting_a_key_never_disturbs_its_readers(server_url: str, bucket: str) -> None:
    store = store_at(server_url, bucket)
    contents = [bytes([digit]) * 100_000 for digit in b"01"]

    def work(n: int) -> bool:
        if n % 2:
            obstore.put(store, "key", contents[n // 2 % 2])
            return True
        listed = obstore.list(store).collect()
        return len(listed) == 1 and obstore.get(store, "key").bytes().to_bytes() in contents

    obstore.put(store, "key", contents[0])
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


@pytest.mark.skipif(not Path("/proc").exists(), reason="counts open sockets as Linux shows them")
def test_a_server_lets_go_of_connections_that_its_clients_have_closed(ministack_server: Server) -> None:
    def open_files() -> int:
        return len(os.listdir(f"/proc/{ministack_server.pid}/fd"))  # sockets are files here, too

    before = open_files()
    for _ in range(50):
        with closing(http.client.HTTPConnection("127.0.0.1", port_of(ministack_server.endpoint_url))) as client:
            client.request("GET", "/no-such-bucket/key")
            client.getresponse().read()
    assert wait_until(lambda: open_files() < before + 10)


def test_an_upload_that_breaks_off_leaves_no_object(ministack_url: str) -> None:
    bucket = new_bucket(ministack_url)
    with closing(socket.create_connection(("127.0.0.1", port_of(ministack_url)))) as upload:
        upload.sendall(f"PUT /{bucket}/half HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of it".encode())
    assert not wait_until(lambda: exists(ministack_url, bucket, "half"), seconds=1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not have the address 127.0.0.2")
def test_servers_listen_on_127_0_0_1_alone(server_url: str) -> None:
    with closing(socket.socket()) as second:
        second.bind(("127.0.0.2", port_of(server_url)))  # in use if the server is bound to all interfaces


def test_a_stopped_server_is_gone(moto_url: str) -> None:
    with Proxy(moto_url) as proxy:
        assert listens(proxy.endpoint_url)
    assert not listens(proxy.endpoint_url)
    proxy.stop()


@pytest.mark.parametrize("server", ["servers.start_moto()", "servers.start_ministack()", "proxy.Proxy(sys.argv[1])"])
def test_a_server_dies_with_the_process_that_started_it(server: str, moto_url: str) -> None:
    code = f"import sys; from tests.support import proxy, servers; s = {server}; print(s.endpoint_url, flush=True)"
    code += "; input()"
    command = [sys.executable, "-c", code, moto_url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().decode().strip()
        assert listens(url)
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not listens(url))


def test_the_developers_credentials_are_out_of_reach() -> None:
    assert boto3.session.Session().get_credentials() is None
    assert boto3.session.Session().available_profiles == []
    assert not [name for name in os.environ if name.startswith("VXDATA_")]


def test_each_lake_is_a_new_one(make_lake_uri: Callable[[], str]) -> None:
    first, second = make_lake_uri(), make_lake_uri()
    assert first != second


# The proxy passes everything through


def test_delta_tables_work_through_the_proxy(proxy: Proxy, bucket: str) -> None:
    uri, options = f"s3://{bucket}/lake/table", aws_environment(proxy.endpoint_url) | {"AWS_ALLOW_HTTP": "true"}
    frame = pl.DataFrame({"key": ["datasource/a b", "é=#%2F"], "value": [1, 2]})
    deltalake.write_deltalake(uri, frame.to_arrow(), storage_options=options, partition_by=["key"])
    table = deltalake.DeltaTable(uri, storage_options=options)
    assert pl.scan_delta(table).collect().select("key", "value").sort("value").equals(frame)
    commit = [r for r in proxy.requests() if r.path == f"{bucket}/lake/table/_delta_log/{0:020}.json"]
    assert [(r.kind, r.status) for r in commit if r.kind == "PUT"] == [("PUT", 200)]


def test_polars_scans_ranges_through_the_proxy(proxy: Proxy, store: S3Store, bucket: str) -> None:
    frame = pl.DataFrame({"a": range(500_000), "b": [i * i for i in range(500_000)]})
    content = parquet(frame)
    obstore.put(store, "lake/one.parquet", content)
    proxy.reset()
    options = aws_environment(proxy.endpoint_url)
    scan = pl.scan_parquet(f"s3://{bucket}/lake/one.parquet", storage_options=options)
    assert scan.select(pl.col("a").sum()).collect().item() == sum(range(500_000))
    assert 0 < sum(r.response_bytes for r in proxy.requests()) < len(content)


def test_boto3_works_through_the_proxy(proxy: Proxy, bucket: str) -> None:
    content = os.urandom(MEGABYTE)
    with boto3_client(proxy.endpoint_url) as client:
        client.put_object(Bucket=bucket, Key="lake/a b#?%2F.bin", Body=io.BytesIO(content))  # Expect: 100-continue
        client.upload_fileobj(io.BytesIO(content), bucket, "lake/é.bin")
        listed = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket, Prefix="lake/")["Contents"]]
        part = client.get_object(Bucket=bucket, Key=listed[0], Range="bytes=10-19")["Body"].read()
    assert listed == ["lake/a b#?%2F.bin", "lake/é.bin"]
    assert part == content[10:20]
    assert {r.path for r in proxy.requests() if r.kind == "PUT"} == {f"{bucket}/{key}" for key in listed}


def test_chunked_bodies_pass_unmodified(proxy: Proxy, server_url: str, bucket: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(proxy.endpoint_url))) as connection:
        pieces = iter([b"one ", b"two ", b"three"])
        connection.request("PUT", f"/{bucket}/key", pieces, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().read() == b""
    assert obstore.get(store_at(server_url, bucket), "key").bytes() == b"one two three"
    assert [(r.kind, r.request_bytes) for r in proxy.requests()] == [("PUT", 13)]


def test_aws_chunked_bodies_pass_unmodified(proxy: Proxy, server_url: str, bucket: str) -> None:
    body = b"7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:/sUwqQ==\r\n\r\n"
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "X-Amz-Decoded-Content-Length": "7",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(proxy.endpoint_url))) as connection:
        connection.request("PUT", f"/{bucket}/key", body, headers)
        assert connection.getresponse().status == 200
    assert obstore.get(store_at(server_url, bucket), "key").bytes() == b"content"
    assert [(r.kind, r.request_bytes) for r in proxy.requests()] == [("PUT", len(body))]


def test_a_large_object_passes_unmodified(proxy: Proxy, store: S3Store) -> None:
    content = os.urandom(100 * MEGABYTE)
    obstore.put(store, "large", content, use_multipart=False)
    assert obstore.get(store, "large").bytes() == content
    assert [(r.kind, r.request_bytes, r.response_bytes) for r in proxy.requests()] == [
        ("PUT", len(content), 0),
        ("GET", 0, len(content)),
    ]


def test_fifty_connections_at_once(proxy: Proxy, store: S3Store) -> None:
    start = threading.Barrier(50)

    def round_trip(n: int) -> bool:
        content = bytes([n]) * 10_000
        start.wait()
        obstore.put(store, f"key-{n}", content)
        return obstore.get(store, f"key-{n}").bytes() == content

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(round_trip, range(50)))
    assert Counter(r.kind for r in proxy.requests()) == {"PUT": 50, "GET": 50}


def test_requests_and_bytes_are_counted(proxy: Proxy, store: S3Store, bucket: str) -> None:
    key = f"{bucket}/lake/a=b%2Fc"
    obstore.put(store, "lake/a=b%2Fc", b"x" * 1000)
    obstore.get(store, "lake/a=b%2Fc").bytes()
    obstore.get_range(store, "lake/a=b%2Fc", start=100, length=50)
    obstore.head(store, "lake/a=b%2Fc")
    with boto3_client(proxy.endpoint_url) as client:
        client.delete_object(Bucket=bucket, Key="lake/a=b%2Fc")
    assert proxy.requests() == [
        Record("PUT", key, "", "PUT", 200, request_bytes=1000),
        Record("GET", key, "", "GET", 200, response_bytes=1000),
        Record("GET", key, "", "GET", 206, response_bytes=50),
        Record("HEAD", key, "", "HEAD", 200),
        Record("DELETE", key, "", "DELETE", 204),
    ]


def test_a_list_is_told_from_a_get(proxy: Proxy, store: S3Store, bucket: str) -> None:
    obstore.list(store, "lake/some table").collect()
    (record,) = proxy.requests()
    assert (record.kind, record.method, record.path, record.status) == ("LIST", "GET", bucket, 200)
    assert "prefix=lake/some table/" in record.query


def test_obstore_deletes_with_a_post(proxy: Proxy, store: S3Store, bucket: str) -> None:
    obstore.delete(store, "key")
    (record,) = proxy.requests()
    assert (record.kind, record.path, record.query) == ("POST", bucket, "delete")  # the key is in the body


# The proxy's faults


@pytest.mark.parametrize("status", [403, 409, 429, 500, 503])
def test_a_status_is_answered_without_the_server(proxy: Proxy, server_url: str, bucket: str, status: Status) -> None:
    proxy.inject(status, Match(kind="PUT"))
    with boto3_client(proxy.endpoint_url) as client:
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket=bucket, Key="key", Body=b"content")
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert error.value.response["Error"]["Code"] == ERROR_CODES[status]
        assert not exists(server_url, bucket, "key")
        client.put_object(Bucket=bucket, Key="key", Body=b"content")
    assert [(r.status, r.fault) for r in proxy.requests()] == [(status, status), (200, None)]


@pytest.mark.parametrize("fault", ["reset", "hang"])
def test_what_is_not_forwarded_changes_nothing(proxy: Proxy, server_url: str, bucket: str, fault: Fault) -> None:
    proxy.inject(fault)
    with pytest.raises(GenericError):
        obstore.put(store_at(proxy.endpoint_url, bucket, timeout="0.5s"), "key", b"content")
    assert not exists(server_url, bucket, "key")
    assert [(r.kind, r.status, r.fault) for r in proxy.requests()] == [("PUT", None, fault)]


def test_a_lost_answer_leaves_the_object(proxy: Proxy, store: S3Store, server_url: str, bucket: str) -> None:
    proxy.inject("lost_answer", Match(kind="PUT"))
    with pytest.raises(GenericError):
        obstore.put(store, "key", b"content")
    assert exists(server_url, bucket, "key")
    assert [(r.kind, r.status, r.fault) for r in proxy.requests()] == [("PUT", 200, "lost_answer")]


def test_a_cut_body_is_half_a_body(proxy: Proxy, store: S3Store) -> None:
    obstore.put(store, "key", b"x" * MEGABYTE)
    proxy.inject("cut_body", Match(kind="GET"))
    with pytest.raises(GenericError):
        obstore.get(store, "key").bytes()
    assert obstore.get(store, "key").bytes() == b"x" * MEGABYTE
    assert [r.response_bytes for r in proxy.requests()] == [0, MEGABYTE // 2, MEGABYTE]


def test_a_fault_strikes_where_it_matches(proxy: Proxy, store: S3Store) -> None:
    proxy.inject(503, Match(kind="PUT", path=r"log/\d+\.json$", nth=2, times=2))
    proxy.inject(500, Match(kind="LIST", path="prefix=lake/table"))
    outcomes = [succeeds(obstore.put, store, f"log/{n}.json", b"") for n in range(4)]
    assert outcomes == [True, False, False, True]
    assert succeeds(obstore.put, store, "other/1.json", b"")
    assert [succeeds(obstore.list(store, prefix).collect) for prefix in ("log", "lake/table")] == [True, False]


def test_reset_forgets_requests_and_faults(proxy: Proxy, store: S3Store) -> None:
    proxy.inject("reset")
    assert not succeeds(obstore.put, store, "key", b"")
    proxy.reset()
    assert proxy.requests() == []
    assert succeeds(obstore.put, store, "key", b"")


def test_an_unknown_fault_is_refused(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="unknown fault 'explode'"):
        proxy.inject("explode")  # type: ignore[arg-type]
