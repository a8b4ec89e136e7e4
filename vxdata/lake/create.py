"""Create: new resources of one or more types, parents first."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from vxdata.catalog.table import TableSpec
from vxdata.errors import AlreadyExistsError, name_some
from vxdata.lake.change import lineage_of
from vxdata.lake.frames import Wanted
from vxdata.lake.intent import Plan, Planner, Stamp
from vxdata.lake.lake import BaseFirst, Lake, SteadyView
from vxdata.lake.lookup import read_known
from vxdata.lake.planning import (
    NO_LINEAGES,
    changes_on,
    parents_of,
    premises_of,
    refuse_missing_parents,
    refuse_orphans,
    refuse_rejected,
)
from vxdata.lake.run import remembered, run_commit
from vxdata.lake.snapshot import Snapshot


def create(lake: Lake, wanted: Mapping[TableSpec, Wanted], stamp: Stamp) -> dict[str, pl.DataFrame]:
    """Create resources of one or more types.

    Args:
        lake: the lake.
        wanted: the new resources of each type, root first.
        stamp: who and why.

    Returns:
        The new physical rows of each namespace.

    Raises:
        AlreadyExistsError: some are live.
        NotFoundError: a parent is not live and not among the new ones.
        InvalidInputError: an identifier or a parent's type is wrong; two states of one identifier.
    """
    lake.prepare_write(needs_lake=False)
    planned = lake.patience.now()
    promised = NO_LINEAGES
    planners = {}
    for spec, states in wanted.items():  # all is validated before anything is written
        planners[spec] = _creator(lake, spec, states, promised, planned, stamp)
        plan = planners[spec](lake.snapshot(spec))
        promised = pl.concat([promised, lineage_of(plan.rows)])
    lake.begin_write()
    done = {spec: run_commit(lake, spec, planners[spec], stamp).plan for spec in wanted}
    for plan in done.values():
        refuse_orphans(lake, plan.report, [plan.rows])
    return {spec.namespace: plan.rows for spec, plan in done.items()}


def _creator(
    lake: Lake, spec: TableSpec, wanted: Wanted, promised: pl.DataFrame, planned: datetime, stamp: Stamp
) -> Planner:
    def plan(base: Snapshot) -> Plan:
        view = SteadyView(BaseFirst(base, lake))
        known = read_known(base, wanted.rows["identifier"], ())
        if known.current.height:
            names = name_some(known.current["identifier"].sort())
            raise AlreadyExistsError(f"{names}: live already. Use update to change a resource, or upsert for either.")
        parents = parents_of(view, wanted, [promised.lazy()])
        refuse_missing_parents(lake, spec, wanted, parents)
        changes = changes_on(base, wanted, known, parents, planned, False, stamp)
        refuse_rejected(spec, changes.rejected)
        return Plan(changes.created, premises_of(wanted), view)

    return remembered(plan)
