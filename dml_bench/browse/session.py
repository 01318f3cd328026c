"""A run or embeddings opened in FiftyOne: a dataset is written, and the app serves it until
Ctrl-C."""

import getpass
import os
import secrets
import socket
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dml_bench.browse import fiftyone_app
from dml_bench.browse.browsable import Browsable
from dml_bench.browse.database import URI, DatabaseFolder, serve_database
from dml_bench.browse.decisions import DecidedTable, at_new_place, write_decisions
from dml_bench.browse.near_duplicates import find_near_duplicates
from dml_bench.browse.server import Guard
from dml_bench.browse.thumbnails import ThumbnailFolder
from dml_bench.data.datasets import Progress
from dml_bench.system.failures import ended_as_by_ctrl_c
from dml_bench.system.loopback import is_loopback, listener, url_of

__all__ = ["BrowseRequest", "browse", "database_folder", "export", "forget"]

PORT = 5151
"""FiftyOne's usual port."""
FORMAT = 11
"""The version of what is written into the dataset; a dataset of another version is made anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BrowseRequest:
    """What a person asks for."""

    browsable: Browsable
    cache_dir: Path
    """The folder that keeps the database."""
    port: int = 0
    """The port to bind; 0 is FiftyOne's own, or any free one."""
    address: str = "127.0.0.1"
    """The address to bind."""
    opens_browser: bool = True
    """Whether a browser is opened."""
    say: Callable[[str], None] = lambda text: None
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None


@ended_as_by_ctrl_c()
def browse(request: BrowseRequest) -> None:
    """Open the app and wait for Ctrl-C. Raises ValueError where FiftyOne, a database, the images or
    the port are missing."""
    fiftyone_app.require_installed()
    browsable = request.browsable
    if changed := browsable.changed(request.cache_dir):
        request.say(
            f"{len(changed):,} of the images are gone or were changed since, and are not what"
            f" was embedded, e.g. {changed[0]}"
        )
    database, name = database_folder(browsable, request.cache_dir), browsable.name
    token = secrets.token_urlsafe(24)
    with (
        chosen_listener(request) as listening,
        database.lock(),
        serve_database(database) as uri,
        fiftyone_app.connected(uri),
    ):
        prepare(request)
        port = listening.getsockname()[1]

        def guarded(
            application: Any, files: list[str], made: dict[str, Callable[[], None]]
        ) -> Guard:
            return Guard(
                application,
                files=files,
                made=made,
                address=request.address,
                port=port,
                token=token,
            )

        def ready() -> None:
            url = f"{url_of(request.address, port)}?token={token}"
            request.say(f"{name} at {url}")
            for line in welcome(request, port, token):
                request.say(line)
            if request.opens_browser:
                webbrowser.open(url)

        fiftyone_app.serve(name, listening, guarded, ready)


def prepare(request: BrowseRequest) -> None:
    """Make or update the dataset, unless it is already of exactly this."""
    name, state = request.browsable.name, request.browsable.state(FORMAT)
    if fiftyone_app.is_current(name, state):
        return
    start = time.monotonic()
    images = request.browsable.table()
    request.say(f"{len(images.paths):,} images; the first time takes a while")
    near_duplicates = find_near_duplicates(images, request.progress)
    request.progress("drawing maps", 0, 1)
    maps = images.maps()
    request.progress("drawing maps", 1, 1)
    request.progress("writing the dataset", 0, 1)
    thumbnails = ThumbnailFolder.of(request.cache_dir, request.browsable.root)
    root = request.browsable.root
    fiftyone_app.update(name, images, maps, near_duplicates, state, thumbnails, root)
    request.progress("writing the dataset", 1, 1)
    request.say(f"ready after {time.monotonic() - start:.0f} s")


def export(browsable: Browsable, out: Path, cache_dir: Path, progress: Progress) -> DecidedTable:
    """Write the images of what was browsed as a table, with the decisions that a person kept as
    tags. Raises ValueError where it was not browsed, or is open."""
    database, name = database_folder(browsable, cache_dir), browsable.name
    of = browsable.described
    never = f"{of} was never browsed: dml-bench browse {of}, and tag images there"
    if URI not in os.environ and not database.folder.exists():
        raise ValueError(never)
    fiftyone_app.require_installed()
    progress("reading decisions", 0, 1)
    with database.lock(), serve_database(database) as uri, fiftyone_app.connected(uri):
        tags = fiftyone_app.tags_of(name)
    progress("reading decisions", 1, 1)
    if tags is None:
        raise ValueError(never)
    files, images = zip(*browsable.images, strict=True)
    tags = at_new_place(tags, files, str(browsable.root))
    by_path = {}
    for file, image in zip(files, images, strict=True):
        if file in tags:
            by_path[image.path] = tags[file]
    return write_decisions(images, browsable.class_names, by_path, out)


def forget(browsable: Browsable, cache_dir: Path) -> bool:
    """Remove a dataset and its database; the run stays. Whether there was anything."""
    database = database_folder(browsable, cache_dir)
    with database.lock():
        if URI not in os.environ:
            return database.remove()
        fiftyone_app.require_installed()
        with serve_database(database) as uri, fiftyone_app.connected(uri):
            return fiftyone_app.remove(browsable.name)


def database_folder(browsable: Browsable, cache_dir: Path) -> DatabaseFolder:
    """The folder of its database."""
    return DatabaseFolder(cache_dir / "browse" / browsable.name)


def chosen_listener(request: BrowseRequest) -> socket.socket:
    """At the port that is asked for, else at FiftyOne's own or any free one. Raises ValueError
    where the one asked for is taken."""
    if request.port:
        return listener(request.port, request.address)
    try:
        return listener(PORT, request.address)
    except ValueError:
        return listener(0, request.address)


def welcome(request: BrowseRequest, port: int, token: str) -> list[str]:
    """Who reaches the app, or how a person at another machine does, and how it ends."""
    if not is_loopback(request.address):
        return [
            "Anyone who has this address sees the images and can change tags and views; it travels"
            " unencrypted.",
            "Ctrl-C ends.",
        ]
    if request.opens_browser:
        return ["Ctrl-C ends."]
    return [
        f"From another machine: ssh -N -L {port}:127.0.0.1:{port} {login()}",
        f"then open http://localhost:{port}/?token={token} there. Ctrl-C ends.",
    ]


def login() -> str:
    """What ssh calls this account; HOST stands for a name that only the person knows."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname() or 'HOST'}"
    except (OSError, KeyError):  # an account without a name
        return "HOST"
