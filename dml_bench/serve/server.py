"""`dml-bench serve`: a run's gallery over HTTP until Ctrl-C or SIGTERM."""

import importlib.util
import socket
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.store import GalleryFile
from dml_bench.serve.guard import Guard, read_token
from dml_bench.serve.served_gallery import WantedThreshold
from dml_bench.serve.uploads import UploadLimits
from dml_bench.system.failures import ended_as_by_ctrl_c
from dml_bench.system.loopback import OwnRequests, is_loopback, listener, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServeRequest", "serve", "serving"]

PORT = 8000
GRACE_SECONDS = 5
"""How long requests in flight may take when the server is stopped. Docker kills after ten."""
NEEDED = ("fastapi", "uvicorn", "multipart", "prometheus_client")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeRequest:
    """What a person asks for."""

    gallery_file: GalleryFile
    device: str = "auto"
    wanted: WantedThreshold = field(default_factory=WantedThreshold)
    k: int = 10
    """Closest images that vote and are listed where a client does not say how many."""
    port: int = PORT
    """The port to bind; 0 is any free one."""
    address: str = "127.0.0.1"
    """The address to bind."""
    token_file: Path | None = None
    """The file with the secret that clients send."""
    limits: UploadLimits = field(default_factory=UploadLimits)
    say: Callable[[str], None] = lambda text: None


def serve(request: ServeRequest) -> None:
    """Answer until Ctrl-C or SIGTERM. Raises ValueError where packages, the gallery, the promise,
    the token or the port are missing, and KeyboardInterrupt when it is stopped."""
    with ended_as_by_ctrl_c(), serving(request) as (server, listening):
        server.run(sockets=[listening])


@contextmanager
def serving(request: ServeRequest) -> "Iterator[tuple[Any, socket.socket]]":
    """A server that is ready to run, and the socket at which it will listen. This process holds the
    gallery as long."""
    require_installed()
    import uvicorn

    from dml_bench.serve.app import application
    from dml_bench.serve.service import GalleryService

    token = checked_token(request)
    file = request.gallery_file
    with listener(request.port, request.address) as listening, file.lock():
        network = GalleryEmbedder(file.run, file.phase, request.device)
        service = GalleryService(file, network, request.wanted, request.limits)
        guarded = Guard(
            application(service, request.k),
            requests=OwnRequests(request.address, "dml-bench serve"),
            token=token,
            limits=request.limits,
            measurements=service.measurements,
        )
        config = uvicorn.Config(
            guarded,
            log_level="warning",
            access_log=False,
            ws="none",
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        url = url_of(request.address, listening.getsockname()[1])
        gallery = service.served.gallery
        request.say(
            f"{file.run.experiment.name}, phase {file.phase}: {len(gallery.class_names):,} classes,"
            f" {len(gallery.entries):,} images"
        )
        request.say(service.served.rule)
        request.say(f"{url} (programs: {url}docs)")
        request.say("Ctrl-C ends.")
        try:
            yield uvicorn.Server(config), listening
        finally:
            service.close()


def checked_token(request: ServeRequest) -> str:
    """The secret; empty where this machine alone is served and none is asked for."""
    if request.token_file is not None:
        return read_token(request.token_file)
    if not is_loopback(request.address):
        raise ValueError(
            f"other machines reach {request.address}: give --token-file FILE with a secret that"
            " clients have to send, or leave --address out"
        )
    return ""


def require_installed() -> None:
    """Raises ValueError where packages are missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"dml-bench serve needs {', '.join(missing)}: pip install 'dml-bench[serve]'"
        )
