"""`vxdata compact`, `vxdata maintain`, `vxdata erase`: what rewrites files; only an erasure changes answers."""

from typing import TYPE_CHECKING, Annotated

import typer

from vxdata_cli.complete import complete_identifiers, complete_types
from vxdata_cli.jobs import exit_code_of, job_log
from vxdata_cli.options import Debug, Json, NoProgress, Profile, Quiet, Reason, Uri
from vxdata_cli.out import out
from vxdata_cli.upkeep import A_PERSON_IS_NEEDED

if TYPE_CHECKING:
    from vxdata.lake.compact import Folded

COMPACT_EXAMPLES = """Examples:

  $ vxdata compact
  $ vxdata compact volumes patients --datasource datasource/prostatex
  $ vxdata compact --uri s3://bucket/lake --json"""
MAINTAIN_EXAMPLES = """Examples:

  $ vxdata maintain
  $ vxdata maintain --uri s3://bucket/lake --json 2>> maintain.log

Exit codes: 0 done, 7 nothing to do, 8 a person is needed, 9 try again."""
ERASE_EXAMPLES = """Examples:

  $ vxdata erase patient/BB00017 --reason "consent withdrawn"
  $ vxdata erase patient/BB00017 --reason "consent withdrawn" --yes

Exit codes: 0 done, 8 a person is needed: something still tells of it."""


def compact(
    types: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAMESPACE]...",
            autocompletion=complete_types,
            help="The tables (default: all).",
            show_default=False,
        ),
    ] = None,
    datasource: Annotated[
        list[str] | None,
        typer.Option(
            "--datasource",
            metavar="IDENTIFIER",
            autocompletion=complete_identifiers,
            help="Only what is of this datasource; repeatable.",
        ),
    ] = None,
    reason: Reason = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Fold updates and deletes into sorted files, so that reading stays fast. No answer changes.

    It runs beside writers and other compactions, makes checkpoints, and trims
    the log of what is older than 30 days. A second run finds nothing to do.
    """
    from vxdata.sdk import Client
    from vxdata_cli.ask import namespace_name
    from vxdata_cli.upkeep_tables import compaction_document, compaction_table

    client, names = Client(uri), [namespace_name(word) for word in types or ()]
    with out.steps() as begin:
        begin("look for what wants folding")

        def folded(round_: "Folded") -> None:
            begin(
                f"{round_.namespace}, {round_.datasource_id}: {round_.files_before} files became {round_.files_after}"
            )

        report = client.compact(*names, datasources=datasource, reason=reason, progress=folded)
    out.result(compaction_document(report), *compaction_table(report))


def maintain(
    reason: Reason = None,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Do what is due: compaction, checkpoints, trimming, vacuum, a check of the lake. For a scheduler.

    What is due is said by the section [maintain] of vxdata.toml; `vxdata config
    show` tells which file that is. Safe to run twice at once. On stderr each
    step is a line of JSON, with -q only a failure; the report goes to stdout.
    """
    from vxdata.sdk import Client
    from vxdata.sdk.settings import find_settings
    from vxdata_cli.jobs import policy_of
    from vxdata_cli.upkeep_tables import maintain_document, maintain_text

    policy = policy_of(find_settings())
    client = Client(uri)
    with job_log() as event:
        report = client.maintain(policy, reason=reason, event=event)
    out.result(maintain_document(report), *maintain_text(report))
    raise typer.Exit(exit_code_of(report.outcome))


def erase(
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="IDENTIFIER",
            autocompletion=complete_identifiers,
            help="What is to be erased.",
            show_default=False,
        ),
    ],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept, so it must not name the resource.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Erase without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    uri: Uri = None,
    profile: Profile = None,
    as_json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Remove every version of a resource and of all its descendants, its past included. It cannot be undone.

    The plan is shown first. It takes two minutes or more, because writers that are
    under way are waited for. A run that was killed goes on when it is run again.
    """
    from vxdata.sdk import Client
    from vxdata_cli.upkeep_tables import erasure_document, erasure_plan, erasure_text

    client = Client(uri)
    plan = client.erase(identifier, reason=reason)
    if dry_run:
        out.result(erasure_document(plan), *erasure_plan(plan))
        return
    if not (yes and quiet):
        out.ask(*erasure_plan(plan))
    if not yes:
        out.confirm(f"Erase {identifier} and all this for good?")
    with out.steps() as begin:
        done = client.erase(identifier, reason=reason, dry_run=False, progress=begin)
    out.result(erasure_document(done), *erasure_text(done))
    if done.left:
        raise typer.Exit(A_PERSON_IS_NEEDED)
