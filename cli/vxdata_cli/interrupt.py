"""Ctrl-C that always works: Python acts on it only between calls, and a call to a store that hangs takes its time."""

import os
import signal
import threading
import time

from vxdata_cli.out import out

INTERRUPTED = 130
_PATIENCE_SECONDS = 1.0
_BREAKING_OFF_SECONDS = 0.3


def end_at_second_interrupt() -> None:
    """Let a second Ctrl-C end the process at once. A commit that it cuts off is there as a whole, or not at all."""
    arrived, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(arrived,), daemon=True).start()


def _watch(arrived: int) -> None:
    _wait_for_interrupt(arrived)
    _end_a_question()
    hint = threading.Timer(_PATIENCE_SECONDS, out.note, ["still waiting for an answer; Ctrl-C again ends it at once."])
    hint.daemon = True
    hint.start()
    _wait_for_interrupt(arrived)
    out.restore_terminal()
    os._exit(INTERRUPTED)


def _end_a_question() -> None:
    """End the process if it still waits for an answer: a signal just before the wait begins does not break it off."""
    if out.is_asking:
        time.sleep(_BREAKING_OFF_SECONDS)
    if out.is_asking:
        out.ask("")  # the cursor stands behind the question
        out.note("Interrupted. Nothing was written.")
        os._exit(INTERRUPTED)


def _wait_for_interrupt(arrived: int) -> None:
    while os.read(arrived, 1) != bytes([signal.SIGINT]):
        pass
