"""llama-server's usual command with options that are no settings of their own."""

from llama_router.config.schema import DEFAULT_COMMAND

_MODEL = "--model"
_NO_PROJECTOR = "--no-mmproj-auto"
_PROJECTOR = "--mmproj"


def with_options(
    shared: tuple[str, ...], own: tuple[str, ...], hub: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Give the command with the options of all models, then those of one.

    A model that is to have no projector is not given the one that is found, either. ``hub``: the
    options by which the engine finds its file itself, in the hub's cache or at the hub.
    """
    command = list(DEFAULT_COMMAND)
    without = [_MODEL] if hub else []
    if _NO_PROJECTOR in (*shared, *own):
        without.append(_PROJECTOR)
    for option in without:
        place = command.index(option)
        del command[place : place + 2]
    return (*command, *hub, *shared, *own)
