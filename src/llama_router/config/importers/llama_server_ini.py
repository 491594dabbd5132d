"""llama-server's preset file (``--models-preset``, an ``.ini``) as a config of ours.

The syntax is that of llama.cpp's ``common/preset.cpp``: sections are models, ``[*]`` is for all of
them, what stands before any section is a model called ``default``. Keys are options by any of
their names, or by their variables; a value ends where a comment begins, as there are no quotes.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_router.config.importers.llama_server_command import with_options
from llama_router.config.importers.llama_server_options import Option, find_option
from llama_router.config.importers.report import Fate
from llama_router.config.importers.source import Native, Source
from llama_router.config.problems import (
    ConfigError,
    Issue,
    Keys,
    Problem,
    format_keys,
    shortened,
)

FORM = "llama-server preset"
ALL_MODELS = "*"
UNNAMED = "default"
# llama-server's own.
STOP_TIMEOUT_S = 10

_SECTION = re.compile(r"\[([^\]]+)\][ \t]*(?:[;#].*)?")
_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*([^;#]*)")
_TRUTHS = {
    **dict.fromkeys(("on", "enabled", "true", "1"), True),
    **dict.fromkeys(("off", "disabled", "false", "0"), False),
}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WITH_TAG = re.compile(r"(?P<repo>[^:\s]+/[^:\s]+):(?P<tag>[^:\s]+)")

# What llama-server takes away from the models' own sections, as it decides it itself.
_RESERVED = {
    "host": "router.host is the address of all models",
    "port": "each engine gets a free port",
    "api-key": "router.api_keys are the keys of all models",
    "api-key-file": "router.api_keys are the keys of all models",
    "log-file": "engines' logs are kept by the router",
    "log-colors": "engines' logs are kept by the router",
    "models-dir": "router.models_dirs are the folders with models",
    "models-max": "router.max_loaded is how many models are loaded",
    "models-preset": "a preset cannot name another",
    "models-autoload": "models are always loaded when they are asked for",
    "ssl-key-file": "the router speaks plain HTTP",
    "ssl-cert-file": "the router speaks plain HTTP",
    "model-url": "download the file, and give its path as model",
    "docker-repo": "download the file, and give its path as model",
    "reuse-port": "each engine gets a free port",
    "tools": "tools run commands; give the model a command of its own to have them",
    "log-disable": "engines' logs are kept by the router",
    "log-jsonl": "engines' logs are kept by the router",
    "log-prefix": "engines' logs are kept by the router",
    "log-timestamps": "engines' logs are kept by the router",
    "offline": "hub.offline keeps everything offline",
    "hf-token": "hub.token, or HF_TOKEN, is the secret of all downloads",
}
# Keys of presets that are no options.
_PRESET_ONLY = {"dedup-cache-models": "a file is one model here, whatever it is called"}
# Options that name files, one or more between commas.
_FILES = frozenset(
    [
        "spec-draft-model",
        "lora",
        "control-vector",
        "grammar-file",
        "json-schema-file",
        "chat-template-file",
        "lookup-cache-static",
        "lookup-cache-dynamic",
        "slot-save-path",
        "media-path",
        "path",
        "video-ffmpeg-dir",
        "ui-config-file",
        "mcp-servers-config",
        "log-prompts-dir",
    ]
)
# Flags that newer builds have no longer, and the variables that stood for them.
_MAPPING_FLAGS = {
    "mmap": "mmap",
    "LLAMA_ARG_MMAP": "mmap",
    "no-mmap": "no-mmap",
    "LLAMA_ARG_NO_MMAP": "no-mmap",
    "mlock": "mlock",
    "LLAMA_ARG_MLOCK": "mlock",
    "direct-io": "direct-io",
    "dio": "direct-io",
    "LLAMA_ARG_DIO": "direct-io",
    "no-direct-io": "no-direct-io",
    "ndio": "no-direct-io",
    "LLAMA_ARG_NO_DIO": "no-direct-io",
}
# Special keys, and options with a place of their own here, by each of their names.
_PLACED = {
    "m": "model",
    "model": "model",
    "LLAMA_ARG_MODEL": "model",
    "mm": "mmproj",
    "mmproj": "mmproj",
    "LLAMA_ARG_MMPROJ": "mmproj",
    "hf": "hf-repo",
    "hfr": "hf-repo",
    "hf-repo": "hf-repo",
    "LLAMA_ARG_HF_REPO": "hf-repo",
    "hff": "hf-file",
    "hf-file": "hf-file",
    "LLAMA_ARG_HF_FILE": "hf-file",
    "a": "alias",
    "alias": "alias",
    "LLAMA_ARG_ALIAS": "alias",
    "tags": "tags",
    "LLAMA_ARG_TAGS": "tags",
    "load-on-startup": "load-on-startup",
    "stop-timeout": "stop-timeout",
    "version": "version",
}


@dataclass(frozen=True, slots=True)
class Value:
    """What stands behind a key, and where the key is."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Preset:
    """A parsed preset file: sections, in their order, with their keys."""

    text: str = field(repr=False)
    path: Path
    sections: Mapping[str, Mapping[str, Value]]
    places: Mapping[str, tuple[int, int]]

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> "Preset":
        """Parse a file. Raises ConfigError with every line that is neither key nor section."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = content.count(b"\n", 0, error.start) + 1
            raise ConfigError([Problem(str(path), number, "", "is not UTF-8 text")]) from None
        sections: dict[str, dict[str, Value]] = {}
        places: dict[str, tuple[int, int]] = {}
        problems = []
        name = UNNAMED
        for number, line in enumerate(text.splitlines(), start=1):
            bare = line.strip()
            column = len(line) - len(line.lstrip()) + 1
            if not bare or bare[0] in ";#":
                continue
            if header := _SECTION.fullmatch(bare):
                name = canonical_name(header[1].strip())
                places.setdefault(name, (number, column))
                sections.setdefault(name, {})
            elif pair := _PAIR.match(bare):
                places.setdefault(name, (number, column))
                value = Value(pair[2].strip(), number, column)
                sections.setdefault(name, {})[pair[1]] = value
            else:
                what = "is neither [section] nor key = value"
                problems.append(Problem(str(path), number, "", what, column))
        if problems:
            raise ConfigError(shortened(problems, "a preset file of llama-server"))
        return cls(text, path, sections, places)

    def place_of(self, keys: Keys) -> tuple[int, int]:
        """Give line and column of a section's key, or of the section."""
        value = None
        if len(keys) > 1:
            value = self.sections.get(str(keys[0]), {}).get(str(keys[1]))
        if value is not None:
            return value.line, value.column
        return self.places.get(str(keys[0]), (1, 1)) if keys else (1, 1)

    def problem(self, issue: Issue) -> Problem:
        """Look up where an issue is."""
        line, column = self.place_of(issue.keys)
        return Problem(str(self.path), line, format_keys(issue.keys), issue.message, column)


def canonical_name(name: str) -> str:
    """Write the quantisation of ``user/repo:quant`` as llama.cpp does: last part, capitals."""
    match = _WITH_TAG.fullmatch(name)
    if match is None:
        return name
    return f"{match['repo']}:{re.split(r'[-.]', match['tag'])[-1].upper()}"


def translate(source: Source, preset: Preset) -> Native:
    """Give what the preset means in our config. Raises ConfigError with all faults.

    Paths are as seen from the present folder, as llama-server sees them.
    """
    native = Native()
    native.put(("version",), "1.0", ())
    native.put(("router", "stop_grace_s"), STOP_TIMEOUT_S, ())
    preload: list[str] = []
    common = preset.sections.get(ALL_MODELS, {})
    shared: tuple[str, ...] = ()
    if common:
        all_models = _Section(source, native, ALL_MODELS, common, ("defaults",))
        all_models.put()
        shared = tuple(all_models.arguments)
        if shared:
            command = list(with_options(shared, ()))
            native.put(("default_spawn", "command"), command, (ALL_MODELS,))
    of_hub = _entries_of_hub(preset)
    for name, values in preset.sections.items():
        if name == ALL_MODELS:
            continue
        index = len(native.content.get("models", ()))
        section = _Section(source, native, name, values, ("models", index))
        if name == UNNAMED and set(values) == {"version"}:
            section.put()
            continue
        section.put_entry(of_hub)
        section.put()
        section.put_command(shared)
        if _is_wanted(section, values, common):
            preload.append(section.entry_name)
    if preload:
        native.put(("router", "preload"), preload, ())
    source.check()
    return native


def _entries_of_hub(preset: Preset) -> Mapping[str, str]:
    """Say which section is the entry of each of the hub's models: its own, or else the first."""
    entries: dict[str, str] = {}
    for name, values in preset.sections.items():
        given = _placed(values)
        if "hf-repo" in given and "model" not in given:
            entries.setdefault(_hub_name_of(given), name)
    return {hub: hub if hub in preset.sections else name for hub, name in entries.items()}


def _placed(values: Mapping[str, Value]) -> dict[str, tuple[str, str]]:
    return {_PLACED[key]: (key, value.text) for key, value in values.items() if key in _PLACED}


def _is_wanted(
    section: "_Section", values: Mapping[str, Value], common: Mapping[str, Value]
) -> bool:
    key = "load-on-startup"
    value = values.get(key) or common.get(key)
    return value is not None and bool(section.truth(key, value.text))


class _Section:
    """One section on its way to ``models[]`` or ``defaults``."""

    def __init__(
        self,
        source: Source,
        native: Native,
        name: str,
        values: Mapping[str, Value],
        place: Keys,
    ) -> None:
        self._source = source
        self._native = native
        self._name = name
        self._values = values
        self._place = place
        self.entry_name = name
        self.arguments: list[str] = []
        self._hub: tuple[str, ...] = ()

    def put_entry(self, of_hub: Mapping[str, str]) -> None:
        """Say which model it is: a file, one of the hub's, or one that is found by its name.

        ``of_hub`` has the section that is the entry of each model of the hub.
        """
        given = _placed(self._values)
        aliases = [part.strip() for part in given.get("alias", ("", ""))[1].split(",")]
        if "model" in given:
            entry = {"name": self._name, "path": _whole_path(given["model"][1])}
            self._set_entry(entry)
            self._note(given["model"][0], Fate.HONOURED, "models[].path")
        elif "hf-repo" in given and of_hub[_hub_name_of(given)] == self._name:
            self.entry_name = _hub_name_of(given)
            self._set_entry({"name": self.entry_name, "state": "auto"})
            aliases.insert(0, self._name)
            why = f"download it with: llama-router pull {given['hf-repo'][1]}"
            for key in ("hf-repo", "hf-file"):
                if key in given:
                    self._note(given[key][0], Fate.TRANSLATED, "models[].name", why)
        elif "hf-repo" in given:
            self._set_entry({"name": self._name, "state": "manual"})
            why = (
                "another section is that model's entry; here llama-server finds, or gets, the file"
            )
            for key in ("hf-repo", "hf-file"):
                if key in given:
                    self._hub += (f"--{key}", given[key][1].replace("$", "$$"))
                    self._note(given[key][0], Fate.TRANSLATED, "spawn.command", why)
        else:
            self._set_entry({"name": self._name, "state": "auto"})
        aliases = [alias for alias in dict.fromkeys(aliases) if alias not in {"", self.entry_name}]
        if aliases:
            self._put(("aliases",), aliases, given.get("alias", ("", ""))[0])
        if "mmproj" in given:
            self._put(("mmproj",), _whole_path(given["mmproj"][1]), given["mmproj"][0])
            self._note(given["mmproj"][0], Fate.HONOURED, "models[].mmproj")

    def put(self) -> None:
        """Translate all of its keys."""
        mapping: dict[str, bool] = {}
        for key, value in self._values.items():
            if key in _MAPPING_FLAGS:
                truth = self.truth(key, value.text)
                mapping[_MAPPING_FLAGS[key]] = bool(truth)
                self._note(
                    key,
                    Fate.TRANSLATED,
                    "parameters.load-mode",
                    "newer builds of llama-server have --load-mode in its place",
                )
            elif key in _PLACED:
                self._put_special(key, _PLACED[key], value.text)
            else:
                self._put_option(key, value.text)
        mode = _load_mode(mapping)
        if mode:
            first = next(key for key in self._values if key in _MAPPING_FLAGS)
            self._put(("parameters", "load-mode"), mode, first)

    def _put_special(self, key: str, meaning: str, text: str) -> None:
        if meaning == "stop-timeout":
            if not _WHOLE.fullmatch(text) or int(text) < 1:
                self._source.fault((self._name, key), "must be a number of seconds")
                return
            self._put(("stop_grace_s",), int(text), key)
            self._note(key, Fate.HONOURED, "stop_grace_s")
        elif meaning == "tags":
            tags = [tag.strip() for tag in text.split(",") if tag.strip()]
            self._put(("metadata", "tags"), tags, key)
            self._note(key, Fate.TRANSLATED, "metadata.tags")
        elif meaning == "load-on-startup":
            self.truth(key, text, is_told=True)
            self._note(key, Fate.HONOURED, "router.preload")
        elif meaning == "version":
            self._note(key, Fate.HONOURED, "version")
        elif meaning == "alias" and self._name != ALL_MODELS:
            self._note(key, Fate.HONOURED, "models[].aliases")
        elif self._name == ALL_MODELS:
            self._note(key, Fate.NOT_CARRIED, "", "one file or name cannot be that of all models")

    def put_command(self, shared: tuple[str, ...]) -> None:
        """Give the model a command of its own if it has options that only commands may have."""
        if self.arguments or self._hub:
            command = list(with_options(shared, tuple(self.arguments), self._hub))
            self._put(("spawn", "command"), command, "")

    def _put_option(self, key: str, text: str) -> None:
        option = find_option(key)
        if key in _PRESET_ONLY:
            self._note(key, Fate.NOT_CARRIED, "", _PRESET_ONLY[key])
        elif option is None:
            self._note(key, Fate.UNKNOWN, "", "llama-server has no such option")
        elif option.name in _RESERVED:
            self._note(key, Fate.NOT_CARRIED, "", _RESERVED[option.name])
        elif option.name == "sleep-idle-seconds" and _WHOLE.fullmatch(text):
            self._put(("ttl_s",), max(0, int(text)), key)
            why = "the engine is ended, not put to sleep, which frees all of its memory"
            self._note(key, Fate.TRANSLATED, "ttl_s", why)
        elif option.is_flag:
            truth = self.truth(key, text, is_told=True)
            self._put_value(key, option, truth is not option.is_negated)
        else:
            self._put_value(key, option, _value_of(option, text))

    def _put_value(self, key: str, option: Option, value: bool | float | str) -> None:  # noqa: FBT001 - what an option is set to
        why = "newer builds of llama-server call it so" if option.was_renamed else ""
        fate = Fate.TRANSLATED if option.was_renamed else Fate.HONOURED
        if option.is_setting:
            self._put(("parameters", option.name), value, key)
            self._note(key, fate, f"parameters.{option.name}", why)
            return
        if not isinstance(value, bool):
            text = str(value)
            if option.name in _FILES:
                text = ",".join(_whole_path(part.strip()) for part in text.split(","))
            self.arguments += [f"--{option.name}", text.replace("$", "$$")]
        elif value or find_option(f"no-{option.name}") is not None:
            self.arguments.append(f"--{option.name}" if value else f"--no-{option.name}")
        self._note(key, Fate.TRANSLATED, "spawn.command", why)

    def truth(self, key: str, text: str, *, is_told: bool = False) -> bool | None:
        """Read a switch; None for a text that is none, of which the source is told once."""
        truth = _TRUTHS.get(text.lower())
        if truth is None and (is_told or key in _MAPPING_FLAGS):
            self._source.fault((self._name, key), "must be on or off")
        return truth

    def _set_entry(self, entry: Mapping[str, str]) -> None:
        self._native.put(self._place, {}, (self._name,))
        for setting, value in entry.items():
            self._put((setting,), value, "")

    def _put(self, setting: Keys, value: object, key: str) -> None:
        origin: Keys = (self._name, key) if key else (self._name,)
        self._native.put((*self._place, *setting), value, origin)

    def _note(self, key: str, fate: Fate, native: str, why: str = "") -> None:
        self._source.note((self._name, key), fate, key, native, why)


def _value_of(option: Option, text: str) -> int | float | str:
    """Return a value as the engine's list of options has it, in which texts are no numbers."""
    if option.is_switch and text.lower() in _TRUTHS:
        return "on" if _TRUTHS[text.lower()] else "off"
    if _WHOLE.fullmatch(text):
        return int(text)
    if option.is_number and _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _load_mode(flags: Mapping[str, bool]) -> str:
    if flags.get("direct-io") and not flags.get("no-direct-io"):
        return "dio"
    flags = {name: is_on for name, is_on in flags.items() if "direct-io" not in name}
    is_mapped = flags.get("mmap", True) and not flags.get("no-mmap", False)
    if flags.get("mlock"):
        return "mmap+mlock" if is_mapped else "mlock"
    if not flags or set(flags) == {"mlock"}:
        return ""
    return "mmap" if is_mapped else "none"


def _hub_name_of(given: Mapping[str, tuple[str, str]]) -> str:
    return _hub_name(given["hf-repo"][1], given.get("hf-file", ("", ""))[1])


def _hub_name(repo: str, file: str) -> str:
    if file and ":" not in repo:
        tag = re.search(r"[-.]([A-Za-z0-9_]+?)(?:-[0-9]{5}-of-[0-9]{5})?\.gguf$", file)
        return f"{repo}:{tag[1].upper()}" if tag else repo
    return canonical_name(repo)


def _whole_path(path: str) -> str:
    return str(Path(os.path.expanduser(path)).absolute()) if path else path  # noqa: PTH111 - "~x" stays
