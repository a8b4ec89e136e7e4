"""One commit of an operation: the primitive, then the tending of the log."""

from vxdata.catalog.table import TableSpec
from vxdata.lake.checkpoint import tend_log
from vxdata.lake.commit import Committed, commit
from vxdata.lake.intent import Plan, Planner, Stamp
from vxdata.lake.lake import Lake
from vxdata.lake.snapshot import Snapshot


def run_commit(lake: Lake, spec: TableSpec, planner: Planner, stamp: Stamp) -> Committed:
    """Commit to one table, then tend its log."""
    table = lake.table(spec)
    done = commit(table, planner, stamp, lake.patience)
    if done.version is not None:
        tend_log(table, done.version)
    return done


def remembered(planner: Planner) -> Planner:
    """Return a planner that plans once for each base: what was validated is what is committed.

    A table that was just made is the same base as one that is not there yet.
    """
    plans: dict[tuple[str, int], Plan] = {}

    def plan(base: Snapshot) -> Plan:
        is_untouched = base.files.is_empty() and base.version <= 0
        key = ("", 0) if is_untouched else (base.table_id, base.version)
        if key not in plans:
            plans.clear()
            plans[key] = planner(base)
        return plans[key]

    return plan
