"""An engine that is hard to end: it ignores SIGTERM and has a child, and a grandchild elsewhere.

Prints "pids <main> <child in its group> <double-forked grandchild in a session of its own>".
"""

import os
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    signal.pause()
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        signal.pause()
    os._exit(0)
os.wait()
os.write(1, f"pids {os.getpid()} {child} {int(os.read(reader, 32))}\n".encode())
while True:
    signal.pause()
