"""A server that is killed under load: what it acknowledged is there, and nothing is there in
parts."""

import io
import itertools
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

import httpx
import psutil
import pytest
from forked import ForkedCommand
from listening import listening
from PIL import Image

from dml_bench.gallery.store import GalleryFile, open_gallery_file
from dml_bench.serve import server as server_module

CLIENTS = 4
PHOTOS = 2
"""Photos of a class."""
MOST = 400
"""Requests of a client, which end by themselves."""


def photo(number: int) -> bytes:
    """A photo unlike all others."""
    content = io.BytesIO()
    colour = (number % 256, number // 256 % 256, number // 65536)
    Image.new("RGB", (24, 24), colour).save(content, "PNG")
    return content.getvalue()


class Load:
    """Clients that enrol classes and remove some of them, until the server is gone."""

    def __init__(self, url: str, numbers: "itertools.count[int]"):
        self.url = url
        self.numbers = numbers
        self.lock = threading.Lock()
        self.enrolled: set[str] = set()
        """Classes whose enrolment was acknowledged, and whose removal nobody asked for."""
        self.removed: set[str] = set()
        """Classes whose removal was acknowledged."""
        self.threads = [threading.Thread(target=self.ask) for _ in range(CLIENTS)]

    def wait_for_changes(self, count: int) -> None:
        """Until so many changes were acknowledged."""
        for _ in range(3000):
            if len(self.enrolled) + len(self.removed) >= count:
                return
            time.sleep(0.01)

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            for _ in range(MOST):
                try:
                    self.change(client)
                except httpx.HTTPError:
                    return

    def change(self, client: httpx.Client) -> None:
        with self.lock:
            number = next(self.numbers)
        name = f"class {number}"
        files = [("images", photo(PHOTOS * number + place)) for place in range(PHOTOS)]
        assert client.post("/enrol", data={"class": name}, files=files).status_code == 200
        if number % 5:
            self.enrolled.add(name)
        else:
            assert client.delete(f"/classes/{name}").status_code == 200
            self.removed.add(name)


def killed_under_load(run: Path, folder: Path, kills: int) -> tuple[int, int]:
    """Kill a server so many times; the numbers of acknowledged classes and of those that were cut
    off. Asserts after each death that the gallery is whole."""
    dice, numbers = Random(7), itertools.count(1)
    enrolled: set[str] = set()
    removed: set[str] = set()
    unacknowledged: set[str] = set()
    others = set(listening(psutil.Process()))
    arguments = ["serve", str(run), "--gallery", str(folder), "--port", "0", "--device", "cpu"]
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", folder)
    for _ in range(kills):
        server = ForkedCommand(arguments)
        load = Load(url_of(server, others), numbers)
        for thread in load.threads:
            thread.start()
        load.wait_for_changes(dice.randint(1, 12))
        time.sleep(dice.uniform(0, 0.05))
        server.send_signal(signal.SIGKILL)
        for thread in load.threads:
            thread.join()
        server.communicate()
        enrolled |= load.enrolled
        removed |= load.removed
        unacknowledged |= classes_of_load(file, enrolled, removed) - enrolled
    return len(enrolled) + len(removed), len(unacknowledged)


def classes_of_load(file: GalleryFile, enrolled: set[str], removed: set[str]) -> set[str]:
    """The classes of the load that the gallery has. Asserts that it is whole."""
    gallery = file.read(new=True)
    sizes = Counter(entry.class_name for entry in gallery.entries)
    assert enrolled <= sizes.keys(), "an acknowledged enrolment is lost"
    assert not removed & sizes.keys(), "an acknowledged removal came back"
    mine = {name: size for name, size in sizes.items() if name.startswith("class ")}
    assert set(mine.values()) <= {PHOTOS}, "a class has a part of its photos"
    for entry in gallery.entries:
        if entry.class_name in mine:
            assert Path(entry.path).is_file(), "the gallery names a photo that is not there"
    return set(mine)


def url_of(server: ForkedCommand, others: set[tuple[str, int]]) -> str:
    """Where it listens, besides the others of which a fork has inherited the sockets. Whoever asks
    before it answers, waits."""
    while not (own := set(listening(psutil.Process(server.pid))) - others):
        assert server.poll() is None, server.communicate()
        time.sleep(0.02)
    [(address, port)] = own
    return f"http://{address}:{port}"


@pytest.fixture
def run(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP], ids=lambda end: end.name)
def test_a_server_that_is_told_to_end_under_load_ends_in_order(run, tmp_path, monkeypatch, end):
    monkeypatch.setattr(server_module, "GRACE_SECONDS", 2)
    folder, others = tmp_path / "gallery", set(listening(psutil.Process()))
    file = GalleryFile(open_gallery_file(run, "all", None).run, "all", folder)
    server = ForkedCommand(
        ["serve", str(run), "--gallery", str(folder), "--port", "0", "--device", "cpu"]
    )
    url = url_of(server, others)
    load = Load(url, itertools.count(1))
    for thread in load.threads:
        thread.start()
    load.wait_for_changes(5)
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as slow:
        slow.sendall(b"POST /enrol HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nbegun")
        server.send_signal(end)
        server.wait(timeout=30)
    for thread in load.threads:
        thread.join()
    _, errors = server.communicate()
    assert (server.returncode, errors.splitlines()[-1]) == (130, "stopped")
    unacknowledged = classes_of_load(file, load.enrolled, load.removed) - load.enrolled
    being_removed = {name for name in unacknowledged if int(name.removeprefix("class ")) % 5 == 0}
    assert unacknowledged == being_removed, "an enrolment was carried out and not answered"
    assert not file.journal_path.exists(), "the gallery was not written as a whole"


@pytest.mark.slow
def test_a_server_that_is_killed_under_load_loses_no_acknowledged_change(run, tmp_path):
    acknowledged, _ = killed_under_load(run, tmp_path / "gallery", kills=3)
    assert acknowledged >= 3


@pytest.mark.slow
def test_that_holds_for_a_hundred_kills(run, tmp_path):
    acknowledged, unacknowledged = killed_under_load(run, tmp_path / "gallery", kills=100)
    print(f"{acknowledged} changes acknowledged, {unacknowledged} more were on the disk")
    assert acknowledged > 500
