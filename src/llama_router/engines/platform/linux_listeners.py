"""Linux: who listens on a port. Standard library only: the guardian imports this.

sock_diag(7) is asked first: it only walks the listening sockets (30 us), where reading
/proc/net/tcp walks the whole table of connections (10 ms on some machines, even when it is empty).
"""

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# Tells type checkers on other platforms to skip what follows.
assert sys.platform == "linux"  # noqa: S101

# include/net/tcp_states.h
_TCP_LISTEN = 10

# linux/netlink.h, linux/sock_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3

# linux/netlink.h nlmsghdr; linux/inet_diag.h inet_diag_req_v2 and inet_diag_msg
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI2s2s16s16s12x")
_ANSWER = struct.Struct("=BBxx2s2s16s16s12x12xII")

# A local answer comes at once, or the kernel is not going to give one.
_ANSWER_TIMEOUT_S = 1.0
_RECEIVE_BYTES = 64 * 1024


def listening_inodes(host: str, port: int) -> set[int]:
    """Return the inodes of the listening sockets that a connection to ``host:port`` may reach.

    A ``host`` that is a name counts as every address.
    """
    reachable = _reachable_addresses(host)
    try:
        listeners = list(_ask_kernel(port))
    except OSError:
        # No netlink in this sandbox, or no inet_diag in this kernel.
        listeners = list(_read_tables(port))
    return {inode for address, inode in listeners if reachable is None or address in reachable}


def _ask_kernel(port: int) -> Iterator[tuple[bytes, int]]:
    """Yield (packed address, inode) of every socket that listens on ``port``. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_ANSWER_TIMEOUT_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(
                family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN, port.to_bytes(2), b"", b"", b""
            )
            flags = _NLM_F_REQUEST | _NLM_F_DUMP
            length = _HEADER.size + len(request)
            netlink.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, flags, 0, 0) + request)
            yield from _answers(netlink, port)


def _answers(netlink: socket.socket, port: int) -> Iterator[tuple[bytes, int]]:
    while True:
        data = netlink.recv(_RECEIVE_BYTES)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError("sock_diag refused the question")
            family, _, source_port, _, source, _, _, inode = _ANSWER.unpack_from(data, _HEADER.size)
            if int.from_bytes(source_port) == port:
                yield source[:4] if family == socket.AF_INET else source, inode
            # NLMSG_ALIGN
            data = data[(length + 3) & ~3 :]


def _read_tables(port: int) -> Iterator[tuple[bytes, int]]:
    """Yield the same from /proc/net/tcp and tcp6."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if int(fields[3], 16) == _TCP_LISTEN and int(number, 16) == port:
                # Each 32-bit word is printed as a number in the machine's byte order.
                words = (int(address[i : i + 8], 16) for i in range(0, len(address), 8))
                yield b"".join(word.to_bytes(4, sys.byteorder) for word in words), int(fields[9])


def _reachable_addresses(host: str) -> set[bytes] | None:
    """Return the local addresses that answer for ``host``, packed; None: any."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.is_unspecified:
        return None
    any_address = bytes(16)
    if isinstance(address, ipaddress.IPv6Address):
        return {address.packed, any_address}
    mapped = bytes(10) + b"\xff\xff" + address.packed
    return {address.packed, bytes(4), any_address, mapped}
