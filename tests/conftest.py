"""Fixtures for all tests: an environment of their own, and fresh lakes on disk and on S3 servers."""

from __future__ import annotations

import gc
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Server, aws_environment, make_bucket, start_ministack, start_moto

MakeLakeUri = Callable[[], str]
TellFigures = Callable[[str], None]
FIGURES = "figures"
BUCKETS_IN_LONG_RUNS = pytest.mark.parametrize(
    "make_lake_uri",
    ["local", *(pytest.param(server, marks=pytest.mark.slow) for server in ("ministack", "moto"))],
    indirect=True,
)
"""For tests of what lies above the store: another test of the same promise runs on S3 each time."""


def keep_the_environment_in_python() -> None:
    """Let changes of `os.environ` reach this process's Python and new processes, but not `setenv`.

    Threads of Polars read the environment (`POLARS_LOG_CONCURRENCY`) for as long as a store was scanned, and `setenv`
    in another thread moves what they read: the process dies of it, rarely.
    """
    start = subprocess.Popen.__init__

    def started(process: Any, *args: Any, env: Any = None, **options: Any) -> None:
        start(process, *args, env=dict(os.environ) if env is None else env, **options)

    os.putenv = os.unsetenv = lambda *_: None
    subprocess.Popen.__init__ = started  # type: ignore[method-assign]


keep_the_environment_in_python()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds one home directory for each test."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, homes: Path) -> Path:
    """Give the test a home directory, and hide the developer's settings, credentials and HTTP proxies from it."""
    for name in os.environ:
        if name.startswith(("VXDATA_", "AWS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = homes / uuid.uuid4().hex
    home.mkdir()
    folders = {"HOME": "", "USERPROFILE": ""}
    folders |= {f"XDG_{kind}_HOME": kind.lower() for kind in ("DATA", "CONFIG", "CACHE", "STATE")}
    folders |= {"AWS_CONFIG_FILE": "aws/config", "AWS_SHARED_CREDENTIALS_FILE": "aws/credentials"}
    for name, folder in folders.items():
        monkeypatch.setenv(name, str(home / folder))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "*")
    return home


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    """One moto for the session (and xdist worker)."""
    with start_moto() as server:
        yield server


@pytest.fixture(scope="session")
def ministack_server() -> Iterator[Server]:
    """One ministack for the session (and xdist worker)."""
    with start_ministack() as server:
        yield server


@pytest.fixture(scope="session")
def moto_url(moto_server: Server) -> str:
    """The endpoint of the session's moto."""
    return moto_server.endpoint_url


@pytest.fixture(scope="session")
def ministack_url(ministack_server: Server) -> str:
    """The endpoint of the session's ministack."""
    return ministack_server.endpoint_url


@pytest.fixture
def use_endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point the standard AWS variables at an S3 server or at a proxy in front of one."""

    def use(endpoint_url: str) -> None:
        for name, value in aws_environment(endpoint_url).items():
            monkeypatch.setenv(name, value)

    return use


@pytest.fixture(params=["local", pytest.param("moto", marks=pytest.mark.slow), "ministack"])
def make_lake_uri(request: pytest.FixtureRequest, tmp_path: Path, use_endpoint: Callable[[str], None]) -> MakeLakeUri:
    """A function that returns the URI of a new lake at each call: local, on ministack, and in the longer runs on moto.

    moto serves the same requests five to ten times slower; faults, races and the canary are tested on it in any case.
    """
    if request.param == "local":
        return lambda: str(tmp_path / uuid.uuid4().hex / "lake")
    endpoint_url: str = request.getfixturevalue(f"{request.param}_url")
    use_endpoint(endpoint_url)

    def make() -> str:
        bucket = f"bucket-{uuid.uuid4()}"
        make_bucket(endpoint_url, bucket)
        return f"s3://{bucket}/lake"

    return make


@pytest.fixture
def lake_uri(make_lake_uri: MakeLakeUri) -> str:
    """The URI of a new lake, empty and not made yet: local, on moto, on ministack."""
    return make_lake_uri()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tell_figures(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[str], None]:
    """A function that tells what a long proof counted; the summary at the end shows it."""
    return lambda text: record_property(FIGURES, f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was counted, also if it was counted in another process."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    told = [value for r in reports for name, value in getattr(r, "user_properties", ()) if name == FIGURES]
    for text in dict.fromkeys(told):
        terminalreporter.write_line(text)
