"""The one output sink: results go to stdout, everything else to stderr.

Three ways to speak: for people (tables, colours on a terminal), as JSON, or quietly. Only this module writes.
"""

import base64
import json
import logging
import math
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Begin = Callable[[str], None]
"""Says what is being done from now on; whatever was being done before is then done.

A text that differs only after its last ": " tells how far the same step is.
"""


class Out:
    """Where a command speaks.

    Attributes:
        as_json: results are JSON on stdout.
        quiet: only errors and warnings are shown (and JSON, where asked for).
        shows_progress: long work says what it does, if stderr is a terminal.
        debug: an error comes with its traceback.
        is_asking: a question waits for its answer.
    """

    def __init__(self) -> None:
        self.as_json, self.quiet, self.shows_progress, self.debug = False, False, True, False
        self.is_asking = False

    @cached_property
    def _stdout(self) -> "Console":
        from vxdata_cli.console import SafeConsole

        return SafeConsole(highlight=False, markup=False, emoji=False)

    @cached_property
    def _stderr(self) -> "Console":
        from vxdata_cli.console import SafeConsole

        return SafeConsole(stderr=True, highlight=False, markup=False, emoji=False)

    def result(self, document: Any, *shown: "RenderableType") -> None:
        """Give a command's result: the document as JSON, or what people see of it."""
        if self.as_json:
            self._write_json(document)
        else:
            self.show(*shown)

    def text(self, document: Any, text: str) -> None:
        """Give a command's result: the document as JSON, or lines of text that are never broken."""
        if self.as_json:
            self._write_json(document)
        else:
            self.show_verbatim(text)

    def _write_json(self, document: Any) -> None:
        sys.stdout.write(json.dumps(to_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.flush()

    @property
    def width(self) -> int:
        """How many columns stdout has."""
        return self._stdout.width

    def show(self, *shown: "RenderableType") -> None:
        """Show something to people."""
        if not self.quiet and not self.as_json:
            for part in shown:
                self._stdout.print(part)

    def ask(self, *shown: "RenderableType") -> None:
        """Show, beside a result, what a question is about."""
        for part in shown:
            self._stderr.print(part)

    def show_verbatim(self, text: str) -> None:
        """Show text whose lines are never broken, so that it can be copied."""
        if not self.quiet and not self.as_json:
            sys.stdout.write(text + "\n")  # without rich, whose import takes as long as a look-up
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell people something on the side."""
        if not self.quiet:
            self._tell("Note", "yellow", text)

    def warning(self, text: str) -> None:
        """Tell people what they must not miss, also where only errors are shown."""
        self._tell("Warning", "bold yellow", text)

    def error(self, text: str) -> None:
        """Say what went wrong."""
        self._tell("Error", "bold red", text)

    def traceback(self, error: BaseException) -> None:
        """Show where an error came from; plain, without the values of variables."""
        with suppress(BrokenPipeError):
            self._stderr.print("".join(traceback.format_exception(error)).rstrip(), soft_wrap=True)

    def confirm(self, question: str) -> None:
        """Ask people, on stderr, whether to go on; if not, the command ends here.

        Raises:
            InvalidInputError: nobody is there to answer.
        """
        import typer

        from vxdata.errors import InvalidInputError

        if not sys.stdin.isatty():
            raise InvalidInputError("nobody is at the terminal to confirm it; pass --yes to do it without asking.")
        signal.siginterrupt(signal.SIGINT, True)  # Polars lets what is interrupted go on waiting
        self.is_asking = True
        try:
            is_wanted = typer.confirm(question, err=True)
        except typer.Abort as end:
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            self.is_asking = False
        if not is_wanted:
            self.note("Nothing was written.")
            raise typer.Exit(1)

    def restore_terminal(self) -> None:
        """Show the cursor again, which a list of steps hides."""
        self._stderr.show_cursor(True)

    def _tell(self, word: str, style: str, text: str) -> None:
        from rich.text import Text

        line = Text.assemble((f"{word}:", style), " ", text)
        with suppress(BrokenPipeError):  # what nobody reads is no reason to stop
            self._stderr.print(line, soft_wrap=not self._stderr.is_terminal)

    @contextmanager
    def steps(self) -> Iterator[Begin]:
        """Show the steps of long work as a list that grows, each with its time; only on a terminal."""
        if self.quiet or not self.shows_progress or not self._stderr.is_interactive:
            yield lambda text: None
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn

        spinner = SpinnerColumn(finished_text="[green]✓")
        texts = (TextColumn("{task.description}", markup=False), TextColumn("{task.elapsed:.1f} s"))
        with Progress(spinner, *texts, console=self._stderr) as progress:

            def begin(text: str) -> None:
                if any(_step(task.description) == _step(text) for task in progress.tasks[-1:]):
                    progress.update(progress.tasks[-1].id, description=text)
                    return
                finish()
                progress.add_task(text, total=1)

            def finish() -> None:
                for task in progress.tasks[-1:]:
                    progress.stop_task(task.id)
                    progress.update(task.id, completed=1)

            try:
                yield begin
            except BaseException:
                for task in progress.tasks[-1:]:
                    progress.update(task.id, description=f"{task.description}: stopped")
                raise
            finish()
        self._stderr.print()


def _step(text: str) -> str:
    """Return which step a text is about; what stands after a colon says how far it is."""
    return text.rpartition(": ")[0] or text


out = Out()


def to_plain(value: Any) -> Any:
    """Return a value as JSON can hold it: instants in ISO 8601, bytes in base64, decimals as text, no infinities."""
    match value:
        case dict():
            return {str(name): to_plain(item) for name, item in value.items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case Enum():
            return to_plain(value.value)
        case date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal():
            return str(value)
    return value


class WarningsToOut(logging.Handler):
    """Passes the library's warnings on to the sink."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        out.note(record.getMessage())
