"""Update: the next version of one live resource, replayed on the newest version if it loses a race."""

from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import ConflictError, NotFoundError
from vxdata.lake.change import Known
from vxdata.lake.frames import Wanted
from vxdata.lake.intent import Plan, Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.lookup import read_current
from vxdata.lake.past import describe_missing
from vxdata.lake.planning import NO_LINEAGES, changes_on, premises_of, refuse_rejected
from vxdata.lake.run import run_commit
from vxdata.lake.snapshot import Snapshot


def update(lake: Lake, spec: TableSpec, wanted: Wanted, expected: datetime | None, stamp: Stamp) -> pl.DataFrame:
    """Change one live resource.

    Args:
        lake: the lake.
        spec: the resource's table.
        wanted: one row with the given columns.
        expected: the `valid_from` that the current version must have; None for any.
        stamp: who and why.

    Returns:
        The physical row of the current version, whether it is new or not.

    Raises:
        NotFoundError: the resource is not live, or was deleted while the update was tried.
        ConflictError: the current version is not the expected one; nothing was written.
    """
    lake.prepare_write(needs_lake=True)
    lake.begin_write()
    identifier = wanted.rows["identifier"].item()
    first_created_at: list[datetime] = []

    def plan(base: Snapshot) -> Plan:
        current = read_current(base, wanted.rows["identifier"])
        if current.is_empty():
            raise NotFoundError(describe_missing(lake, wanted.rows["identifier"]))
        _refuse_unexpected(identifier, current, expected)
        first_created_at.append(current["created_at"].item())
        if first_created_at[0] != first_created_at[-1]:
            raise NotFoundError(f"{identifier!r} was deleted, and created again, while this update was tried.")
        known = Known(current, _NO_PAST)
        changes = changes_on(base, wanted, known, NO_LINEAGES, lake.patience.now(), False, stamp)
        refuse_rejected(spec, changes.rejected)
        return Plan(changes.updated, premises_of(wanted), current)

    done = run_commit(lake, spec, plan, stamp).plan
    return done.rows if done.rows.height else done.report


_NO_PAST = pl.DataFrame(schema={"identifier": pl.String(), "last": pl.Datetime("us", "UTC")})


def _refuse_unexpected(identifier: str, current: pl.DataFrame, expected: datetime | None) -> None:
    found = current["valid_from"].item()
    if expected is not None and found != expected:
        raise ConflictError(
            f"{identifier!r}: the current version is of {found.isoformat()}, not of {expected.isoformat()}. Nothing "
            "was written; retrieve it and decide anew."
        )
