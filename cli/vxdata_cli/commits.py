"""`vxdata log`, `vxdata restore` and `vxdata revert`: what was done to a lake, and undoing it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vxdata_cli.complete import complete_identifiers, complete_types
from vxdata_cli.options import Debug, Json, NoProgress, Profile, Quiet, Reason, Uri
from vxdata_cli.out import out

if TYPE_CHECKING:
    import polars as pl

    from vxdata.lake.restore import RestoreReport
    from vxdata.lake.revert import RevertReport

LOG_EXAMPLES = """Examples:

  $ vxdata log
  $ vxdata log --limit 5 --namespace volumes
  $ vxdata log --uri s3://bucket/lake --limit 1000 --json"""

RESTORE_EXAMPLES = """Examples:

  $ vxdata restore patient/BB00017 --reason "deleted by mistake"
  $ vxdata restore volume/BB00017/001/t2 --uri s3://bucket/lake --json"""

REVERT_EXAMPLES = """Examples:

  $ vxdata revert 6f1e0c3a9d5b4f0e8a7c2d1b3e4f5a6b
  $ vxdata revert 6f1e0c3a9d5b4f0e8a7c2d1b3e4f5a6b --reason "wrong file" --yes"""


def log(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show the newest N commits.")] = 20,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            metavar="NAME",
            autocompletion=complete_types,
            help="Only those of one type, such as volumes.",
        ),
    ] = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the commits of a lake, newest first: when, who, what, how much and why.

    An operation over several types has one id, and a line for each type.
    """
    from vxdata.sdk import Client
    from vxdata_cli.ask import namespace_name
    from vxdata_cli.tables import commit_lines

    only = None if namespace is None else namespace_name(namespace)
    commits = Client(uri).commits.list(only, limit=limit)
    out.text({"commits": _records(commits)}, commit_lines(commits))


def restore(
    identifier: Annotated[
        str, typer.Argument(metavar="IDENTIFIER", autocompletion=complete_identifiers, help="The deleted resource.")
    ],
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring back a deleted resource, and the descendants that the same delete closed.

    They come back with their last content, as new versions. What was created
    again meanwhile stays as it is.
    """
    from vxdata.sdk import Client
    from vxdata_cli.tables import count_table, frame_table

    client = Client(uri)
    with out.steps() as begin:
        begin(f"restore {identifier}")
        report = client.resources.restore(identifier, reason=reason)
    left_out = [frame_table(report.left_out)] if report.left_out.height else []
    shown = count_table(f"{identifier} in {client.uri}", {"restored": report.restored})
    out.result(_restored(client.uri, report), shown, *left_out)


def revert(
    commit_id: Annotated[str, typer.Argument(metavar="COMMIT_ID", help="The operation, as 'vxdata log' shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    uri: Uri = None,
    profile: Profile = None,
    reason: Reason = None,
    as_json: Json = False,
    no_progress: NoProgress = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Undo one operation in all its types, as new versions; the history stays.

    What it made is deleted, what it updated gets its values of before, what it
    deleted comes back. Refused if any of it was changed since. What would be
    done is shown first.
    """
    from vxdata.sdk import Client

    client = Client(uri)
    if not yes:
        with out.steps() as begin:
            begin("look at what it did")
            planned = client.commits.revert(commit_id, dry_run=True)
        if planned.refused.is_empty():
            out.ask(_counts(f"To revert {commit_id} in {client.uri}", planned))
            out.confirm("Revert it?")
    with out.steps() as begin:
        begin(f"revert {commit_id}")
        report = client.commits.revert(commit_id, reason=reason)
    out.result(_reverted(client.uri, commit_id, report), _counts(f"Reverted {commit_id} in {client.uri}", report))


def _counts(title: str, report: "RevertReport") -> Any:
    from vxdata_cli.tables import count_table

    return count_table(title, {"created": report.created, "updated": report.updated, "deleted": report.deleted})


def _records(commits: "pl.DataFrame") -> list[dict[str, Any]]:
    rows = commits.rows(named=True)
    return [row | {"committed_at": row["committed_at"] and row["committed_at"].isoformat()} for row in rows]


def _restored(lake: str, report: "RestoreReport") -> dict[str, Any]:
    left_out = report.left_out.rows(named=True)
    return {"lake": lake, "restored": report.restored, "left_out": left_out, "commit_id": report.commit_id}


def _reverted(lake: str, commit_id: str, report: "RevertReport") -> dict[str, Any]:
    counts = {"created": report.created, "updated": report.updated, "deleted": report.deleted}
    return {"lake": lake, "reverted": commit_id, **counts, "commit_id": report.commit_id}
