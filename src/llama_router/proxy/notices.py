"""What a waiting client reads in its own stream."""

from llama_router.core.commands import NoticeKind


def notice_text(
    kind: NoticeKind, model: str, fraction: float | None, position: int | None = None
) -> str:
    """Return one line. A percentage stands there when it is known how far loading has come.

    As the engine says, or elapsed against what its last load took. ``position``: of who waits,
    from 1.
    """
    if kind is NoticeKind.QUEUED:
        return f"[llama-router] Waiting for {model}: position {position or 1}\n"
    if kind is NoticeKind.UNLOADING:
        return f"[llama-router] Unloading {model}\n"
    if kind is NoticeKind.READY:
        return f"[llama-router] {model} is ready\n"
    if fraction is None:
        return f"[llama-router] Loading {model}\n"
    # Rounded to what a float can tell first: 0.57 * 100 is a little less than 57.
    percent = int(round(fraction * 100, 6))
    return f"[llama-router] Loading {model}: {percent} %\n"
