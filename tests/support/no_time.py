"""A time that is none, as pandas has it, without pandas."""

from datetime import datetime


class NotATime(datetime):
    """A datetime that equals nothing, itself included, as pandas' NaT."""

    __hash__ = datetime.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True


NAT = NotATime(1, 1, 1)
