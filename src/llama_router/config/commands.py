"""Whether the commands of a config could ever run, said at their places."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_router.config.fields import CommandCheck
from llama_router.config.plain import list_of, mapping_of
from llama_router.config.problems import Issue, Keys

_PORT = "$port"
_PID = "$pid"


def command_issues(content: Mapping[str, Any], check: CommandCheck) -> Iterator[Issue]:
    """Check the commands of plain content; of what is no command at all the schema tells.

    A command has to say ``$port``, unless the engine's address is fixed: its own, or that of the
    nearest layer below.
    """
    common = _address(content.get("default_spawn"))
    yield from _spawn(content.get("default_spawn"), ("default_spawn",), common, check)
    defaults, templates = mapping_of(content.get("defaults")), mapping_of(content.get("templates"))
    common = _address(defaults.get("spawn")) or common
    yield from _spawn(defaults.get("spawn"), ("defaults", "spawn"), common, check)
    for name, template in templates.items():
        spawn = mapping_of(template).get("spawn")
        yield from _spawn(spawn, ("templates", name, "spawn"), _address(spawn) or common, check)
    for index, model in enumerate(list_of(content.get("models"))):
        spawn = mapping_of(model).get("spawn")
        if not isinstance(spawn, dict):
            continue
        address = _address(spawn) or _of_templates(model, templates) or common
        yield from _spawn(spawn, ("models", index, "spawn"), address, check)


def _spawn(spawn: object, keys: Keys, address: str, check: CommandCheck) -> Iterator[Issue]:
    if not isinstance(spawn, dict):
        return
    needs_port = not address or _PORT in address
    # A check that asks for the port is content when there is one more argument that has it.
    command = _command(spawn.get("command"))
    if command:
        yield from _issue((*keys, "command"), command if needs_port else [*command, _PORT], check)
    stop_command = _command(spawn.get("stop_command"))
    if any("$parameters" in argument for argument in stop_command):
        message = "has no $parameters: they are those of the engine"
        yield Issue((*keys, "stop_command"), message)
    elif stop_command:
        said = [argument.replace(_PID, "pid") for argument in stop_command]
        yield from _issue((*keys, "stop_command"), [*said, _PORT], check)


def _issue(keys: Keys, command: Sequence[str], check: CommandCheck) -> Iterator[Issue]:
    try:
        check(command)
    except ValueError as error:
        yield Issue(keys, str(error))


def _command(value: object) -> list[str]:
    """Return the command; nothing for what is none."""
    words = list(list_of(value))
    return words if all(isinstance(word, str) for word in words) else []


def _of_templates(model: Mapping[str, Any], templates: Mapping[str, Any]) -> str:
    names = model.get("template", ())
    for name in reversed([names] if isinstance(names, str) else list(list_of(names))):
        template = templates.get(name) if isinstance(name, str) else None
        address = _address(mapping_of(template).get("spawn"))
        if address:
            return address
    return ""


def _address(spawn: object) -> str:
    address = mapping_of(spawn).get("address")
    return address if isinstance(address, str) else ""
