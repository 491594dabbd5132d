"""The fake engine's end of its control connection: lines of JSON, both ways."""

import json
import os
import signal
import socket
import sys
import threading
from typing import Any

from llama_router.stress.fake_engine.state import Engine, die


class Link:
    """Reports to the controller and obeys it; with the controller the engine ends."""

    def __init__(self, address: str, engine: Engine) -> None:
        host, _, port = address.rpartition(":")
        self._engine = engine
        self._socket = socket.create_connection((host, int(port)))
        self._sending = threading.Lock()
        self.tell("hello", alias=engine.alias, pid=os.getpid(), argv=sys.argv[1:])
        threading.Thread(target=self._obey, name="control", daemon=True).start()

    def tell(self, event: str, **facts: object) -> None:
        """Report an event to the controller."""
        self._send({"event": event, **facts})

    def _send(self, message: dict[str, object]) -> None:
        with self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _obey(self) -> None:
        try:
            for line in self._socket.makefile("rb"):
                command = json.loads(line)
                answer = self._do(command)
                self._send({"reply": command["id"], **answer})
        finally:
            os._exit(0)

    def _do(self, command: dict[str, Any]) -> dict[str, object]:  # noqa: C901, PLR0912 - a list
        engine = self._engine
        match command["do"]:
            case "switches":
                engine.switches = command["switches"]
                engine.has_switches.set()
            case "progress":
                engine.say_progress(command["fraction"])
            case "ready":
                engine.may_be_ready.set()
            case "bind":
                engine.may_bind.set()
            case "exit":
                os._exit(command["status"])
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "kill":
                die()
            case "token" | "finish" | "cut":
                try:
                    engine.command_streams(command)
                except KeyError:
                    return {"error": f"no stream {command['stream']}"}
            case "fault":
                engine.arm(command["fault"])
            case "say":
                stream = sys.stderr if command["stderr"] else sys.stdout
                stream.buffer.write(bytes.fromhex(command["hex"]))
                stream.flush()
            case "state":
                return {"state": engine.state()}
            case unknown:
                return {"error": f"unknown command {unknown}"}
        return {}
