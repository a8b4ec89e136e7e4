"""The `vxdata` command: its subcommands, and the one table from errors to exit codes.

Heavy modules (Polars, the SDK) are imported inside the commands, so that `vxdata --help` is quick.
"""

import gc
import logging
import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from vxdata.errors import (
    AlreadyExistsError,
    CommitUnknownError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    VxDataError,
)
from vxdata_cli.change import CREATE_EXAMPLES, DELETE_EXAMPLES, UPDATE_EXAMPLES, create, delete, update
from vxdata_cli.commits import LOG_EXAMPLES, RESTORE_EXAMPLES, REVERT_EXAMPLES, log, restore, revert
from vxdata_cli.config import app as config_app
from vxdata_cli.demo import EXAMPLES, demo
from vxdata_cli.get import GET_EXAMPLES, HISTORY_EXAMPLES, TREE_EXAMPLES, get, history, tree
from vxdata_cli.ingest import app as ingest_app
from vxdata_cli.interrupt import INTERRUPTED, end_at_second_interrupt
from vxdata_cli.look import INFO_EXAMPLES, SCHEMA_EXAMPLES, info, schema
from vxdata_cli.maintain import COMPACT_EXAMPLES, ERASE_EXAMPLES, MAINTAIN_EXAMPLES, compact, erase, maintain
from vxdata_cli.options import Debug, Profile
from vxdata_cli.out import WarningsToOut, out
from vxdata_cli.query import FUNNEL_EXAMPLES, QUERY_EXAMPLES, funnel, query
from vxdata_cli.streams import ready_streams
from vxdata_cli.upkeep import VACUUM_EXAMPLES, VERIFY_EXAMPLES, snapshots_app, vacuum, verify

EXIT_CODES: tuple[tuple[type[VxDataError], int], ...] = (
    (InvalidInputError, 2),
    (NotFoundError, 3),
    (AlreadyExistsError, 4),
    (ConflictError, 4),
    (CommitUnknownError, 5),
    (StorageError, 6),
)
FAILED, PIPE_CLOSED = 1, 141
_AS_OPTIONS = {
    "client.commits.list()": "'vxdata log'",
    "missing='delete'": "--missing delete",
    "cascade=True (--cascade)": "--cascade",
}
"""How the command line spells what the errors of the SDK tell to write."""

app = typer.Typer(
    name="vxdata",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""Examples:

  $ vxdata demo
  $ vxdata ingest idc --collection prostatex
  $ vxdata ingest patients.csv volumes.parquet --dry-run
  $ vxdata update volume/p1/s1/1 --set volume_type=T2
  $ vxdata --profile lab config show
  $ vxdata query volumes --where "modality == 'MR' and slice_thickness < 3"
  $ vxdata get patient/BB00017
  $ vxdata verify

Exit codes: 0 done, 1 a bug, 2 wrong input, 3 not found, 4 conflict,
5 outcome of a commit unknown, 6 storage, 7 nothing to do, 8 a person is needed,
9 try again, 130 Ctrl-C, 141 the reader closed the pipe.""",
)
_PANELS = {
    "Load and change": ((create, CREATE_EXAMPLES), (update, UPDATE_EXAMPLES), (delete, DELETE_EXAMPLES)),
    "Ask": ((query, QUERY_EXAMPLES), (get, GET_EXAMPLES), (tree, TREE_EXAMPLES), (funnel, FUNNEL_EXAMPLES)),
    "Look": ((info, INFO_EXAMPLES), (schema, SCHEMA_EXAMPLES)),
    "The past, and undoing": (
        (history, HISTORY_EXAMPLES),
        (log, LOG_EXAMPLES),
        (restore, RESTORE_EXAMPLES),
        (revert, REVERT_EXAMPLES),
    ),
    "Upkeep": (
        (maintain, MAINTAIN_EXAMPLES),
        (compact, COMPACT_EXAMPLES),
        (vacuum, VACUUM_EXAMPLES),
        (verify, VERIFY_EXAMPLES),
        (erase, ERASE_EXAMPLES),
    ),
}
app.command(epilog=EXAMPLES, rich_help_panel="Look")(demo)
app.add_typer(ingest_app, rich_help_panel="Load and change")
app.add_typer(config_app, rich_help_panel="Look")
app.add_typer(snapshots_app, rich_help_panel="The past, and undoing")
for _panel, _commands in _PANELS.items():
    for _command, _examples in _commands:
        app.command(epilog=_examples, rich_help_panel=_panel)(_command)


def _show_version(asked: bool) -> None:
    if asked:
        from vxdata import __version__

        typer.echo(f"vxdata {__version__}")
        raise typer.Exit


@app.callback()
def root(
    profile: Profile = None,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """VxData: a versioned lakehouse for medical-imaging research."""


def main() -> None:
    """Run the command line, and turn whatever ends it into one sentence and an exit code."""
    ready_streams()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for them reads all installed packages
    gc.set_threshold(500_000, 20, 20)  # imports make many objects and no garbage: a fifth of the start-up time
    _leave_out_other_commands()
    end_at_second_interrupt()
    logging.getLogger("vxdata").addHandler(WarningsToOut())
    _end_at_once(_run())


def _leave_out_other_commands() -> None:
    """Register one command alone if the first argument names it: typer builds all options of all commands."""
    asked = [c for c in app.registered_commands if c.callback and [c.callback.__name__] == sys.argv[1:2]]
    if asked:
        app.registered_commands, app.registered_groups = asked, []


def _run() -> int:
    """Run the command that the arguments name; return the exit code."""
    try:
        app(prog_name="vxdata")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            out.note("Interrupted. What was committed stays; the same command goes on from there.")
        if isinstance(end.__context__, BrokenPipeError):  # typer ends with 1, which is a bug's code
            return PIPE_CLOSED
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except Exception as error:  # noqa: BLE001  # the last line of defence; --debug shows the traceback
        return report(error)
    return 0


def _end_at_once(code: int) -> NoReturn:
    """End the process without taking it apart piece by piece, which with Polars loaded takes as long as a look-up.

    Nothing waits for it: files are closed and synced where they are written, temporary folders are removed by then.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # a reader who is gone has seen enough
        code = code or PIPE_CLOSED
    except OSError as error:
        out.error(f"the output cannot be written: {error.strerror or error}.")
        code = code or dict(EXIT_CODES)[StorageError]
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _as_options(text: str) -> str:
    for python, option in _AS_OPTIONS.items():
        text = text.replace(python, option)
    return text


def report(error: Exception) -> int:
    """Say in one sentence what went wrong, and return the exit code."""
    if out.debug:
        out.traceback(error)
    if isinstance(error, VxDataError):
        out.error(_as_options(str(error)))
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        out.error(f"the system refused it: {named}{error.strerror or error}.")
        return dict(EXIT_CODES)[StorageError]
    remedy = "Please report it." if out.debug else "Run the same command with --debug and report what it shows."
    out.error(f"this is a bug in VxData: {type(error).__name__}: {error}. {remedy}")
    return FAILED
