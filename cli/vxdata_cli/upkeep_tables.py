"""What upkeep says: reports as JSON documents, and as tables and text for people."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

    from vxdata.lake.erase import Erasure
    from vxdata.lake.kept import KeptSnapshot
    from vxdata.lake.vacuum import VacuumReport
    from vxdata.lake.verify import VerifyReport
    from vxdata.sdk.maintain import MaintainReport
    from vxdata.sdk.upkeep import CompactionReport

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
_MOST_FINDINGS = 50


def records_of(frame: "pl.DataFrame") -> list[dict[str, Any]]:
    """Return a frame's rows for JSON; instants as ISO 8601."""
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]


def vacuum_document(report: "VacuumReport") -> dict[str, Any]:
    """Return a vacuum's report for JSON."""
    return {
        "dry_run": report.is_dry_run,
        "retention_hours": report.retention.total_seconds() / 3600,
        "count": report.count,
        "bytes": report.bytes,
        "files": records_of(report.files),
    }


def vacuum_table(report: "VacuumReport") -> list[Table]:
    """Return what goes and what is left, summed up by folder and reason; nothing if there is nothing."""
    if report.files.is_empty():
        return []
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("namespace", "why", "action"):
        table.add_column(name)
    for name in ("files", "MB"):
        table.add_column(name, justify="right")
    groups = report.files.group_by("namespace", "why", "action", maintain_order=True)
    for (namespace, why, action), files in groups:
        table.add_row(
            str(namespace), str(why), str(action), f"{files.height:,}", f"{int(files['bytes'].sum()) / 1e6:,.1f}"
        )
    return [table]


def verify_document(report: "VerifyReport") -> dict[str, Any]:
    """Return a check's report for JSON."""
    return {"ok": report.ok, "checked": report.checked, "findings": records_of(report.findings)}


def findings_text(report: "VerifyReport") -> list[Text]:
    """Return the findings as paragraphs, the worst first, then the verdict."""
    texts = [_paragraph(row) for row in report.findings.head(_MOST_FINDINGS).iter_rows(named=True)]
    rest = report.findings.height - _MOST_FINDINGS
    if rest > 0:
        texts.append(Text(f"and {rest:,} more findings; --json gives all of them.\n"))
    looked = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in report.checked.items())
    verdict = "The lake is whole" if report.ok else "A person is needed"
    return [*texts, Text.assemble((f"{verdict}.", "bold"), f" Checked: {looked or 'nothing is there yet'}.")]


def _paragraph(row: dict[str, Any]) -> Text:
    return Text.assemble(
        (f"{row['severity']}: ", _STYLES[row["severity"]]),
        (f"{row['kind']}", "bold"),
        f" {row['subject']}\n  {row['detail']}\n  What to do: {row['remedy']}.\n",
    )


def snapshot_document(kept: "KeptSnapshot") -> dict[str, Any]:
    """Return a kept snapshot for JSON."""
    return {
        "name": kept.name,
        "token": kept.token,
        "author": kept.author,
        "reason": kept.reason,
        "kept_at": kept.kept_at.isoformat(),
        "tables": kept.tables,
    }


def compaction_document(report: "CompactionReport") -> dict[str, Any]:
    """Return a compaction's report for JSON."""
    return {
        "commit_id": report.commit_id,
        "rounds": records_of(report.rounds),
        "checkpoints": report.checkpoints,
        "trimmed": report.trimmed,
    }


def compaction_table(report: "CompactionReport") -> list[Table | str]:
    """Return what was folded, summed up by table, and what became of the logs."""
    if not report.is_changed:
        return ["Nothing to do: no partition wants folding."]
    parts: list[Table | str] = []
    if report.rounds.height:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        table.add_column("namespace")
        for name in ("datasources", "files", "rows", "folded", "MB"):
            table.add_column(name, justify="right")
        for (namespace,), rounds in report.rounds.group_by("namespace", maintain_order=True):
            sums = rounds.sum().row(0, named=True)
            files = f"{sums['files_before']:,} → {sums['files_after']:,}"
            size = f"{sums['bytes_before'] / 1e6:,.1f} → {sums['bytes_after'] / 1e6:,.1f}"
            count = f"{rounds['datasource_id'].n_unique():,}"
            table.add_row(str(namespace), count, files, f"{sums['rows']:,}", f"{sums['folded']:,}", size)
        parts.append(table)
    trimmed = sum(report.trimmed.values())
    told = f"Checkpoints: {len(report.checkpoints)}. Log entries trimmed: {trimmed:,}."
    return [*parts, told]


def maintain_document(report: "MaintainReport") -> dict[str, Any]:
    """Return a maintenance's report for JSON."""
    return {
        "outcome": report.outcome,
        "compaction": compaction_document(report.compaction),
        "vacuum": None if report.vacuum is None else vacuum_document(report.vacuum),
        "verify": None if report.verify is None else verify_document(report.verify),
    }


def maintain_text(report: "MaintainReport") -> list[Table | Text | str]:
    """Return what a maintenance did."""
    parts: list[Table | Text | str] = [*compaction_table(report.compaction)]
    if report.vacuum is not None:
        parts.append(f"Vacuum deleted {report.vacuum.count:,} files, {report.vacuum.bytes / 1e6:,.1f} MB.")
    parts += ["The check was not due."] if report.verify is None else findings_text(report.verify)
    return [*parts, Text(f"Outcome: {report.outcome}.", style="bold")]


def erasure_document(report: "Erasure") -> dict[str, Any]:
    """Return an erasure, or its plan, for JSON."""
    return {
        "dry_run": report.is_dry_run,
        "record_id": report.record_id,
        "tables": records_of(report.tables),
        "kept_snapshots": report.kept_snapshots,
        "pointing": records_of(report.pointing),
        "blobs": report.blobs,
        "out_of_reach": report.out_of_reach,
        "left": report.left,
    }


def erasure_plan(plan: "Erasure") -> list[Table | Text]:
    """Return what an erasure would remove."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("namespace")
    for name in ("resources", "versions", "rows", "live files", "old files"):
        table.add_column(name, justify="right")
    for row in plan.tables.iter_rows(named=True):
        numbers = (row[name] for name in ("resources", "versions", "rows", "live_files", "old_files"))
        table.add_row(row["namespace"], *(f"{number:,}" for number in numbers))
    lists = (
        ("Kept snapshots that will not open any more", plan.kept_snapshots),
        ("Resources that point there, and lose the reference", tuple(plan.pointing["identifier"])),
        ("Blobs, which are not deleted", plan.blobs),
        ("Out of reach", plan.out_of_reach),
    )
    return [table, *(_listing(title, some) for title, some in lists if some)]


def _listing(title: str, names: tuple[str, ...], most: int = 10) -> Text:
    rest = [f"and {len(names) - most:,} more; --json gives all of them"] if len(names) > most else []
    return Text("\n  ".join([f"{title}:", *names[:most], *rest]))


def erasure_text(report: "Erasure") -> list[Text]:
    """Return how an erasure ended."""
    if report.left:
        return [_listing("A person is needed; this still tells of it", report.left)]
    return [Text.assemble(("Erased.", "bold"), f" No file tells of it. The record is {report.record_id}.")]
