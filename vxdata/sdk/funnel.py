"""The funnel of a query: what each filter leaves, as a cohort paper's flow chart reports it."""

from datetime import datetime

import polars as pl

from vxdata.expr.select import Select
from vxdata.expr.to_python import to_python
from vxdata.lake.lake import View
from vxdata.sdk.explain import MOST_VALUES
from vxdata.sdk.plan import answered_filters

COUNTS = ("resources", "patients", "studies", "removed", "removed_null")
ALL_ROWS = "all"


def plan_funnel(select: Select, view: View, instant: datetime | None) -> pl.LazyFrame:
    """Return the plan of a funnel: one row of counts, from one pass over the rows.

    Args:
        select: the query; its sort, limit and columns do not count.
        view: a steady view of the lake.
        instant: the client's own as-of instant.
    """
    rows, verdicts = answered_filters(select, view, instant)
    judged = rows.select("patient_id", "study_id", *(verdict.alias(f":{n}") for n, verdict in enumerate(verdicts)))
    kept, counts = pl.lit(True), _counts(0, pl.lit(True), pl.lit(False), pl.lit(False))
    for n in range(len(verdicts)):
        passes = kept & pl.col(f":{n}").fill_null(False)
        counts += _counts(n + 1, passes, kept & ~passes, kept & pl.col(f":{n}").is_null())
        kept = passes
    return judged.select(counts)


def _counts(n: int, kept: pl.Expr, removed: pl.Expr, removed_null: pl.Expr) -> list[pl.Expr]:
    numbers = (
        kept.cast(pl.UInt32).sum() if n else pl.len(),
        pl.col("patient_id").filter(kept).drop_nulls().n_unique(),
        pl.col("study_id").filter(kept).drop_nulls().n_unique(),
        removed.cast(pl.UInt32).sum(),
        removed_null.cast(pl.UInt32).sum(),
    )
    return [number.alias(f"{n}{name}") for number, name in zip(numbers, COUNTS, strict=True)]


def to_funnel(select: Select, row: pl.DataFrame) -> pl.DataFrame:
    """Return the row of counts as a frame: filter, resources, patients, studies, removed, removed_null."""
    steps = [ALL_ROWS, *map(to_python, select.filters)]
    return pl.DataFrame(
        {
            "filter": steps,
            **{name: [row[f"{n}{name}"].item() for n in range(len(steps))] for name in COUNTS},
        },
        schema={"filter": pl.String(), **dict.fromkeys(COUNTS, pl.Int64())},
    )


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
