"""How many clients this process can serve: a question of file descriptors."""

import sys

# Engines' pipes, listening sockets, logs, spooled bodies, libraries: not for clients.
RESERVED_COUNT = 256
# A client costs its own connection, one to an engine, and now and then a file.
_PER_CLIENT_COUNT = 3
# Enough for any household; "unlimited" must not become a table of a billion entries.
_MAX_LIMIT_COUNT = 1 << 20
# macOS refuses more than OPEN_MAX even where the hard limit says "unlimited".
_MACOS_LIMIT_COUNT = 10_240
_WINDOWS_CLIENTS_COUNT = 4_000
_MIN_CLIENTS_COUNT = 16
_IS_MACOS = sys.platform == "darwin"


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; return what it is then."""
    if sys.platform == "win32":
        limit = RESERVED_COUNT + _PER_CLIENT_COUNT * _WINDOWS_CLIENTS_COUNT
    else:
        limit = _raise_posix_limit(_MACOS_LIMIT_COUNT if _IS_MACOS else _MAX_LIMIT_COUNT)
    return limit


if sys.platform != "win32":
    import resource

    def _raise_posix_limit(most: int) -> int:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
        if soft == resource.RLIM_INFINITY:
            return most
        if wanted <= soft:
            return soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            return soft
        return wanted


def client_count(limit_count: int, configured_count: int) -> int:
    """Return how many clients may be connected; ``configured_count`` 0 means as many as fit."""
    fitting = max(_MIN_CLIENTS_COUNT, (limit_count - RESERVED_COUNT) // _PER_CLIENT_COUNT)
    return min(configured_count, fitting) if configured_count else fitting
