"""Speaks llama-server's protocol towards a router: loads, is ready, ends on the exit line.

Like the real one, it ignores SIGTERM while stdin is open.
"""

import signal
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    write("cmd_child_to_router:state:" + text)


say('{"state":"loading","payload":{"stages":["text","mmproj"],"current":"text","value":0.5}}')
say("not json")
say('{"state":"loading","payload":{"stages":["text","mmproj"],"current":"mmproj","value":0.5}}')
say('{"state":"loading","payload":{"value":"NaN"}}')
say('{"state":"loading","payload":' + "x" * 300_000 + "}")
write("an ordinary line")
say('{"state":"ready","payload":{"n_ctx":8}}')
for line in sys.stdin:
    if line == "cmd_router_to_child:exit\n":
        sys.exit(0)
sys.exit(1)
