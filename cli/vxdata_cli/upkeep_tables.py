"""What upkeep says: reports as JSON documents, and as tables and text for people."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

    from vxdata.lake.kept import KeptSnapshot
    from vxdata.lake.vacuum import VacuumReport
    from vxdata.lake.verify import VerifyReport

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
