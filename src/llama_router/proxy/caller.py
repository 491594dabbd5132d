"""Who asks: what a request's head says of its place among those who wait."""

import msgspec


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Whose request it is. ``key`` is the API key's name, never the key itself.

    The higher ``priority`` goes first; among equals, who is not ``is_batch``.
    """

    key: str = ""
    priority: int = 0
    is_batch: bool = False


ANYBODY = Caller()
