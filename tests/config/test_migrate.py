from pathlib import Path
from typing import Any

import pytest

from llama_router.config.document import Document
from llama_router.config.migrate import migrate

COMPLETED = [
    "--model",
    "$path",
    "--mmproj",
    "$mmproj",
    "--alias",
    "$model",
    "--host",
    "$host",
    "--port",
    "$port",
]


def migrated(text: str) -> tuple[dict[str, Any], list[tuple[str | int, ...]], str]:
    document = Document(text, Path("c.yaml"))
    issues = migrate(document.data)
    assert migrate(document.data) == [], "a second time there is nothing left to do"
    content, _ = document.plain()
    return content, [issue.keys for issue in issues], document.dump()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("[llama-server]", ["llama-server", *COMPLETED]),
        ("[/opt/llama-server.exe, -c, '1']", ["/opt/llama-server.exe", "-c", "1", *COMPLETED]),
        (r"['C:\llama\llama-server.exe']", [r"C:\llama\llama-server.exe", *COMPLETED]),
        (
            "[llama-server, --mmproj, /p.gguf]",
            ["llama-server", "--mmproj", "/p.gguf", "--model", "$path", *COMPLETED[4:]],
        ),
        (
            "[llama-server, --port, '9000', --host=0.0.0.0, -m, /m.gguf]",
            [
                *["llama-server", "--port", "$port", "--host=$host", "-m", "/m.gguf"],
                *["--mmproj", "$mmproj", "--alias", "$model"],
            ],
        ),
        ("[llama-server, --port]", ["llama-server", "--port", "$port", *COMPLETED[:8]]),
    ],
)
def test_an_early_command_is_completed(command: str, expected: list[str]) -> None:
    content, keys, _ = migrated(f"default_spawn:\n  command: {command}\n")
    assert content["default_spawn"]["command"] == expected
    assert keys == [("default_spawn", "command")]


@pytest.mark.parametrize(
    "command",
    [
        "[llama-server, --port, $port]",
        "[llama-server, '--url=http://$host:1']",
        "[vllm, serve]",
        "[my-llama-server-wrapper]",
        "[]",
        "[5]",
        "llama-server",
        "{a: b}",
    ],
)
def test_other_commands_stay_as_they_are(command: str) -> None:
    text = f"default_spawn:\n  command: {command}\n"
    _, keys, written = migrated(text)
    assert keys == []
    assert written == text


@pytest.mark.parametrize("text", ["models: 5\n", "models: [5, {spawn: 5}]\n", "default_spawn: x\n"])
def test_what_is_faulty_is_left_to_validation(text: str) -> None:
    _, keys, _ = migrated(text)
    assert keys == []


def test_plain_arrays_become_sections() -> None:
    content, keys, _ = migrated(
        "default_spawn: [llama-server]\nmodels:\n  - name: a\n    spawn: [vllm, --port=$port]\n"
    )
    assert content["default_spawn"] == {"command": ["llama-server", *COMPLETED]}
    assert content["models"][0]["spawn"] == {"command": ["vllm", "--port=$port"]}
    assert keys == [
        ("default_spawn",),
        ("models", 0, "spawn"),
        ("default_spawn", "command"),
    ]


def test_comments_and_layout_are_kept() -> None:
    _, _, written = migrated(
        "# top\ndefault_spawn:   # how\n  command:\n    # which\n    - llama-server   # mine\n"
        '    - "-c"\n\n# the models\nmodels:\n  - name: a # first\n'
        "    spawn: [llama-server, --jinja]  # short\n"
    )
    for comment in ("# top", "# how", "# which", "# mine", "# the models", "# first", "# short"):
        assert written.count(comment) == 1, written
    assert '    - "-c"\n' in written
    assert "    - $port\n" in written


def test_an_alias_is_completed_once() -> None:
    content, keys, _ = migrated(
        "models:\n  - name: a\n    spawn: &s {command: [llama-server]}\n"
        "  - name: b\n    spawn: *s\n"
    )
    assert keys == [("models", 0, "spawn", "command")]
    assert content["models"][1]["spawn"]["command"] == ["llama-server", *COMPLETED]
