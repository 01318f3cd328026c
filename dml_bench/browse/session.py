"""A run opened in FiftyOne: its dataset is written, and the app serves it until Ctrl-C."""

import getpass
import hashlib
import json
import os
import secrets
import signal
import socket
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dml_bench.browse import fiftyone_app
from dml_bench.browse.database import URI, DatabaseFolder, serve_database
from dml_bench.browse.decisions import DecidedTable, write_decisions
from dml_bench.browse.images import read_browse_table
from dml_bench.browse.near_duplicates import find_near_duplicates
from dml_bench.browse.server import Guard
from dml_bench.runs import layout
from dml_bench.runs.folder import digests
from dml_bench.runs.run import Run, open_run
from dml_bench.system.loopback import is_loopback, listener, url_of

__all__ = ["BrowseRequest", "browse", "database_folder", "dataset_name", "export", "forget"]

PORT = 5151
"""FiftyOne's usual port."""
FORMAT = 7
"""The version of what is written into the dataset; a dataset of another version is made anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BrowseRequest:
    """What a person asks for."""

    run: Path
    """The folder of the run."""
    cache_dir: Path
    """The folder that keeps the database."""
    data_dir: Path | None = None
    """The folder of the run's images, where they were moved."""
    port: int = 0
    """The port to bind; 0 is FiftyOne's own, or any free one."""
    address: str = "127.0.0.1"
    """The address to bind."""
    opens_browser: bool = True
    """Whether a browser is opened."""
    say: Callable[[str], None] = lambda text: None
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None


def browse(request: BrowseRequest) -> None:
    """Open the app and wait for Ctrl-C. Raises ValueError where FiftyOne, a database, the images or
    the port are missing."""
    fiftyone_app.require_installed()
    for ended in (signal.SIGTERM, signal.SIGHUP):  # as an ssh session that breaks off does
        signal.signal(ended, signal.default_int_handler)
    run = open_run(request.run, request.data_dir)
    if changed := run.images.changed(request.cache_dir):
        request.say(
            f"{len(changed):,} of the run's images are gone or were changed since, and are not what"
            f" it saw, e.g. {changed[0]}"
        )
    database, name, token = (
        database_folder(run, request.cache_dir),
        dataset_name(run),
        secrets.token_urlsafe(24),
    )
    with (
        chosen_listener(request) as listening,
        database.lock(),
        serve_database(database) as uri,
        fiftyone_app.connected(uri),
    ):
        prepare(run, name, request)
        port = listening.getsockname()[1]

        def guarded(application: Any, files: list[str]) -> Guard:
            return Guard(application, files=files, address=request.address, port=port, token=token)

        def ready() -> None:
            url = f"{url_of(request.address, port)}?token={token}"
            request.say(f"{name} at {url}")
            for line in welcome(request, port, token):
                request.say(line)
            if request.opens_browser:
                webbrowser.open(url)

        fiftyone_app.serve(name, listening, guarded, ready)


def prepare(run: Run, name: str, request: BrowseRequest) -> None:
    """Make or update the dataset, unless it is already of exactly this run."""
    state = state_of(run)
    if fiftyone_app.is_current(name, state):
        return
    start = time.monotonic()
    images = read_browse_table(run)
    request.say(f"{len(images.paths):,} images; the first time takes a while")
    near_duplicates = find_near_duplicates(images, request.progress)
    request.progress("drawing maps", 0, 1)
    maps = images.maps()
    request.progress("drawing maps", 1, 1)
    request.progress("writing the dataset", 0, 1)
    fiftyone_app.update(name, images, maps, near_duplicates, state)
    request.progress("writing the dataset", 1, 1)
    request.say(f"ready after {time.monotonic() - start:.0f} s")


def export(path: Path, out: Path, cache_dir: Path, data_dir: Path | None = None) -> DecidedTable:
    """Write the images of a run that was browsed as a table, with the decisions that a person kept
    as tags. Raises ValueError where the run was not browsed, or is open."""
    run = open_run(path, data_dir)
    database, name = database_folder(run, cache_dir), dataset_name(run)
    never = f"{path} was never browsed: dml-bench browse {path}, and tag images there"
    if URI not in os.environ and not database.folder.exists():
        raise ValueError(never)
    fiftyone_app.require_installed()
    with database.lock(), serve_database(database) as uri, fiftyone_app.connected(uri):
        tags = fiftyone_app.tags_of(name)
    if tags is None:
        raise ValueError(never)
    located = {
        str(run.images.located(run.images.recorded(at))): image.path
        for at, image in enumerate(run.split)
    }
    by_path = {located[file]: of_image for file, of_image in tags.items() if file in located}
    return write_decisions(run, by_path, out)


def forget(path: Path, cache_dir: Path) -> bool:
    """Remove a run's dataset and database; the run stays. Whether there was anything."""
    run = open_run(path)
    database, name = database_folder(run, cache_dir), dataset_name(run)
    with database.lock():
        if URI not in os.environ:
            return database.remove()
        fiftyone_app.require_installed()
        with serve_database(database) as uri, fiftyone_app.connected(uri):
            return fiftyone_app.remove(name)


def database_folder(run: Run, cache_dir: Path) -> DatabaseFolder:
    """The folder of a run\'s database."""
    return DatabaseFolder(cache_dir / "browse" / dataset_name(run))


def dataset_name(run: Run) -> str:
    """The experiment, the data set and the seed, told apart from those of other folders."""
    database = hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:6]
    return f"{run.experiment.name}-{run.summary['dataset']['name']}-seed-{run.seed}-{database}"


def state_of(run: Run) -> str:
    """A digest of all that the dataset is made of."""
    changed = digests(run.folder, sorted(layout.gallery(run.folder).glob("*.safetensors")))
    facts = [FORMAT, run.summary["files"], changed, str(run.images.known_root)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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
