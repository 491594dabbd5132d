"""Who asks: what a request's head says of its place among those who wait."""

from fnmatch import fnmatchcase

import msgspec

INFERENCE = "inference"
ADMIN = "admin"
ALL_SCOPES = (INFERENCE, ADMIN)


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Whose request it is. ``key`` is the API key's name, never the key itself.

    The higher ``priority`` goes first; among equals, who is not ``is_batch``. ``scopes`` is what it
    opens; ``models`` are patterns of the models that it may use (none: any). Of the limits, 0 is
    none.
    """

    key: str = ""
    priority: int = 0
    is_batch: bool = False
    scopes: tuple[str, ...] = ALL_SCOPES
    models: tuple[str, ...] = ()
    requests_per_minute: int = 0
    max_in_flight: int = 0

    def may_use(self, *names: str) -> bool:
        """Tell whether a model that goes by these names is one of those that the key is for."""
        return not self.models or any(
            fnmatchcase(name, pattern) for name in names if name for pattern in self.models
        )


ANYBODY = Caller()
