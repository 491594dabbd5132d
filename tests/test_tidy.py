"""Style that no linter checks, as a test."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]
LINE_MAX_CHARS = 100
FILE_MAX_LINES = 500
FUNCTION_MAX_LINES = 80

# Modules without a test file of their own. This list may only get shorter.
UNTESTED: frozenset[str] = frozenset(
    {
        # Plain values, and what a seam looks like.
        "catalog/model.py",
        "core/commands.py",
        "core/events.py",
        "core/policies/base.py",
        "engines/host.py",
        "engines/kinds/base.py",
        "engines/launch.py",
        "engines/platform/interface.py",
        "hub/errors.py",
        "hub/protocol.py",
        # Behind one door, and tested through it: test_discovery.py, test_tiny.py and others.
        "catalog/candidate.py",
        "catalog/demo.py",
        "catalog/files.py",
        "catalog/folders.py",
        "catalog/gguf_format.py",
        "catalog/gguf_writer.py",
        "catalog/hub_cache.py",
        "catalog/llama_cache.py",
        "catalog/tiny_broken.py",
        "catalog/tiny_projector.py",
        # One schema, tested whole: test_schema.py.
        "config/coexistence.py",
        "config/hub_settings.py",
        "config/indirection.py",
        "config/model_settings.py",
        "config/router_settings.py",
        "config/section.py",
        "config/spawn_settings.py",
        # One machine, tested by what it does: the transcripts in tests/core.
        "core/machine.py",
        "core/model.py",
        "core/policies/arrival.py",
        "core/reasons.py",
        # test_serve.py and the conformance suite run them whole.
        "engines/embedded/apply.py",
        "engines/kinds/embedded.py",
    }
)

# What must not get into any file, each with what belongs there.
BANNED_TEXT = {
    r"\b(TODO|FIXME|XXX)\b": "do it, or write an issue",
    r"(?<![\w.$}/])/(work|root)/": "no paths of one machine",
    r"/tmp/venv": "no paths of one machine",
    r"(pypi\.org|pythonhosted\.org|registry\.npmjs|proxy\.golang)": "the index is pip's affair",
}


@cache
def files() -> tuple[Path, ...]:
    """Everything that is, or is about to be, under version control."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        output = subprocess.run(git, capture_output=True, check=True).stdout.decode()
        paths = [ROOT / name for name in output.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = re.compile(r"^(\.(?!ci\b).*|__pycache__|build|dist|.*\.egg-info|out)$")
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(hidden.match(part) for part in path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(path for path in paths if path.is_file()))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def code(*folders: str) -> list[Path]:
    return [
        path
        for path in files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in (folders or path.parts)
    ]


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call with its function's dotted name, as far as it is one."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def check(paths: list[Path], find: Callable[[Path], Iterator[tuple[int, str]]]) -> None:
    """Fail with every fault that ``find`` yields, as ``file:line: what to do``."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}" for path in paths for line, fault in find(path)
    ]
    assert not found, "\n" + "\n".join(found)


def test_there_is_something_to_check() -> None:
    assert ROOT / "pyproject.toml" in files()
    assert len(code("src")) > 10
    assert Path(__file__) in code("tests")


def test_lines_are_short() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            # Ruff does not count its own pragmas either.
            count = len(re.sub(r"\s+# (noqa|type: ignore)\b.*", "", line))
            if count > LINE_MAX_CHARS:
                yield number, f"{count} characters"

    scripts = [path for path in files() if path.parent.name in {"scripts", ".ci"}]
    check(code() + scripts, find)


def test_files_are_short() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        count = text_of(path).count("\n")
        if count > FILE_MAX_LINES:
            yield count, "split the file"

    check(code(), find)


def test_functions_are_short() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_MAX_LINES:
                    yield node.lineno, f"{node.name} has {count} lines"

    check(code(), find)


def test_tasks_are_kept_and_named() -> None:
    # The loop holds tasks weakly: one that nobody keeps may vanish in the middle of its work.
    def find(path: Path) -> Iterator[tuple[int, str]]:
        dropped = {id(node.value) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Expr)}
        for call, name in calls(path):
            owner, _, function = name.rpartition(".")
            if function not in {"create_task", "ensure_future"}:
                continue
            if id(call) in dropped and not owner.endswith("group"):
                yield call.lineno, "keep the task"
            if not any(keyword.arg == "name" for keyword in call.keywords):
                yield call.lineno, "name the task"

    check(code("src"), find)


def test_only_the_command_line_prints() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for call, name in calls(path):
            if name == "print" and "cli" not in path.parts:
                yield call.lineno, "log instead"

    check(code("src"), find)


def test_no_command_goes_through_a_shell() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for call, name in calls(path):
            shell = any(
                keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
                for keyword in call.keywords
            )
            if shell or name in {"os.system", "os.popen"}:
                yield call.lineno, "run an argument list"

    check(code("src", "tests", "bench"), find)


def test_tests_neither_sleep_nor_read_the_clock() -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for call, name in calls(path):
            if name in {"time.sleep", "time.time"}:
                yield call.lineno, f"{name}: await an event under a deadline"
            if name == "asyncio.sleep" and [ast.unparse(arg) for arg in call.args] != ["0"]:
                yield call.lineno, "asyncio.sleep: await an event under a deadline"

    check(code("tests"), find)


def test_every_module_has_its_test_file() -> None:
    source, tests = ROOT / "src" / "llama_router", ROOT / "tests"
    modules = {
        path.relative_to(source).as_posix()
        for path in code("src")
        if path.name not in {"__init__.py", "__main__.py"}
    }
    untested = {
        name
        for name in modules
        if not (tests / PurePath(name).with_name(f"test_{PurePath(name).name}")).is_file()
    }
    assert sorted(untested - UNTESTED) == [], "write their test files"
    assert sorted(UNTESTED - untested) == [], "take them off the list UNTESTED"


@pytest.mark.parametrize("pattern", BANNED_TEXT)
def test_no_file_holds_what_belongs_elsewhere(pattern: str) -> None:
    def find(path: Path) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if re.search(pattern, line):
                yield number, f"{line.strip()[:60]} ({BANNED_TEXT[pattern]})"

    suffixes = {"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".html", ".css", ".js"}
    paths = [path for path in files() if path.suffix in suffixes and path != Path(__file__)]
    check(paths, find)
