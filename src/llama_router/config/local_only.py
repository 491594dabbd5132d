"""What only somebody who can write the config file may change, and the API never.

Whoever has the admin token may decide how models are run, and not what: no program, no file, no
address and no key can be put in over the network, nor a protection be taken away.
"""

from typing import Any

from llama_router.config.macros import has_macro
from llama_router.config.plain import texts_of
from llama_router.config.problems import Keys, format_keys

_SPAWNS: tuple[tuple[str, ...], ...] = (
    ("default_spawn",),
    ("defaults", "spawn"),
    ("templates", "*", "spawn"),
    ("models", "*", "spawn"),
)
# Options of programs are checked where models are configured, which knows what each is.
_PARAMETERS: tuple[tuple[str, ...], ...] = (
    ("defaults", "parameters"),
    ("templates", "*", "parameters"),
    ("models", "*", "parameters"),
)
LOCAL_ONLY: tuple[tuple[str, ...], ...] = (
    ("version",),
    ("macros",),
    ("defaults", "macros"),
    ("templates", "*", "macros"),
    ("models", "*", "macros"),
    ("models", "*", "path"),
    ("models", "*", "mmproj"),
    *_SPAWNS,
    *_PARAMETERS,
    ("router", "host"),
    ("router", "port"),
    ("router", "base_port"),
    ("router", "admin_token"),
    ("router", "api_keys"),
    ("router", "allowed_hosts"),
    ("router", "allow_public_without_keys"),
    ("router", "models_dirs"),
    ("router", "upstream_ignore_paths"),
    ("router", "history_prompts"),
    ("peers",),
    ("hub", "endpoint"),
    ("hub", "token"),
    ("hub", "offline"),
    ("hub", "allowed_hosts"),
)
"""Places, ``*`` for any name or index, with all that is below them."""


class LocalOnlyError(ValueError):
    """A change that takes the file itself; the text names the place."""


def refuse_change(path: Keys, value: Any, *, is_removal: bool) -> None:  # noqa: ANN401 - any value of a config
    """Raise LocalOnlyError for a change that the API may not make.

    A section is refused as a whole where a part of it is: what is not in the new one would be taken
    away. An entry of ``models`` can be removed, and what it has can be set one by one.
    """
    is_entry = len(path) == 2 and path[0] == "models"  # noqa: PLR2004 - models and one of its items
    for place in LOCAL_ONLY:
        is_within = _begins_with(path, place)
        is_around = len(path) < len(place) and _begins_with(place[: len(path)], path)
        if is_within or (is_around and not (is_entry and is_removal)):
            message = f"{format_keys(path)} can only be changed in the file itself"
            if not is_within:
                message += f", as {place[-1]} is part of it; set what is in it one by one"
            elif place in _PARAMETERS:
                message += "; those of a model with PATCH /admin/models, too"
            raise LocalOnlyError(message)
    # A name that is not there yet becomes the value of a new entry.
    names = ((path, key) for key in path if isinstance(key, str) and key.startswith("name="))
    for keys, text in (*names, *texts_of(value, path)):
        if has_macro(text):
            raise LocalOnlyError(
                f"{format_keys(keys)} has a ${{macro}}, which only the file itself may have;"
                " write $${ for a plain ${"
            )


def _begins_with(keys: Keys, start: Keys) -> bool:
    if len(keys) < len(start):
        return False
    return all("*" in (one, other) or one == other for one, other in zip(keys, start, strict=False))
