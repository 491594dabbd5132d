"""A stand-in for llama-server: its HTTP, its pipes, its life, and every way to misbehave.

Standard library only, one process, quick to start; run by path, ``python -I -S -E __main__.py``,
with llama-server's ``--model --alias --host --port`` and the switches below (unknown options are
ignored, as a real command line has many). Nothing is timed: with ``--gate-load`` the controller
says when loading ends, with ``--gate-stream`` when the next token comes, and with ``--ask`` even
which switches hold for this start (see ``link``).
The conformance suite holds it to what the real engines do.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

# Run by path and isolated, Python knows neither the package nor its folder. Appended, not inserted:
# the folder may be site-packages, which must not hide the standard library.
sys.path.append(str(Path(__file__).resolve().parents[3]))

from llama_router.stress.fake_engine.connection import serve_connection
from llama_router.stress.fake_engine.faults import FAULTS
from llama_router.stress.fake_engine.link import Link
from llama_router.stress.fake_engine.offspring import (
    end_with_control,
    fill_memory,
    limit_memory,
    make_noise,
    spawn_child,
)
from llama_router.stress.fake_engine.state import Engine

_PUSH_VARIABLE = "LLAMA_SERVER_ROUTER_PORT"
_EXIT_LINE = b"cmd_router_to_child:exit"
_BACKLOG = 1024


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("-m", "--model", default="fake.gguf", help="only its name is used")
    add("-a", "--alias", default="", help="the name in answers and for the controller")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0: any, told to the controller")
    add("--push", action="store_true", help="speak the push protocol")
    add("--old-push", action="store_true", help="the push protocol before June 2026")
    add("--control", default="", help="HOST:PORT of the controller")
    add("--ask", action="store_true", help="let the controller give further switches first")
    add("--tokens", type=int, default=5, help="tokens of an answer without max_tokens")
    add("--token-interval-ms", type=float, default=0.0, help="pace of streams, for benchmarks")
    add("--gate-load", action="store_true", help="loading ends when the controller says so")
    add("--gate-stream", action="store_true", help="each token comes when the controller says so")
    add("--gate-bind", action="store_true", help="bind when the controller says so")
    add("--exit-in-load", type=int, default=None, metavar="STATUS")
    add("--out-of-memory", action="store_true", help="say so on stderr and exit with 1")
    add("--memory-limit-bytes", type=int, default=0, help="RLIMIT_AS, on top of what it has")
    add("--fill-memory", action="store_true", help="allocate while loading until it fails")
    add("--ignore-term", action="store_true")
    add("--ignore-exit-line", action="store_true", help="and the end of stdin")
    add("--child", action="store_true", help="run a child process")
    add("--stray", action="store_true", help="run a grandchild in a session of its own")
    add("--be-child", action="store_true", help="be such a process: wait, do nothing")
    add("--flood-bytes", type=int, default=0, help="write this much to stdout")
    add("--long-line-bytes", type=int, default=0, help="write one line of this length to stdout")
    add("--dirty-output", action="store_true", help="escape sequences and invalid UTF-8")
    add("--close-idle", action="store_true", help="close each connection after its answer, unsaid")
    add("--fault", action="append", default=[], metavar="NAME[:TIMES]", help=", ".join(FAULTS))
    return parser.parse_known_args(arguments)[0]


def main(arguments: list[str]) -> None:
    """Run the engine with these arguments; never returns."""
    options = _options(arguments)
    alias = options.alias or Path(options.model).name
    engine = Engine(options, alias)
    if options.control:
        engine.link = Link(options.control, engine)
        if options.ask:
            engine.has_switches.wait()
            options = engine.options = _options([*arguments, *engine.switches])
    if options.memory_limit_bytes:
        limit_memory(options.memory_limit_bytes)
    if options.ignore_term:
        signal.signal(signal.SIGTERM, lambda *_: engine.tell("term"))
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if options.be_child:
        end_with_control(engine)
    for fault in options.fault:
        engine.arm(fault)
    push = options.push or options.old_push or _PUSH_VARIABLE in os.environ
    if options.child:
        spawn_child(engine, stray=False)
    if options.stray:
        spawn_child(engine, stray=True)
    make_noise(options)
    threading.Thread(target=_run, args=(engine, push), name="run", daemon=True).start()
    # Signal handlers run here, whatever the other threads wait for.
    threading.Event().wait()


def _run(engine: Engine, push: bool) -> None:  # noqa: FBT001 - private
    options = engine.options
    if options.out_of_memory:
        sys.stderr.write(
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory\n"
        )
        sys.stderr.write("llama_model_load: error loading model: unable to allocate buffer\n")
        sys.stderr.flush()
        os._exit(1)
    if options.fill_memory:
        fill_memory()
    if options.exit_in_load is not None:
        sys.stderr.write(f"fake engine: told to exit with {options.exit_in_load} while loading\n")
        sys.stderr.flush()
        os._exit(options.exit_in_load)
    if options.gate_bind:
        engine.tell("gated_bind")
        engine.may_bind.wait()
    listener = _bind(options.host, options.port)
    engine.port = listener.getsockname()[1]
    threading.Thread(target=_accept, args=(engine, listener), name="accept", daemon=True).start()
    engine.push = push and not options.old_push
    engine.say_progress(0.0)
    engine.tell("listening", port=engine.port)
    if options.gate_load:
        engine.may_be_ready.wait()
    engine.say_progress(1.0)
    engine.is_ready = True
    if options.old_push:
        sys.stdout.write("cmd_child_to_router:ready\n")
        sys.stdout.flush()
    engine.say_ready()
    engine.tell("ready")
    if push:
        _obey_stdin(engine)


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        sys.stderr.write(
            f"E srv start: couldn't bind HTTP server socket, hostname: {host}, port: {port}\n"
        )
        sys.stderr.flush()
        os._exit(1)
    return listener


def _accept(engine: Engine, listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        engine.connections_accepted += 1
        threading.Thread(target=serve_connection, args=(engine, connection), daemon=True).start()


def _obey_stdin(engine: Engine) -> None:
    """Read the router's commands; like llama-server, only once the model is loaded."""
    for line in sys.stdin.buffer:
        if line.strip() == _EXIT_LINE:
            engine.tell("exit_line")
            if not engine.options.ignore_exit_line:
                os._exit(0)
    engine.tell("stdin_end")
    if not engine.options.ignore_exit_line:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
