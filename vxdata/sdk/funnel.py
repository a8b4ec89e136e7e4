"""The funnel of a query: what each filter leaves, as a cohort paper's flow chart reports it."""

from datetime import datetime

import polars as pl

from vxdata.expr.select import Select
from vxdata.expr.to_python import to_python
from vxdata.lake.lake import View
from vxdata.sdk.explain import MOST_VALUES
from vxdata.sdk.plan import answered_filters

ALL_ROWS = "all"


def plan_funnel(select: Select, view: View, instant: datetime | None) -> pl.LazyFrame:
    """Return the plan of a funnel's counts, from one pass over the rows.

    Args:
        select: the query; its sort, limit and columns do not count.
        view: a steady view of the lake.
        instant: the client's own as-of instant.

    Returns:
        For each number of filters that a row passed before one stopped it: `passed`; the `resources`; the `patients`
        and `studies` of which no row passed more; `removed_null`, the resources that a null stopped.
    """
    rows, verdicts = answered_filters(select, view, instant)
    judged = rows.select("patient_id", "study_id", *(verdict.alias(f":{n}") for n, verdict in enumerate(verdicts)))
    number = [_unless_true(n, pl.lit(n, pl.UInt32)) for n in range(len(verdicts))]
    is_null = [_unless_true(n, pl.col(f":{n}").is_null()) for n in range(len(verdicts))]
    stopped = judged.select(
        "patient_id",
        "study_id",
        pl.coalesce(*number, pl.lit(len(verdicts), pl.UInt32)).alias("passed"),
        pl.coalesce(*is_null, pl.lit(False)).alias("removed_null"),
    )
    resources = stopped.group_by("passed").agg(pl.len().alias("resources"), pl.col("removed_null").sum())
    furthest = (_furthest(stopped, *names) for names in (("patient_id", "patients"), ("study_id", "studies")))
    return pl.concat([resources, *furthest], how="diagonal").group_by("passed").agg(pl.all().sum())


def _unless_true(n: int, value: pl.Expr) -> pl.Expr:
    return pl.when(pl.col(f":{n}")).then(None).otherwise(value)


def _furthest(stopped: pl.LazyFrame, column: str, name: str) -> pl.LazyFrame:
    """Count the patients or studies by how many filters that of their rows passed which passed most."""
    most = stopped.filter(pl.col(column).is_not_null()).group_by(column).agg(pl.col("passed").max())
    return most.group_by("passed").agg(pl.len().alias(name))


def to_funnel(select: Select, counted: pl.DataFrame) -> pl.DataFrame:
    """Return the counts as a frame: filter, resources, patients, studies, removed, removed_null."""
    steps = [ALL_ROWS, *map(to_python, select.filters)]
    numbered = pl.DataFrame({"filter": steps, "passed": range(len(steps))}, schema_overrides={"passed": pl.UInt32})
    stopped = numbered.join(counted, on="passed", how="left", maintain_order="left").fill_null(0)
    left = [pl.col(name).cum_sum(reverse=True).cast(pl.Int64) for name in ("resources", "patients", "studies")]
    removed, removed_null = (pl.col(name).shift(fill_value=0).cast(pl.Int64) for name in ("resources", "removed_null"))
    return stopped.select("filter", *left, removed.alias("removed"), removed_null)


def funnel_chart(select: Select, funnel: pl.DataFrame) -> str:
    """Return a funnel as text for a flow chart."""
    lines: list[str] = []
    words = [ALL_ROWS, *(to_python(node, MOST_VALUES) for node in select.filters)]
    for text, step in zip(words, funnel.iter_rows(named=True), strict=True):
        if lines:
            why = f", {step['removed_null']:,} because a value was missing" if step["removed_null"] else ""
            lines += ["  |", f"  |-- {text}: {step['removed']:,} removed{why}", "  v"]
        within = f"patients: {step['patients']:,}, studies: {step['studies']:,}"
        lines.append(f"{select.spec.namespace}: {step['resources']:,} ({within})")
    return "\n".join(lines)
