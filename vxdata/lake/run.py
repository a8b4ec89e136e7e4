"""One commit of an operation: the primitive, then the tending of the log."""

from vxdata.catalog.table import TableSpec
from vxdata.lake.checkpoint import tend_log
from vxdata.lake.commit import Committed, Planner, Stamp, commit
from vxdata.lake.lake import Lake


def run_commit(lake: Lake, spec: TableSpec, planner: Planner, stamp: Stamp) -> Committed:
    """Commit to one table, then tend its log."""
    table = lake.table(spec)
    done = commit(table, planner, stamp, lake.patience)
    if done.version is not None:
        tend_log(table, done.version)
    return done
