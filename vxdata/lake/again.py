"""Asking a store again whose answer broke off.

The clients below try most requests again by themselves, but not where a body broke while it was read (a listing, a
small object, a page of the log), and no request that they cannot know to be harmless. We know which are: what only
reads, and what is the same if it is done twice.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from vxdata.lake.faults import is_broken_answer

MOST_TRIES = 4
_FIRST_WAIT_SECONDS = 0.1

Answer = TypeVar("Answer")


def again(ask: Callable[[], Answer]) -> Answer:
    """Ask, and ask again if the answer broke; the last error is raised as it is.

    Args:
        ask: reads only, or does what is the same if it is done twice.
    """
    for tries in range(1, MOST_TRIES):
        try:
            return ask()
        except BaseException as error:  # a panic of a Rust library is no Exception
            if not is_broken_answer(error):
                raise
            time.sleep(_FIRST_WAIT_SECONDS * 2 ** (tries - 1))
    return ask()
