"""Around the application: who may ask, how much a request may bring, how long it may take to
arrive, and what a browser may do with the answers."""

import asyncio
import contextlib
import hmac
import json
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from dml_bench.serve.measurements import Measurements
from dml_bench.serve.uploads import MOST_MEGABYTES, RefusedRequest, UploadLimits
from dml_bench.system.loopback import OwnRequests

__all__ = ["Guard", "read_token"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/page.css", "/page.js", "/docs", "/openapi.json", "/healthz")
"""Paths that need no token: they show nothing of the gallery."""
COUNTED = ("predict", "enrol", "classes", "gallery", "images", "metrics", "healthz")
"""First parts of paths that are counted by name; all others are counted together, as anybody can
think of new ones."""
SHORTEST_TOKEN = 24
MOST_ARRIVING = int(MOST_MEGABYTES * 1e6)
"""Bytes of bodies that are held at a time, of all requests together."""
UNREAD_SECONDS = 5
"""How long the body of a refused request is waited for."""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:;"
        b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""Of every response."""


def read_token(path: Path) -> str:
    """The secret in a file that only its owner reads. Raises ValueError."""
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{path} can be read by other users: chmod 600 {path}")
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"the token in {path} must be one line of at least {SHORTEST_TOKEN} letters and"
            f" digits: openssl rand -hex 24 > {path}"
        )
    return token


class Guard:
    """An ASGI application around another, which never sees a request that is refused.

    Args: app: the application. requests: tells requests of this server's own pages from others';
    needed where there is no token, because only then does a browser's request carry a right by
    itself. token: the secret; empty where none is asked for.
    """

    def __init__(
        self,
        app: Asgi,
        *,
        requests: OwnRequests,
        token: str,
        limits: UploadLimits,
        measurements: Measurements,
    ):
        self.app = app
        self.requests = requests
        self.token = token
        self.limits = limits
        self.measurements = measurements
        self.arriving = 0
        """Bytes of bodies that are held now."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, answered = time.perf_counter(), 500, False

        async def counted(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                others = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if name.lower() not in HEADERS
                ]
                message = {**message, "headers": [*others, *HEADERS.items()]}
            await send(message)

        try:
            await self.answer(scope, receive, counted)
        except asyncio.CancelledError:  # by a second Ctrl-C, or seconds after the first
            if not answered:
                text = "the server was stopped before it answered: ask again when it runs"
                await refuse(counted, 503, text)
        finally:
            part = scope["path"].strip("/").partition("/")[0]
            route = f"/{part}" if part in COUNTED else "other"
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
            seconds = time.perf_counter() - start
            self.measurements.request_ended(route, method, status, seconds)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, unless it is refused."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        if not self.token and (reason := self.requests.reason_to_refuse(headers)):
            await self.refuse_unread(receive, send, 403, reason)
            return
        if self.token and scope["path"] not in OPEN and not self.has_token(headers):
            text = "the token is missing or wrong: send Authorization: Bearer TOKEN"
            await self.refuse_unread(receive, send, 401, text)
            return
        held = 0
        try:
            body = bytearray()
            async with asyncio.timeout(self.limits.seconds):
                async for part in self.parts(headers, receive):
                    held += len(part)
                    self.arriving += len(part)
                    body += part
                    self.check(held)
            await self.app(scope, once(bytes(body), receive), send)
        except RefusedRequest as refusal:
            await self.refuse_unread(receive, send, refusal.status, str(refusal))
        except TimeoutError:
            await refuse(send, 408, f"the body took more than {self.limits.seconds:g} s to arrive")
        finally:
            self.arriving -= held

    async def refuse_unread(self, receive: Receive, send: Send, status: int, text: str) -> None:
        """Refuse a request whose body hasn't arrived. Some of it is waited for and thrown away: a
        connection that ends before may take the response with it."""
        left = self.limits.num_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_SECONDS):
                more = True
                while more and left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    more = message.get("more_body", False)
        await refuse(send, status, text)

    async def parts(self, headers: dict[str, str], receive: Receive) -> AsyncIterator[bytes]:
        """The parts of a body. Raises RefusedRequest where it says itself that it is too large."""
        length = headers.get("content-length", "0")
        self.check(int(length) if length.isdigit() else 0)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedRequest(400, "the connection ended before the body did")
            yield message.get("body", b"")
            more = message.get("more_body", False)

    def check(self, size: int) -> None:
        """Raises RefusedRequest where a body, or all of them together, are too large."""
        if size > self.limits.num_bytes:
            raise RefusedRequest(
                413,
                f"a request may have {self.limits.megabytes:g} MB: send fewer or smaller images",
            )
        if self.arriving > MOST_ARRIVING:
            raise RefusedRequest(503, "too many requests at once: try again in a second")

    def has_token(self, headers: dict[str, str]) -> bool:
        """Whether a request brings the secret."""
        kind, _, secret = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            secret.strip().encode("latin-1"), self.token.encode()
        )


def once(body: bytes, receive: Receive) -> Receive:
    """Gives a body that has arrived; after it, what the client does."""
    given_out = False

    async def received() -> Message:
        nonlocal given_out
        if given_out:
            return await receive()
        given_out = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received


async def refuse(send: Send, status: int, text: str) -> None:
    """A response that says why."""
    body = json.dumps({"error": text}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
