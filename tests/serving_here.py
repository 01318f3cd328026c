"""A server of a gallery in a thread of this process, at a port of this machine, and a client of
it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from dml_bench.gallery.store import GalleryFile, open_gallery_file
from dml_bench.serve.server import ServeRequest, serving


@contextmanager
def running(run: Path, folder: Path, **options: object) -> Iterator[httpx.Client]:
    """A server of a run, whose gallery is kept in `folder`, and a client of it."""
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", folder)
    request = ServeRequest(gallery_file=file, device="cpu", port=0, **options)
    with serving(request) as (server, listening):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(60)
