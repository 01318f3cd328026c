"""Servers for people at this machine: sockets that only it reaches, and requests that a page of
another site can't have made.

Every web page that a user visits can send requests to 127.0.0.1, by that number or by a host name
of its own that leads there (DNS rebinding).
"""

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

__all__ = ["OwnRequests", "is_loopback", "listener", "url_of"]


class OwnRequests:
    """Tells requests to this server's own names, of its own pages and of programs, from those of
    other sites' pages.

    Args: address: where the server listens. One that other machines reach is also asked by its
    number and by this machine's name. command: the command that printed the server's address.
    """

    def __init__(self, address: str, command: str):
        names = () if is_loopback(address) else (address, socket.gethostname(), socket.getfqdn())
        self.names = {name.lower() for name in ("localhost", *names)}
        self.numbers = not is_loopback(address)
        self.command = command

    def reason_to_refuse(self, headers: Mapping[str, str]) -> str:
        """Why a request is refused whatever it asks for; empty where it is not."""
        host = headers.get("host", "")
        if not self.is_ours(host):
            return (
                f"{host!r} is no name of this server: ask it by the address that {self.command}"
                " printed"
            )
        origin = headers.get("origin")
        elsewhere = (
            headers.get("sec-fetch-site") in ("cross-site", "same-site")
            and headers.get("sec-fetch-mode") != "navigate"
        )
        if elsewhere or (origin is not None and host_of(origin) != host.lower()):
            return "pages of other sites may not ask this server"
        return ""

    def is_ours(self, host: str) -> bool:
        """Whether a Host header has a name that nobody else can have pointed here."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or is_loopback(name) or (self.numbers and is_number(name))


def host_of(origin: str) -> str:
    """Host and port of an Origin header; empty where it names none, or is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether an address or a name reaches this machine only."""
    return name == "localhost" or (is_number(name) and ip_address(name).is_loopback)


def is_number(name: str) -> bool:
    """Whether an address is a number, and no name."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def listener(wanted: int = 0, address: str = "127.0.0.1") -> socket.socket:
    """A socket that listens at a port, or for 0 at any free one. Raises ValueError where the port
    is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, wanted), family=family)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"port {wanted} of {address} can't be used ({error}): choose another with --port"
        ) from None


def url_of(address: str, port: int) -> str:
    """The URL of a server, with a slash at its end."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/"
