"""Rich's console, on which no name of a file or a lake can command the terminal."""

import errno
import os
from collections.abc import Iterable
from typing import NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from vxdata_cli.shown import escaped


class SafeConsole(Console):
    """A console that shows the control characters of what it is given as text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=_escaped_lines(segment.text))

    def on_broken_pipe(self) -> NoReturn:
        """Tell the caller that nobody reads on, instead of ending the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _escaped_lines(text: str) -> str:
    return "\n".join(map(escaped, text.split("\n")))
