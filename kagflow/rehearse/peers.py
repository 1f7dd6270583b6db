"""Whose process is at the other end of a loopback connection: other people's get no answer."""

from __future__ import annotations

import os
from pathlib import Path

TABLE = Path("/proc/net/tcp")


def may_talk(client: tuple[str, int] | None, table: Path = TABLE) -> bool:
    """Return False where the kernel names another user, other than root, as the peer's owner.

    Loopback is shared by all users of a machine, and a push runs code as us. Where there is no
    such table (no Linux), everybody on this machine may talk.
    """
    if client is None or not table.is_file():
        return True
    host, port = client
    octets = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    wanted = f"{octets}:{port:04X}"
    rows = (line.split() for line in table.read_text().splitlines()[1:])
    owners = {int(row[7]) for row in rows if row[1] == wanted}
    return not owners or bool(owners & {0, os.getuid()})
