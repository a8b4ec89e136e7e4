"""The examples of docs/jobs.md: each is read by what would run it, and runs a command that exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import run_here
from vxdata.sdk import Client
from vxdata.sdk.maintain import MaintainPolicy, to_policy
from vxdata_cli.jobs import NOTHING_TO_DO, TRY_AGAIN
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED

PAGE = (Path(__file__).parents[1] / "docs" / "jobs.md").read_text()
UNITS = ("vxdata-maintain.service", "vxdata-maintain.timer")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language; fences come in pairs."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
    return [text for name, text in fences if name == language]


def cron_job() -> dict[str, Any]:
    (text,) = blocks("yaml")
    return yaml.safe_load(text)["spec"]  # type: ignore[no-any-return]


def commands() -> Iterator[str]:
    """Every command line of VxData in the examples."""
    (crontab,) = [text for text in blocks("") if "flock" in text]
    service, _ = blocks("ini")
    (container,) = cron_job()["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    for text in (crontab, service, container["command"][-1]):
        yield from re.findall(r"vxdata maintain[^>|;\n]*", text)


def test_the_policy_is_the_default_one() -> None:
    (text,) = blocks("toml")
    assert to_policy(tomllib.loads(text)["maintain"], "docs/jobs.md") == MaintainPolicy()


def test_each_example_runs_the_command(tmp_path: Path) -> None:
    Client(tmp_path / "lake").datasources.upsert(frame())
    found = list(commands())
    assert len(found) == 3
    for command in found:
        done = run_here(*shlex.split(command)[1:], "--uri", str(tmp_path / "lake"))
        assert done.returncode in (0, NOTHING_TO_DO), done.stderr


def frame() -> Any:
    import polars as pl

    return pl.DataFrame({"identifier": ["datasource/d"]})


def test_the_exit_codes_are_those_of_the_examples() -> None:
    service, _ = blocks("ini")
    assert f"SuccessExitStatus={NOTHING_TO_DO}\n" in service
    assert "Restart=on-failure\n" in service, "what is to be tried again is"
    assert f"RestartPreventExitStatus=1 2 3 {A_PERSON_IS_NEEDED}\n" in service
    (rule,) = cron_job()["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [1, 2, 3, A_PERSON_IS_NEEDED]
    codes = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.M)
    assert codes == ["0", str(NOTHING_TO_DO), str(A_PERSON_IS_NEEDED), str(TRY_AGAIN), "1, 2, 3"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in UNITS]
    for path, text in zip(paths, blocks("ini"), strict=True):
        path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", *map(str, paths)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", [0, 1, 2, 3, NOTHING_TO_DO, A_PERSON_IS_NEEDED, TRY_AGAIN])
def test_the_container_ends_as_the_command_does_but_for_nothing_to_do(tmp_path: Path, code: int) -> None:
    command = tmp_path / "vxdata"
    command.write_text(f"#!/bin/sh\nexit {code}\n")
    command.chmod(0o755)
    (container,) = cron_job()["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    found = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(container["command"], env=found, check=False)
    assert done.returncode == (0 if code == NOTHING_TO_DO else code)
