"""Where processes can be reached over a network."""

from contextlib import suppress

import psutil


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """The addresses and ports at which a process, and those that it started, listen now."""
    addresses: list[tuple[str, int]] = []
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # one that has ended meanwhile listens no more
            addresses += [
                connection.laddr
                for connection in member.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    return addresses
