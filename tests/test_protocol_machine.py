"""The lake against a plain model of it, side by side, under whatever Hypothesis thinks of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conftest import TellFigures
from tests.support import stepping
from tests.support.broken import RULES
from tests.support.machine import LakeMachine
from tests.support.tended_machine import TendedMachine
from vxdata.errors import VxDataError
from vxdata.lake import checkpoint

MakeLakeUri = Callable[[], str]
UNSEEN = {
    "same files",
    "missing entry",
    "checksum",
    "log checksum",
    "one commit",
    "batch in the log",
    "batch at the base",
}
"""Rules that the machine cannot see missing: tests of races, kills, damage and batches do."""

MINUTES = float(os.environ.get("VXDATA_TORTURE_MINUTES", "30"))
SEARCH = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


@pytest.fixture
def run_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the machine over new lakes, so many examples of so many steps; return how many steps it took."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_COMMITS", 4)
    puts = stepping.install(monkeypatch)

    def run(
        make_uri: MakeLakeUri,
        examples: int,
        steps: int,
        phases: tuple[Phase, ...] = SEARCH,
        of: type[LakeMachine] = TendedMachine,
    ) -> int:
        machine = type("Machine", (of,), {"make_uri": staticmethod(make_uri), "puts": puts})
        profile = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=phases,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(machine, settings=profile)
        return machine.taken  # type: ignore[attr-defined,no-any-return]

    return run


@pytest.mark.timeout(900)  # a failure is shrunk for up to five minutes
@pytest.mark.parametrize("make_lake_uri", ["local"], indirect=True)
def test_a_lake_on_disk_is_as_the_model_says(run_machine: Callable[..., int], make_lake_uri: MakeLakeUri) -> None:
    run_machine(make_lake_uri, examples=5, steps=20)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("make_lake_uri", ["ministack"], indirect=True)
def test_a_lake_on_s3_is_as_the_model_says(run_machine: Callable[..., int], make_lake_uri: MakeLakeUri) -> None:
    run_machine(make_lake_uri, examples=1, steps=12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("make_lake_uri", "examples"), [("local", 300), ("ministack", 30)], indirect=["make_lake_uri"])
def test_long_runs_are_as_the_model_says(
    run_machine: Callable[..., int], make_lake_uri: MakeLakeUri, examples: int
) -> None:
    run_machine(make_lake_uri, examples=examples, steps=40)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("make_lake_uri", ["local", "ministack"], indirect=True)
def test_a_lake_is_as_the_model_says_for_as_long_as_there_is_time(
    run_machine: Callable[..., int], make_lake_uri: MakeLakeUri, tell_figures: TellFigures
) -> None:
    end, steps = time.monotonic() + 60 * MINUTES, 0
    while time.monotonic() < end:
        steps += run_machine(make_lake_uri, examples=5, steps=50, phases=(Phase.generate,))
    tell_figures(f"{steps} steps")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rule", sorted(RULES.keys() - UNSEEN))
@pytest.mark.parametrize("make_lake_uri", ["local"], indirect=True)
def test_the_machine_notices_a_rule_that_is_missing(
    run_machine: Callable[..., int], make_lake_uri: MakeLakeUri, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    RULES[rule](monkeypatch)
    with pytest.raises((AssertionError, VxDataError)):
        run_machine(make_lake_uri, examples=300, steps=30, phases=(Phase.generate,), of=LakeMachine)
