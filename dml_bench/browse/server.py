"""A guard for FiftyOne's server: it answers only requests with the token, to this machine's own
names, for files of the dataset.

FiftyOne's own server gives any file that its user may read to whoever reaches its port. Every user
of the machine reaches it, and so does every web page that the user visits, by a host name that
leads to 127.0.0.1 (DNS rebinding)."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from dml_bench.system.loopback import OwnRequests

__all__ = ["Guard"]

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Any, Send], Awaitable[None]]

ISOLATION_HEADERS = {
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"SAMEORIGIN",
    b"referrer-policy": b"no-referrer",
}
"""Headers of every response: other sites' pages can't show it, and don't learn its address."""


class Guard:
    """An ASGI application around another, which never sees a request that is refused.

    Args: app: the application. files: paths, as the application is asked for them by the parameter
    `filepath`. made: of some of these, what makes the file when it is first asked for. address:
    where the server listens. One that other machines reach is also asked by its number and by this
    machine's name. port: where the server listens, to tell cookies of several apart. token: the
    secret. A page that is opened with `?token=` gets it as a cookie and is loaded again without.
    """

    def __init__(
        self,
        app: Asgi,
        *,
        files: Iterable[str],
        address: str,
        port: int,
        token: str,
        made: Mapping[str, Callable[[], None]] = MappingProxyType({}),
    ):
        self.app = app
        self.files = frozenset(files)
        self.made = made
        self.requests = OwnRequests(address, "dml-bench browse")
        self.cookie = f"dml-bench-{port}"
        self.token = token

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # FiftyOne has none
        else:
            await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Any, send: Send) -> None:
        """Pass an HTTP request on, unless it is refused."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if reason := self.requests.reason_to_refuse(headers):
            await refuse(send, 403, reason)
        elif (
            any(name == "token" and self.is_token(value) for name, value in parameters)
            and scope["method"] == "GET"
        ):
            kept = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
            await reply(send, 303, "", {"location": "/", "set-cookie": kept})
        elif not self.is_token(self.token_of(headers)):
            await refuse(
                send, 403, "open the address that dml-bench browse printed, with its token"
            )
        elif any(
            name == "filepath" and value not in self.files for name, value in parameters
        ):  # whatever the route: routes have many spellings
            await refuse(send, 404, "this is no file of the dataset")
        else:
            for _, value in parameters:
                if value in self.made:
                    await asyncio.to_thread(self.made[value])
            await self.app(scope, receive, with_headers(send))

    def token_of(self, headers: dict[str, str]) -> str:
        """The token that a request's cookie has; empty where it has none."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return cookie.value if cookie else ""

    def is_token(self, text: str) -> bool:
        """Whether a text is the secret."""
        return hmac.compare_digest(text.encode(), self.token.encode())


def with_headers(send: Send) -> Send:
    """Send responses with headers that keep them from other sites' pages."""

    async def sent(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            others = [
                (name, value)
                for name, value in message.get("headers", [])
                if name.lower() not in ISOLATION_HEADERS
                and not name.lower().startswith(b"access-control-")
            ]
            message = message | {"headers": [*others, *ISOLATION_HEADERS.items()]}
        await send(message)

    return sent


async def refuse(send: Send, status: int, reason: str) -> None:
    await reply(
        send, status, f"dml-bench browse: {reason}\n", {"content-type": "text/plain; charset=utf-8"}
    )


async def reply(send: Send, status: int, text: str, headers: dict[str, str]) -> None:
    body = text.encode()
    headers = headers | {"content-length": str(len(body))}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*encoded, *ISOLATION_HEADERS.items(), (b"cache-control", b"no-store")],
        }
    )
    await send({"type": "http.response.body", "body": body})
