"""Standard streams that serve however the caller left them."""

import os
import sys
from io import TextIOWrapper


def ready_streams() -> None:
    """Open closed streams on /dev/null, and let a terminal without Unicode show '?' where it lacks a character.

    A stream that stayed closed would leave its number to the next file that is opened, which may be one of the lake's.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # to the end of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
