"""Whose process is at the other end of a loopback connection: other people's get no answer."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

TABLE = Path("/proc/net/tcp")
# <linux/netlink.h>, <linux/sock_diag.h>, <linux/inet_diag.h>
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
ANY_STATE, ANY_COOKIE = 0xFFFFFFFF, b"\xff" * 8
UID_AT = 80  # in nlmsghdr + inet_diag_msg


def may_talk(
    client: tuple[str, int] | None,
    table: Path = TABLE,
    *,
    server: tuple[str, int] | None = None,
) -> bool:
    """Return False where the kernel names another user, other than root, as the peer's owner.

    Loopback is shared by all users of a machine, and a push runs code as us. With our end given
    the kernel is asked for this one connection, else its whole table is read. Where there is no
    such table (no Linux), everybody on this machine may talk.
    """
    if client is None or not table.is_file():
        return True
    owner = _ask(client, server) if server is not None else None
    owners = {owner} if owner is not None else _listed(client, table)
    return not owners or bool(owners & {0, os.getuid()})


def _ask(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the owner of the client's socket; None where the kernel does not say."""
    ends = struct.pack("!HH", client[1], server[1]) + _address(client[0]) + _address(server[0])
    body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, ANY_STATE)
    body += ends + struct.pack("=I", 0) + ANY_COOKIE
    head = struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(1)
            kernel.sendto(head + body, (0, 0))
            answer = kernel.recv(4096)
    except (OSError, AttributeError):
        return None
    if len(answer) < UID_AT + 4 or struct.unpack_from("=H", answer, 4)[0] != SOCK_DIAG_BY_FAMILY:
        return None
    return int(struct.unpack_from("=I", answer, UID_AT)[0])


def _address(host: str) -> bytes:
    return socket.inet_aton(host).ljust(16, b"\0")


def _listed(client: tuple[str, int], table: Path) -> set[int]:
    host, port = client
    octets = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    wanted = f"{octets}:{port:04X}"
    rows = (line.split() for line in table.read_text().splitlines()[1:])
    return {int(row[7]) for row in rows if row[1] == wanted}
