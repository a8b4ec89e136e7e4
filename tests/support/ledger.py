"""What contenders left in a lake, checked against what they told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from tests.support.comparison import refuse_overlaps
from tests.support.contender import BATCH_ROWS, COUNTER, Contender
from vxdata.sdk import Client


def counted(client: Client) -> list[str | None]:
    """Return who made each version of the counter, after a look that each is one more than the one before."""
    versions = client.patients.history(COUNTER)
    assert [v.payload.birthyear or 0 for v in versions] == list(range(len(versions)))
    assert all(a.valid_to == b.valid_from for a, b in pairwise(versions))
    return [v.license for v in versions[1:]]


def batches(client: Client) -> dict[str, list[str]]:
    """Return what the current rows of each contender's batch say."""
    rows = client.patients.query().collect().filter(pl.col("identifier").str.contains(r"-\d+$"))
    assert not rows["identifier"].is_duplicated().any()
    named = rows.with_columns(name=pl.col("identifier").str.extract(r"patient/(\w+)-"))
    return {str(name): group["license"].to_list() for (name,), group in named.group_by("name")}


def refuse_lost_steps(client: Client, contenders: Sequence[Contender]) -> int:
    """Check the history of all that contenders wrote, who came to their ends; return how many steps there were.

    Every acknowledged step counts once, and in the order of its writer; no two versions overlap; the last state of each
    batch is whole.
    """
    told = [step for c in contenders for step in c.told["counter"]]
    if told:
        made = counted(client)
        assert sorted(made, key=str) == sorted(told)
        for c in (c for c in contenders if c.told["counter"]):
            assert [step for step in made if step and step.startswith(f"{c.name}:")] == c.told["counter"]
    for c in contenders:
        own = client.patients.history(f"patient/{c.name}")
        assert [v.payload.birthyear for v in own] == [None, *map(int, c.told["own"])]
        assert all(a.valid_to == b.valid_from for a, b in pairwise(own))
    assert batches(client) == {c.name: [c.told["batch"][-1]] * BATCH_ROWS for c in contenders}
    versions = client.patients.query().versions().collect()
    refuse_overlaps(versions)
    rounds = sum(len(c.told["batch"]) for c in contenders)
    assert versions.filter(pl.col("identifier").str.contains(r"-\d+$")).height == rounds * BATCH_ROWS
    return len(told) + sum(len(c.told["own"]) for c in contenders) + rounds
