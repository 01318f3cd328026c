"""Requests per second of `dml-bench serve` and how long they take, beside photos that are predicted
one by one; and a thousand concurrent requests with enrolments, whose answers are all checked.

The server is a process of its own at 127.0.0.1. Every number of requests is bounded, and the server
is ended when they are answered.
"""

import asyncio
import contextlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import facts, options_of, table, write

import dml_bench as db
from dml_bench.system.loopback import listener

PATIENCE_SECONDS = 120
NEW_PHOTOS = 3
"""Photos of an enrolled class."""


def finished_run(folder: Path, size: int, classes: int) -> Path:
    """A ResNet-18 that was trained for one epoch: what it has learnt doesn't matter here."""
    birds = db.draw_birds(folder / "birds", classes=classes, per_class=12, size=320, seed=7)
    outcome = db.run(
        "EPSHN_cosine_resnet18_sgd_aug",
        overrides={
            "unseen": "last:2",
            "model.weights": "none",
            "train.epochs": 1,
            "images.size": size,
            "augment.random_crop_from": size + size // 8,
        },
        data_dir=birds,
        out=folder / "runs",
        cache_dir=folder / "cache",
    )
    return Path(outcome.folder)


@contextlib.contextmanager
def server_of(run: Path, gallery: Path) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    with listener() as free:
        port = free.getsockname()[1]
    options = ("--gallery", str(gallery), "--port", str(port))
    command = [sys.executable, "-m", "dml_bench", "serve", str(run), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_SECONDS)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(PATIENCE_SECONDS * 10):
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{url}/healthz")
            return
        if process.poll() is not None:
            raise SystemExit("the server ended")
        time.sleep(0.1)
    raise SystemExit("the server did not answer")


def one_by_one(run: Path, photos: Sequence[Path]) -> dict[str, Any]:
    """`Gallery.predict` of one photo after the other, which opens the network for each call."""
    gallery = db.Gallery(run)
    gallery.predict(photos[0])
    return timed([seconds_of(lambda path=path: gallery.predict(path)) for path in photos])


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timed(seconds: Sequence[float], total: float | None = None) -> dict[str, Any]:
    """Rate and percentiles, in milliseconds."""
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
    rate = len(seconds) / (sum(seconds) if total is None else total)
    return {"requests": len(seconds), "per_second": rate, "p50": p50, "p95": p95, "p99": p99}


async def requests_of(url: str, photos: Sequence[bytes], clients: int, count: int) -> dict:
    """So many clients, each of which asks again when it is answered."""
    numbers = iter(range(count))
    seconds: list[float] = []

    async def client_of(http: httpx.AsyncClient) -> None:
        for number in numbers:
            start = time.perf_counter()
            response = await http.post("/predict", files=[("images", photos[number % len(photos)])])
            assert response.status_code == 200, response.text
            seconds.append(time.perf_counter() - start)

    async with client_at(url, clients) as http:
        await client_of_warm_up(http, photos[0])
        start = time.perf_counter()
        await asyncio.gather(*(client_of(http) for _ in range(clients)))
        return timed(seconds, time.perf_counter() - start)


async def client_of_warm_up(http: httpx.AsyncClient, photo: bytes) -> None:
    """One request that isn't timed."""
    await http.post("/predict", files=[("images", photo)])


def client_at(url: str, connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, limits=limits)


class Mixed:
    """A thousand requests at once, and what became of them."""

    def __init__(self, http: httpx.AsyncClient, known: dict[bytes, str], new: list[list[bytes]]):
        self.http = http
        self.known = list(known.items())
        """Photos of the gallery, with their classes: nothing can be nearer to one than itself."""
        self.new = new
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.enrolled: list[str] = []

    async def all(self, count: int) -> None:
        """Every twentieth request enrols a class and asks for it at once."""
        requests: list[Awaitable[None]] = []
        for number in range(count):
            if number % 20 == 0:
                requests.append(self.enrol(number // 20))
            elif number % 20 == 1:
                requests.append(self.classes())
            else:
                requests.append(self.predict(*self.known[number % len(self.known)]))
        results = await asyncio.gather(*requests, return_exceptions=True)
        self.outcomes["lost"] += sum(isinstance(result, BaseException) for result in results)

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        start = time.perf_counter()
        for _ in range(PATIENCE_SECONDS):
            response = await self.http.request(method, path, **more)
            if response.status_code != 503:
                break
            self.outcomes["asked to wait"] += 1
            await asyncio.sleep(1)
        self.seconds.append(time.perf_counter() - start)
        self.outcomes["answered"] += 1
        return response

    async def predict(self, photo: bytes, class_name: str) -> None:
        response = await self.request("POST", "/predict", files=[("images", photo)])
        right = response.status_code == 200
        right = right and response.json()["answers"][0]["class"] == class_name
        self.outcomes["right" if right else "wrong"] += 1

    async def classes(self) -> None:
        response = await self.request("GET", "/classes")
        self.outcomes["right" if response.status_code == 200 else "wrong"] += 1

    async def enrol(self, number: int) -> None:
        name, photos = f"new {number}", self.new[number]
        files = [("images", photo) for photo in photos]
        response = await self.request("POST", "/enrol", data={"class": name}, files=files)
        right = response.status_code == 200 and response.json()["enrolled"] == len(photos)
        self.outcomes["right" if right else "wrong"] += 1
        self.enrolled.append(name)
        await self.predict(photos[0], name)


async def mixed(url: str, known: dict[bytes, str], new: list[list[bytes]], count: int) -> dict:
    """All at once; then the classes that the server has."""
    async with client_at(url, count) as http:
        requests = Mixed(http, known, new)
        start = time.perf_counter()
        await requests.all(count)
        total = time.perf_counter() - start
    return {
        **timed(requests.seconds, total),
        "outcomes": {
            name: requests.outcomes[name]
            for name in ("answered", "right", "wrong", "lost", "asked to wait")
        },
        "enrolled": requests.enrolled,
    }


def missing(url: str, names: Sequence[str]) -> int:
    """How many classes the server has not."""
    listed = httpx.get(f"{url}/classes", timeout=PATIENCE_SECONDS).json()["classes"]
    return len(set(names) - {row["class"] for row in listed})


def photos_in(folder: Path) -> list[bytes]:
    """The photos of a class."""
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def page(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, times in result["times"].items():
        rate = f"{times['per_second']:.1f}"
        rows.append([name, str(times["requests"]), rate, *(f"{times[p]:.0f}" for p in PERCENTILES)])
    outcomes = result["mixed"]["outcomes"]
    counts = ", ".join(f"{count:,} {name}" for name, count in outcomes.items())
    return [
        "",
        "Photos of 320 x 320 pixels, a ResNet-18 at"
        f" {result['size']} pixels, one photo a request. Server and clients share the cores.",
        "",
        *table(["", "requests", "a second", "p50 ms", "p95 ms", "p99 ms"], rows),
        "",
        f"The {result['mixed']['requests']:,} mixed requests came at once: {counts}. Each of the"
        f" {len(result['mixed']['enrolled'])} enrolled classes was asked for as soon as it was"
        f" acknowledged. Missing after all were answered: {result['missing']}; after a restart:"
        f" {result['missing_after_restart']}.",
    ]


PERCENTILES = ("p50", "p95", "p99")


def main() -> None:
    options = options_of(__doc__, size=224, count=1000, requests=300)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    if options.quick:
        options.size, options.count, options.requests = 64, 100, 40
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = finished_run(folder, options.size, 12)
        images = db.Gallery(run).file.read().entries
        known = {Path(image.path).read_bytes(): image.class_name for image in images}
        strangers = db.draw_birds(
            folder / "new", classes=options.count // 20, per_class=NEW_PHOTOS, size=64, seed=99
        )
        new = [photos_in(species) for species in sorted((strangers / "images").iterdir())]
        photos = list(known)
        result: dict[str, Any] = {**facts(), "size": options.size, "times": {}}
        times = result["times"]
        paths = [Path(image.path) for image in images]
        times["one by one: Gallery.predict"] = one_by_one(run, paths[: options.requests // 10])
        with server_of(run, folder / "gallery") as url:
            for clients in (1, 8, 32):
                noun = "client" if clients == 1 else "clients"
                measured = asyncio.run(requests_of(url, photos, clients, options.requests))
                times[f"serve, {clients} {noun}"] = measured
            result["mixed"] = asyncio.run(mixed(url, known, new, options.count))
            times["serve, all mixed requests at once"] = result["mixed"]
            result["missing"] = missing(url, result["mixed"]["enrolled"])
        with server_of(run, folder / "gallery") as url:
            result["missing_after_restart"] = missing(url, result["mixed"]["enrolled"])
    lines = page(result)
    write("serve", "Serving a gallery", result, lines, options.out)
    outcomes = result["mixed"]["outcomes"]
    if outcomes["wrong"] or outcomes["lost"] or result["missing_after_restart"]:
        sys.exit("error: answers were wrong or lost")


if __name__ == "__main__":
    main()
