"""Maintenance: what is due is done, nothing else; it tells a scheduler what became of it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.cli import plain, run_here
from tests.support.stepping import Clock, open_client
from vxdata.errors import InvalidInputError, StorageError
from vxdata.sdk import Client
from vxdata.sdk.maintain import MaintainPolicy, to_policy

ALWAYS = MaintainPolicy(tail_files=1)
D = "datasource/d"


def fill(client: Client, updates: int = 3) -> Client:
    client.datasources.upsert(pl.DataFrame({"identifier": [D]}))
    client.patients.upsert(pl.DataFrame({"identifier": ["patient/p", "patient/q"], "parent_identifier": D}))
    for year in range(updates):
        client.patients.update("patient/p", {"birthyear": 1950 + year})
    return client


def test_what_is_due_is_done_once(lake_uri: str) -> None:
    client = fill(Client(lake_uri))
    report = client.maintain(ALWAYS)
    assert report.outcome == "done"
    assert report.compaction.rounds["folded"].sum() == 3
    assert report.verify is not None
    assert report.verify.ok
    again = client.maintain(ALWAYS)
    assert (again.outcome, again.compaction.is_changed, again.verify) == ("nothing to do", False, None)


@pytest.mark.parametrize(("updates", "folds"), [(15, False), (16, True)])
def test_a_tail_is_folded_when_it_is_worth_it(tmp_path: Path, updates: int, folds: bool) -> None:
    client = fill(Client(tmp_path / "lake"), updates)
    report = client.maintain(MaintainPolicy(tail_share=1.0))
    assert (report.compaction.rounds.height == 1) is folds


def test_info_and_writers_say_what_wants_upkeep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = fill(Client(tmp_path / "lake"), 20)
    assert client.info().tables[1].wants == ("compaction",)
    assert "patients wants compaction in 1 datasources: run 'vxdata maintain'" in caplog.text


def test_the_check_comes_when_it_is_due(tmp_path: Path) -> None:
    clock = Clock()
    client = fill(open_client(str(tmp_path / "lake"), clock.patience()))
    policy = MaintainPolicy(vacuum=False)
    checked = []
    for days in (0, 6, 2, 6):
        clock.turn(timedelta(days=days))
        checked.append(client.maintain(policy).verify is not None)
    assert checked == [True, False, True, False]


def test_a_check_by_a_clock_that_was_ahead_counts_as_none(tmp_path: Path) -> None:
    clock = Clock()
    client = fill(open_client(str(tmp_path / "lake"), clock.patience()))
    clock.turn(timedelta(days=3650))
    assert client.maintain(MaintainPolicy(vacuum=False)).verify is not None
    clock.turn(timedelta(days=-3650))
    assert client.maintain(MaintainPolicy(vacuum=False)).verify is not None


def test_damage_calls_for_a_person_and_is_looked_at_again(tmp_path: Path) -> None:
    client = fill(Client(tmp_path / "lake"), 0)
    for path in Path(client.uri, "patients").glob("*/*.parquet"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    for _ in range(2):
        assert client.maintain().outcome == "a person is needed"


def test_two_at_once_do_it_once_and_disturb_nobody(tmp_path: Path) -> None:
    fill(Client(tmp_path / "lake"), 20)
    before = Client(tmp_path / "lake").patients.query().versions().sort("identifier", "valid_from").collect()
    reports: list[Any] = []
    threads = [
        threading.Thread(target=lambda: reports.append(Client(tmp_path / "lake").maintain(ALWAYS))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(int(report.compaction.rounds["folded"].sum()) for report in reports) == 20
    assert (
        Client(tmp_path / "lake").patients.query().versions().sort("identifier", "valid_from").collect().equals(before)
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"tail_file": 3}, "Did you mean 'tail_files'"),
        ({"tail_files": 0}, "greater than or equal to 1"),
        ({"tail_files": "many"}, "valid integer"),
        ({"retention_days": 0.5}, "greater than or equal to 1"),
        ({"keep_log_days": 7}, "greater than or equal to 30"),
        ({"vacuum": "yes"}, "valid boolean"),
        ({"retention_days": math.inf}, "less than or equal to 36500"),
        ({"verify_days": 1e12}, "less than or equal to 36500"),
        ({"verify_days": math.nan}, "less than or equal to 36500"),
        ({"keep_log_days": 999_999_999}, "less than or equal to 36500"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_by_key_and_file(values: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError, match=r"vxdata.toml: \[maintain\]") as error:
        to_policy(values, "vxdata.toml")
    assert word in str(error.value)


def test_a_client_of_the_past_does_not_maintain(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="read-only"):
        fill(Client(tmp_path / "lake")).snapshot().maintain()


# The command line


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    fill(Client(tmp_path / "lake"), 16)
    return tmp_path / "lake"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_command_logs_lines_of_json_and_tells_by_its_exit_code(lake: Path) -> None:
    done = run_here("maintain", "--uri", lake, "--json")
    events = [line["event"] for line in lines(done.stderr)]
    assert events == ["begin", "compact.round", "compact", "vacuum", "verify", "end"]
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "done")
    again = run_here("maintain", "--uri", lake, "--json")
    assert (again.returncode, json.loads(again.stdout)["outcome"]) == (7, "nothing to do")


def test_the_policy_comes_from_the_nearest_settings_file(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lake.parent)
    (lake.parent / "vxdata.toml").write_text("[maintain]\ntail_files = 17\ntail_share = 1.0\nvacuum = false\n")
    done = run_here("maintain", "--uri", lake, "--json")
    document = json.loads(done.stdout)
    assert (document["compaction"]["rounds"], document["vacuum"]) == ([], None)


FAILURES = [
    (StorageError("no answer", uri="s3://b", operation="read", retryable=True), 9, True),
    (StorageError("damaged", uri="s3://b", operation="read", retryable=False), 8, False),
]


@pytest.mark.parametrize(("error", "code", "again"), FAILURES, ids=["no answer", "damage"])
def test_a_failure_is_a_line_and_an_exit_code(
    lake: Path, monkeypatch: pytest.MonkeyPatch, error: StorageError, code: int, again: bool
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("vxdata.sdk.maintain.compact", fails)
    done = run_here("maintain", "--uri", lake)
    assert done.returncode == code
    assert (lines(done.stderr)[-1]["event"], lines(done.stderr)[-1]["try_again"]) == ("failed", again)


def test_compact_shows_what_it_did(lake: Path) -> None:
    text = plain(run_here("compact", "patients", "--uri", lake).stdout)
    assert "patients" in text
    assert "Checkpoints: 1. Log entries trimmed: 0." in text
    assert "Nothing to do" in run_here("compact", "patients", "--uri", lake).stdout
    wrong = run_here("compact", "patiens", "--uri", lake)
    assert (wrong.returncode, "Did you mean 'patients'" in wrong.stderr) == (2, True)


# Erasure, as a person sees it


def erase(lake: Path, *options: str) -> Any:
    return run_here("erase", "patient/p", "--reason", "consent withdrawn", "--uri", lake, *options)


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writers that are under way are waited for in no time."""
    return monkeypatch.setattr("vxdata.lake.intent.Patience.settled_after", timedelta(0))  # type: ignore[func-returns-value]


def test_an_erasure_without_a_word_shows_the_plan_and_changes_nothing(lake: Path) -> None:
    shown = erase(lake, "--dry-run")
    assert (shown.returncode, "patients" in shown.stdout) == (0, True)
    refused = erase(lake)
    assert (refused.returncode, "pass --yes" in refused.stderr) == (2, True)
    assert Client(lake).patients.retrieve("patient/p")


def test_an_erasure_says_that_nothing_tells_of_it(lake: Path, haste: None) -> None:
    done = erase(lake, "--yes", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["left"], document["dry_run"]) == (0, [], False)
    assert document["tables"][0]["versions"] == 17


def test_what_is_left_needs_a_person(lake: Path, haste: None) -> None:
    Client(lake).datasources.update(D, {"description": "with patient/p"})
    done = erase(lake, "--yes")
    assert done.returncode == 8
    assert "datasources.description: 1 rows of other resources name it" in " ".join(done.stdout.split())
