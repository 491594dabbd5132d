"""Ollama's Modelfile as a model of ours: its file, its options, its samplers' defaults.

The syntax is that of Ollama's ``parser``: an instruction at the begin of a line, in any case, its
value on the rest of it, between quotes, or between triple quotes over several lines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_router.config import files
from llama_router.config.importers.llama_server_command import with_options
from llama_router.config.importers.llama_server_ini import canonical_name
from llama_router.config.importers.ollama_store import StoreError, find_in_store
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

FORM = "Modelfile"
FILE_NAME = "modelfile"

_LINE = re.compile(r"([A-Za-z]+)(?:[ \t]+(.*))?")
_HUB_HOSTS = ("hf.co/", "huggingface.co/")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

# What llama-server calls them. Its own options for samplers are defaults, as Ollama's are.
OPTIONS: Mapping[str, str] = {
    "num_ctx": "ctx-size",
    "num_batch": "batch-size",
    "num_gpu": "n-gpu-layers",
    "main_gpu": "main-gpu",
    "num_thread": "threads",
    "num_keep": "keep",
    "num_predict": "predict",
    "draft_num_predict": "spec-draft-n-max",
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "typical_p": "typical",
    "repeat_last_n": "repeat-last-n",
    "repeat_penalty": "repeat-penalty",
    "presence_penalty": "presence-penalty",
    "frequency_penalty": "frequency-penalty",
    "mirostat": "mirostat",
    "mirostat_eta": "mirostat-lr",
    "mirostat_tau": "mirostat-ent",
    "seed": "seed",
}
_GONE = {
    "tfs_z": "llama.cpp has this sampler no longer",
    "penalize_newline": "llama.cpp has this option no longer",
    "f16_kv": "the cache's type is cache-type-k and cache-type-v",
    "low_vram": "llama.cpp has this option no longer",
    "vocab_only": "such a model cannot answer",
    "numa": "the choice is one of several: see llama-server's --numa",
}
_LOST = {
    "TEMPLATE": "Ollama's templates are Go's; the one in the GGUF file is used",
    "SYSTEM": "the engine has no system prompt of its own; send it as the first message",
    "MESSAGE": "the engine has no messages of its own; send them first",
    "LICENSE": "it has no effect on how the model is run",
    "REQUIRES": "it is a version of Ollama",
    "RENDERER": "it is a part of Ollama; the template in the GGUF file is used",
    "PARSER": "it is a part of Ollama; the engine reads what the model says its own way",
    "CAPABILITY": "what the model can do is told from its file",
}
# What names a file that the engine needs beside the model, and its option.
_FILES = {"ADAPTER": "--lora", "DRAFT": "--spec-draft-model"}
_INSTRUCTIONS = ("FROM", "PARAMETER", *_FILES, *_LOST)
_GLOB = re.compile(r"[*?\[]")
_LATER_SPLIT = re.compile(r"-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, and its line."""

    name: str
    value: str
    line: int


class Modelfile:
    """A parsed file. Faults of it are at lines."""

    def __init__(self, text: str, path: Path) -> None:
        self.path = path
        self.instructions: list[Instruction] = []
        self._parse(text)

    @classmethod
    def from_file(cls, path: Path) -> "Modelfile":
        """Read and parse a file. Raises ConfigError."""
        try:
            text = files.read_bytes(path).decode("utf-8-sig")
        except files.FileError as error:
            raise ConfigError([Problem(str(path), 0, "", str(error))]) from error
        except UnicodeDecodeError:
            raise ConfigError([Problem(str(path), 0, "", "is not UTF-8 text")]) from None
        return cls(text, path)

    def _parse(self, text: str) -> None:
        problems: list[Problem] = []
        lines = text.splitlines()
        number = 0
        while number < len(lines):
            start, bare = number + 1, lines[number].strip()
            number += 1
            if not bare or bare.startswith("#"):
                continue
            match = _LINE.fullmatch(bare)
            if match is None or match[1].upper() not in _INSTRUCTIONS:
                known = ", ".join(_INSTRUCTIONS)
                problems.append(Problem(str(self.path), start, "", f"is none of {known}", 1))
                continue
            name, value = match[1].upper(), match[2] or ""
            before, quotes, rest = value.partition('"""')
            if quotes:
                # To the end of the text between them, wherever that is.
                while '"""' not in rest and number < len(lines):
                    rest += "\n" + lines[number]
                    number += 1
                value = before + rest.partition('"""')[0]
            else:
                while _is_open(value) and number < len(lines):
                    value += "\n" + lines[number]
                    number += 1
            self.instructions.append(Instruction(name, value.strip(), start))
        if problems:
            raise ConfigError(shortened(problems, "a Modelfile"))

    def place_of(self, keys: Keys) -> tuple[int, int]:
        """Give the line of an instruction, whose number is the first of ``keys``."""
        if keys and isinstance(keys[0], int) and keys[0] < len(self.instructions):
            return self.instructions[keys[0]].line, 1
        return 1, 1

    def problem(self, issue: Issue) -> Problem:
        """Look up where an issue is."""
        line, column = self.place_of(issue.keys)
        shown = format_keys(issue.keys[1:])
        return Problem(str(self.path), line, shown, issue.message, column)


def _is_open(value: str) -> bool:
    """Whether a text between quotes goes on on the next line."""
    _name, _, rest = value.partition(" ")
    quoted = next((text.strip() for text in (value, rest) if text.startswith('"')), "")
    return bool(quoted) and (len(quoted) == 1 or not quoted.endswith('"'))


def name_of(path: Path) -> str:
    """Guess what a model is called by its Modelfile: its name, else that of its folder."""
    parts = [part for part in path.name.split(".") if part.lower() != FILE_NAME]
    return ".".join(parts) or path.absolute().parent.name


def translate(source: Source, modelfile: Modelfile, name: str, *, store: Path) -> Native:
    """Give the model as an entry of our config. ``store`` is where Ollama keeps its models."""
    native = Native()
    native.put(("version",), "1.0", ())
    native.put(("models", 0), {"name": name}, ())
    translation = _Translation(source, native, modelfile, store)
    translation.put()
    source.check()
    return native


class _Translation:
    def __init__(self, source: Source, native: Native, modelfile: Modelfile, store: Path) -> None:
        self._source = source
        self._native = native
        self._modelfile = modelfile
        self._store = store
        self._stops: list[str] = []
        self._arguments: list[str] = []

    def put(self) -> None:
        found = [i.name for i in self._modelfile.instructions]
        if "FROM" not in found:
            self._source.fault((), "FROM is missing")
        for index, instruction in enumerate(self._modelfile.instructions):
            if instruction.name == "FROM":
                self._put_from(index, instruction.value)
            elif instruction.name == "PARAMETER":
                self._put_parameter(index, instruction.value)
            elif instruction.name in _FILES:
                file = str(self._whole(_unquoted(instruction.value))).replace("$", "$$")
                self._arguments += [_FILES[instruction.name], file]
                command = with_options((), tuple(self._arguments))
                self._set(("spawn", "command"), list(command), index)
                self._note(index, instruction.name, Fate.TRANSLATED, "spawn.command")
            else:
                why = _LOST[instruction.name]
                self._note(index, instruction.name, Fate.NOT_CARRIED, "", why)
        if self._stops:
            self._set(("filters", "set_params", "stop"), self._stops, 0)

    def _put_from(self, index: int, value: str) -> None:
        origin = _unquoted(value)
        path = self._whole(origin)
        if _GLOB.search(path.name) and not path.exists():
            path = min(path.parent.glob(path.name), default=path)
        if path.is_file():
            if _LATER_SPLIT.search(path.name):
                self._note(index, "FROM", Fate.HONOURED, "models[].path")
                return  # found beside the first
            key = "mmproj" if "mmproj" in path.name.lower() else "path"
            self._set((key,), str(path), index)
            self._note(index, "FROM", Fate.HONOURED, f"models[].{key}")
            return
        if path.is_dir():
            self._source.fault((index, "FROM"), "is a folder; a GGUF file is needed")
            return
        for host in _HUB_HOSTS:
            if origin.startswith(host):
                hub = canonical_name(origin.removeprefix(host))
                name = self._native.content["models"][0]["name"]
                self._set(("name",), hub, index)
                self._set(("state",), "auto", index)
                self._set(("aliases",), [name], index)
                why = f"download it with: llama-router pull {hub}"
                self._note(index, "FROM", Fate.TRANSLATED, "models[].name", why)
                return
        try:
            stored = find_in_store(self._store, origin)
        except StoreError as error:
            self._source.fault((index, "FROM"), str(error))
            return
        self._set(("path",), str(stored.path), index)
        if stored.mmproj is not None:
            self._set(("mmproj",), str(stored.mmproj), index)
        self._note(index, "FROM", Fate.TRANSLATED, "models[].path", "the file in Ollama's store")

    def _put_parameter(self, index: int, value: str) -> None:
        name, _, rest = value.partition(" ")
        name, rest = name.lower(), _unquoted(rest.strip())
        key = f"PARAMETER {name}"
        if name in OPTIONS and _NUMBER.fullmatch(rest):
            number = int(rest) if re.fullmatch(r"-?[0-9]+", rest) else float(rest)
            self._set(("parameters", OPTIONS[name]), number, index)
            self._note(index, key, Fate.HONOURED, f"parameters.{OPTIONS[name]}")
        elif name in OPTIONS:
            self._source.fault((index, key), "must be a number")
        elif name == "stop":
            self._stops.append(rest)
            why = "it holds for requests that name other stops, too"
            self._note(index, key, Fate.TRANSLATED, "filters.set_params.stop", why)
        elif name in {"use_mmap", "use_mlock"}:
            mode = {"use_mmap": {"false": "none"}, "use_mlock": {"true": "mmap+mlock"}}[name]
            if rest.lower() in mode:
                self._set(("parameters", "load-mode"), mode[rest.lower()], index)
            self._note(index, key, Fate.TRANSLATED, "parameters.load-mode")
        elif name in _GONE:
            self._note(index, key, Fate.NOT_CARRIED, "", _GONE[name])
        else:
            self._note(index, key, Fate.UNKNOWN, "", "llama.cpp has no such option")

    def _whole(self, path: str) -> Path:
        expanded = Path(path).expanduser() if path.startswith(("~/", "~\\")) else Path(path)
        return self._modelfile.path.absolute().parent / expanded

    def _set(self, setting: Keys, value: object, index: int) -> None:
        self._native.put(("models", 0, *setting), value, (index,))

    def _note(self, index: int, key: str, fate: Fate, native: str, why: str = "") -> None:
        self._source.note((index,), fate, key, native, why, shown=key)


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if is_quoted else value
