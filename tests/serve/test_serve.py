"""A gallery over HTTP: a real server in a thread of this process, asked by a real client."""

import asyncio
import base64
import errno
import hashlib
import io
import json
import re
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from warnings import catch_warnings

import httpx
import numpy as np
import pytest
from image_forms import written
from PIL import Image
from serving_here import running
from tiny import refusal

import dml_bench as db
from dml_bench.data.cache import View
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.predict import AppliedThreshold
from dml_bench.gallery.store import Gallery, GalleryFile, Step, open_gallery_file
from dml_bench.serve import uploads
from dml_bench.serve.batching import Batches
from dml_bench.serve.changes import Changes, Enrol, Remove
from dml_bench.serve.guard import Guard
from dml_bench.serve.measurements import Measurements
from dml_bench.serve.served_gallery import Calibration, ServedGallery
from dml_bench.serve.uploads import Photo, SentImage, UploadLimits, read_photo
from dml_bench.system.loopback import OwnRequests

NEW = "009.Newcomer"
EMPTY = Gallery((), np.empty((0, 2)))


@pytest.fixture(scope="module")
def finished(trained) -> Path:
    return trained("train.precision=float32").folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, list[Path]]:
    """Photos of two species that the run does not know."""
    from dml_bench.data.synthetic import write

    folder = (
        write(tmp_path_factory.mktemp("new") / "drawn", counts=[4, 4], size=48, seed=77) / "images"
    )
    return {path.name: sorted(path.iterdir()) for path in sorted(folder.iterdir())}


@pytest.fixture
def newcomers(drawn) -> list[Path]:
    return next(iter(drawn.values()))


@pytest.fixture
def client(finished, tmp_path) -> Iterator[httpx.Client]:
    with running(finished, tmp_path / "gallery") as client:
        yield client


def sent(paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    """Files of a form."""
    return [("images", (path.name, path.read_bytes())) for path in paths]


def enrol(client: httpx.Client, name: str, paths: list[Path]) -> httpx.Response:
    return client.post("/enrol", data={"class": name}, files=sent(paths))


def predicted(client: httpx.Client, paths: list[Path]) -> list[dict]:
    response = client.post("/predict", files=sent(paths))
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def classes(client: httpx.Client) -> dict[str, int]:
    listed = client.get("/classes").json()["classes"]
    return {row["class"]: row["images"] for row in listed}


@pytest.fixture
def photo(finished) -> Path:
    """An image of the run's own gallery."""
    return Path(open_gallery_file(finished, "all", None).read().entries[0].path)


def test_the_server_answers_as_predict_does_for_every_form_of_image(
    client, finished, photo, tmp_path
):
    folder = tmp_path / "forms"
    folder.mkdir()
    paths = written(folder, Image.open(photo).convert("RGB"))
    expected = db.Gallery(finished, device="cpu").predict(paths)
    answers = predicted(client, paths)
    assert len(paths) == 43
    assert [answer["image"] for answer in answers] == [path.name for path in paths]
    for answer, prediction in zip(answers, expected, strict=True):
        assert answer["class"] == prediction.class_name
        assert answer["similarity"] == pytest.approx(prediction.similarity, abs=1e-5)
        assert answer["vote"]["class"] == prediction.vote_class
        assert answer["closest"][0]["file"] == Path(prediction.closest[0][0].path).name


def test_a_form_and_json_with_base64_have_the_same_answer(client, photo):
    data = base64.b64encode(photo.read_bytes()).decode()
    body = {"images": [data, {"name": "mine.jpg", "data": data}]}
    answers = client.post("/predict?k=3", json=body).json()["answers"]
    (by_form,) = client.post("/predict?k=3", files=sent([photo])).json()["answers"]
    assert [answer.pop("image") for answer in (*answers, by_form)] == [
        "image 1",
        "mine.jpg",
        photo.name,
    ]
    for answer in answers:
        assert answer["similarity"] == pytest.approx(by_form["similarity"], abs=1e-5)
        assert answer["vote"] == by_form["vote"]
        assert [near["image"] for near in answer["closest"]] == [
            near["image"] for near in by_form["closest"]
        ]
    assert by_form["vote"]["k"] == len(by_form["closest"]) == 3


def test_a_class_is_known_as_soon_as_it_is_enrolled_and_after_a_restart(
    finished, newcomers, tmp_path
):
    folder = tmp_path / "gallery"
    with running(finished, folder) as client:
        before = classes(client)
        response = enrol(client, NEW, newcomers[:3])
        assert response.json() == {
            "class": NEW,
            "is_new": True,
            "enrolled": 3,
            "already_there": 0,
        }
        (answer,) = predicted(client, [newcomers[0]])
        assert (answer["class"], answer["closest"][0]["origin"]) == (NEW, "enrolled")
        assert classes(client) == {**before, NEW: 3}
    (kept,) = (path for path in db.Gallery(finished, folder=folder).predict(newcomers[0], k=1))
    assert kept.class_name == NEW
    with running(finished, folder) as client:
        assert classes(client) == {**before, NEW: 3}
        assert client.delete(f"/classes/{NEW}").json() == {"class": NEW, "removed": 3}
        assert classes(client) == before
    assert list((folder / "all.photos").iterdir()) == [], "removed photos are deleted"


def test_photos_that_came_here_survive_a_move_and_the_loss_of_the_file(finished, drawn, tmp_path):
    """No other file has them: the gallery may lie in another place, or under a link to it."""
    kept, removed = drawn.items()
    with running(finished, tmp_path / "gallery") as client:
        for name, photos in (kept, removed):
            enrol(client, name, photos[:3])
    moved = (tmp_path / "gallery").rename(tmp_path / "elsewhere")
    with running(finished, moved) as client:
        assert len(list((moved / "all.photos").iterdir())) == 6
        closest = predicted(client, kept[1][:1])[0]["closest"][0]
        assert client.get(closest["image"]).status_code == 200
        client.delete(f"/classes/{removed[0]}")
    assert len(list((moved / "all.photos").iterdir())) == 3
    (moved / "all.safetensors").unlink()  # as one is told to, where it is damaged
    with running(finished, moved) as client:
        assert kept[0] not in classes(client)
    assert len(list((moved / "all.photos").iterdir())) == 3


def test_enrolling_is_all_or_nothing(client, newcomers, photo, tmp_path):
    before = classes(client)
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    refused = enrol(client, NEW, [newcomers[0], text])
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("nothing was enrolled: text.jpg: must be an image")
    taken = enrol(client, NEW, [newcomers[0], photo])
    assert taken.status_code == 409
    assert taken.json()["error"].startswith(f"{photo.name} (class {NEW}) has the same bytes as an")
    assert "/" not in taken.json()["error"], "nobody learns where files lie"
    assert classes(client) == before
    assert enrol(client, NEW, [newcomers[0]] * 2).json()["already_there"] == 1


def test_what_the_gallery_has_not_is_said_in_one_line(client):
    response = client.delete("/classes/Dodo")
    assert response.status_code == 404
    assert response.json()["error"].startswith("the gallery has no class 'Dodo'")
    assert client.get("/images/nothing").status_code == 404
    for path in ("/nowhere", "/predict"):
        error = client.get(path).json()["error"]
        assert error == f"there is no GET {path}: GET /docs lists all requests"


def test_images_of_the_gallery_are_shown_small(client, newcomers):
    enrol(client, NEW, newcomers[:1])
    for near in predicted(client, newcomers[:1])[0]["closest"][:3]:
        response = client.get(near["image"])
        assert response.headers["content-type"] == "image/jpeg"
        assert max(Image.open(io.BytesIO(response.content)).size) <= 192


# What a stranger sends


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and which holds nothing of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


HOSTILE = {
    "a decompression bomb": (png(60_000, 60_000), "must have at most 50 megapixels"),
    "a bomb beyond Pillow's own limit": (png(2**31 - 1, 2**31 - 1), "must have at most 50"),
    "a cut PNG": (png(64, 64), "can't be decoded"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "must be an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "must be an image"),
    "nothing": (b"", "must be an image"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_is_refused_beside_a_good_one(client, photo, kind):
    data, reason = HOSTILE[kind]
    files = [("images", ("../../etc#1,2,3,4", data)), *sent([photo])]
    response = client.post("/predict", files=files).json()
    (fault,) = response["unreadable"]
    assert reason in fault["reason"]
    assert len(response["answers"]) == 1
    alone = client.post("/predict", files=files[:1])
    assert (alone.status_code, reason in alone.json()["error"]) == (422, True)


FORM = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n--b--'


def posted(client: httpx.Client, header: str, body: bytes) -> httpx.Response:
    """The answer to a form as it is."""
    kind = {"content-type": f"multipart/form-data; {header}"}
    return client.post("/predict", content=body, headers=kind)


def test_a_request_that_can_not_be_read_is_refused_with_the_next_step(client, photo):
    answers = {
        "no image": client.post("/predict", files=[("other", ("a.jpg", b"x"))]),
        "no base64": client.post("/predict", json={"images": ["%%%"]}),
        "no list": client.post("/predict", json={"images": "x"}),
        "no JSON": client.post(
            "/predict", content=b"{", headers={"content-type": "application/json"}
        ),
        "no form": client.post("/predict", content=b"x"),
        "another boundary": posted(client, "boundary=a", b"--b\r\n\r\nx\r\n--b--"),
        "long boundary": posted(client, f"boundary={'a' * 300}", b"x"),
        "no charset": posted(client, "boundary=b; charset=undefined", FORM),
        "k": client.post("/predict?k=0", files=sent([photo])),
        "no class": client.post("/enrol", files=sent([photo])),
        "two lines": client.post("/enrol", data={"class": "a\nb"}, files=sent([photo])),
        "dots": client.post("/enrol", data={"class": ".."}, files=sent([photo])),
        "many": client.post("/predict", files=sent([photo] * 65)),
    }
    statuses = {name: response.status_code for name, response in answers.items()}
    assert statuses == {
        "no image": 422,
        "no base64": 422,
        "no list": 422,
        "no JSON": 400,
        "no form": 415,
        "another boundary": 400,
        "long boundary": 400,
        "no charset": 400,
        "k": 422,
        "no class": 422,
        "two lines": 422,
        "dots": 422,
        "many": 413,
    }
    for response in answers.values():
        (line,) = response.json()["error"].splitlines()
        assert ": " in line
    assert client.post("/predict", files=sent([photo] * 70)).json() == answers["many"].json()
    assert len(predicted(client, [photo])) == 1, "the server answers as before"


def form_of(name: str, photos: list[Path]) -> bytes:
    """A form with a class and photos, as bytes with the boundary b."""
    file = b'name="images"; filename="a"\r\n\r\n'
    fields = [b'name="class"\r\n\r\n' + name.encode()]
    fields += [file + path.read_bytes() for path in photos]
    parts = [b"--b\r\nContent-Disposition: form-data; " + field + b"\r\n" for field in fields]
    return b"".join(parts) + b"--b--\r\n"


@pytest.mark.parametrize("lost", [3, 4, 5, 7, 20], ids="{} bytes".format)
def test_a_form_without_its_closing_boundary_is_refused_and_enrols_nothing(client, newcomers, lost):
    before, form = classes(client), form_of("newcomer", newcomers[:2])
    kind = {"content-type": "multipart/form-data; boundary=b"}
    refused = client.post("/enrol", content=form[:-lost], headers=kind)
    assert refused.status_code == 400
    assert refused.json()["error"].endswith("closing boundary is missing, so send all of it again")
    assert classes(client) == before
    assert client.post("/enrol", content=form[:-2], headers=kind).json()["enrolled"] == 2


def test_a_file_of_two_formats_is_decoded_as_the_one_that_was_looked_at(monkeypatch):
    Image.init()
    monkeypatch.setattr(Image, "ID", ["IM", *Image.ID])  # the order depends on what ran before
    # A header of IM, which Pillow tries first, stands before the directory of a black TIFF.
    red = b": \nImage type: RGB image\nImage size (x*y): 8*8\n\x1a" + 64 * b"\xff\0\0"
    at = 8 + len(red)
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: at + 102, 277: 1, 279: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    data = b"II*\0" + struct.pack("<I", at) + red + directory + bytes(64)
    with catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
        assert image.format == "IM"
    photo = read_photo(SentImage("both", data), View(fit="squash", size=8), UploadLimits())
    assert (photo.suffix, photo.pixels.max()) == (".tiff", 0)


def test_images_are_counted_before_they_are_looked_at(client, photo, monkeypatch):
    read, send = [], uploads.sent_image

    def counted(image: object, place: int) -> SentImage:
        read.append(place)
        return send(image, place)

    monkeypatch.setattr(uploads, "sent_image", counted)
    refused = client.post("/predict", json={"images": [""] * 100_000})
    assert (refused.status_code, len(read)) == (413, 0)
    assert refused.json() == client.post("/predict", files=sent([photo] * 65)).json()


def test_a_name_that_is_no_text_comes_back_as_it_was_sent(client, photo):
    name = "a\ud800b"  # half of a character, which UTF-8 has no bytes for
    image = {"name": name, "data": base64.b64encode(photo.read_bytes()).decode()}
    header = {"content-type": "application/json"}
    body, damaged = (json.dumps({"images": [{**image, **other}]}) for other in ({}, {"data": "%"}))
    answer = client.post("/predict", content=body, headers=header)
    assert answer.json()["answers"][0]["image"] == name
    refused = client.post("/predict", content=damaged, headers=header)
    assert refused.json()["error"].startswith(f"{name} is no base64")


def test_what_the_disk_refuses_is_said_and_shows_no_path(client, newcomers, photo, tmp_path):
    (tmp_path / "gallery" / "all.photos").write_text("a file where photos should lie")
    refused = enrol(client, NEW, newcomers)
    assert (refused.status_code, "server printed why" in refused.json()["error"]) == (500, True)
    assert str(tmp_path) not in refused.text
    assert NEW not in classes(client)
    assert len(predicted(client, [photo])) == 1, "the server answers as before"


def test_requests_that_are_given_up_leave_the_threads_at_work(finished, photo):
    """As a second Ctrl-C gives up all that wait."""
    network = GalleryEmbedder(db.load_run(finished), "all", "cpu")
    begun, goes_on = threading.Event(), threading.Event()

    def search(embeddings, ks):
        begun.set()
        assert goes_on.wait(60)
        return ks

    batches = Batches(network, search)
    pixels = np.zeros((1, network.view.size, network.view.size, 3), np.uint8)
    (first,) = batches.put(pixels, 1)
    assert begun.wait(60)
    given_up, last = batches.put(pixels, 2) + batches.put(pixels, 3)
    assert given_up.cancel()
    assert not first.cancel()
    goes_on.set()
    assert [first.result(60), last.result(60)] == [1, 3]
    batches.close()


def test_who_waits_while_the_server_is_stopped_is_told_so():
    begun, sent_back = asyncio.Event(), []
    nothing_chosen = Calibration(EMPTY, AppliedThreshold(value=0.5), "", None)

    async def answers_never(scope, receive, send):
        begun.set()
        await asyncio.Event().wait()

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent_back.append(message)

    async def ask_and_stop():
        guard = Guard(
            answers_never,
            requests=OwnRequests("127.0.0.1", "dml-bench serve"),
            token="",
            limits=UploadLimits(),
            measurements=Measurements(ServedGallery(EMPTY, nothing_chosen)),
        )
        scope = {"type": "http", "path": "/predict", "method": "POST"}
        headers = [(b"host", b"127.0.0.1:8000")]
        asking = asyncio.create_task(guard({**scope, "headers": headers}, receive, send))
        await begun.wait()
        asking.cancel()
        await asking

    asyncio.run(ask_and_stop())
    start, body = sent_back
    assert start["status"] == 503
    assert json.loads(body["body"])["error"].endswith("ask again when it runs")


def test_a_change_that_is_given_up_while_it_waits_is_not_made(finished, tmp_path):
    file = GalleryFile(db.load_run(finished), "all", tmp_path / "gallery")
    begun, goes_on = threading.Event(), threading.Event()

    def publish(gallery):
        begun.set()
        assert goes_on.wait(60)

    with file.lock():
        gallery = file.read(new=True).hashed()
        changes = Changes(file, gallery, publish)
        first = changes.put(Remove(gallery.class_names[0]))
        assert begun.wait(60)
        given_up, last = (changes.put(Remove(name)) for name in gallery.class_names[1:3])
        assert given_up.cancel()
        goes_on.set()
        removed = [first.result(60).class_name, last.result(60).class_name]
        changes.close()
    assert removed == [gallery.class_names[0], gallery.class_names[2]]
    assert gallery.class_names[1] in file.read().class_names


def test_a_photo_stays_whole_where_its_class_goes_and_it_can_not_come_back(
    finished, newcomers, tmp_path, monkeypatch
):
    file = GalleryFile(db.load_run(finished), "all", tmp_path / "gallery")
    data = newcomers[0].read_bytes()
    begun, goes_on = threading.Event(), threading.Event()

    def publish(gallery):
        begun.set()
        assert goes_on.wait(60)

    def refused(place, *_: object):
        if place == kept:
            kept.write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device")

    with file.lock():
        gallery = file.read(new=True).hashed()
        photo = Photo("a.png", data, hashlib.sha256(data).hexdigest(), ".png", np.empty(0))
        changes = Changes(file, gallery, publish)
        changes.put(Enrol("before", [photo], gallery.embeddings[:1]))
        assert begun.wait(60)
        kept = file.photos_folder / f"{photo.sha256}.png"
        monkeypatch.setattr("dml_bench.serve.changes.open", refused, raising=False)
        monkeypatch.setattr(GalleryFile, "write", refused)
        removal = changes.put(Remove("before"))
        change = changes.put(Enrol("after", [photo], gallery.embeddings[:1]))
        goes_on.set()
        for refusal_of in (removal, change):
            with pytest.raises(OSError, match="No space left"):
                refusal_of.result(60)
        assert kept.read_bytes() == data
        monkeypatch.undo()
        changes.close()
    assert "before" in file.read().class_names


def test_a_change_is_made_where_an_index_can_not_follow_it_at_once(finished, tmp_path, monkeypatch):
    def refused(*_: object):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = GalleryFile(db.load_run(finished), "all", tmp_path / "gallery")
    published = []
    with file.lock():
        gallery = file.read(new=True).hashed()
        changes = Changes(file, gallery, published.append)
        step = Step(embeddings="those before", images=len(gallery.entries), left=[0])
        monkeypatch.setattr("dml_bench.serve.changes.step_between", lambda *_: step)
        monkeypatch.setattr("dml_bench.serve.changes.update_indexes", refused)
        removed = changes.put(Remove(gallery.class_names[0])).result(60)
        now = published[-1].class_names
        assert file.read().class_names == now
        assert file.step() == step
        changes.close()
    assert (removed.class_name, now) == (gallery.class_names[0], gallery.class_names[1:])


def test_a_large_body_is_refused_before_it_is_held(finished, photo, tmp_path):
    limits = UploadLimits(megabytes=0.2)

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    with running(finished, tmp_path / "gallery", limits=limits) as client:
        large = client.post("/predict", content=bytes(300_000))
        chunked = client.post("/predict", content=endless())
        assert [large.status_code, chunked.status_code] == [413, 413]
        assert len(predicted(client, [photo])) == 1


# Who may ask


def test_pages_of_other_sites_can_neither_ask_nor_change_anything(client, photo):
    port = client.base_url.port
    foreign = (
        {"origin": "https://evil.example"},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"host": f"evil.example:{port}"},
    )
    before = classes(client)
    for headers in foreign:
        response = client.post("/enrol", data={"class": NEW}, files=sent([photo]), headers=headers)
        assert response.status_code == 403
    assert classes(client) == before
    own = {"origin": f"http://localhost:{port}", "host": f"localhost:{port}"}
    assert client.post("/predict", files=sent([photo]), headers=own).status_code == 200


def test_with_a_token_only_who_has_it_may_ask(finished, photo, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("a-secret-of-many-letters-1\n")
    secret.chmod(0o600)
    with running(finished, tmp_path / "gallery", token_file=secret) as client:
        for path in ("/gallery", "/classes", "/metrics", "/images/x"):
            assert client.get(path).status_code == 401
        assert client.post("/predict", files=sent([photo])).status_code == 401
        wrong = {"authorization": "Bearer a-secret-of-many-letters-2"}
        assert client.get("/gallery", headers=wrong).status_code == 401
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/").status_code == 200
        client.headers["authorization"] = "Bearer a-secret-of-many-letters-1"
        client.headers["host"] = "birds.example"  # as behind a proxy
        assert len(predicted(client, [photo])) == 1


def test_other_machines_are_served_with_a_token_only(finished, monkeypatch, capsys, tmp_path):
    line = refusal(monkeypatch, capsys, "serve", finished, "--address", "0.0.0.0")
    assert "give --token-file FILE" in line
    secret = tmp_path / "token"
    secret.write_text("short")
    secret.chmod(0o600)
    assert "at least 24 letters" in refusal(
        monkeypatch, capsys, "serve", finished, "--token-file", secret
    )
    secret.chmod(0o644)
    assert f"chmod 600 {secret}" in refusal(
        monkeypatch, capsys, "serve", finished, "--token-file", secret
    )


@pytest.mark.parametrize("megabytes", [float("inf"), float("nan"), -1, 600, "32"])
def test_a_size_that_no_request_can_have_is_refused(finished, megabytes):
    with pytest.raises(ValueError, match=r"max_megabytes must be above 0 and at most 512, got"):
        db.Gallery(finished, device="cpu").serve(max_megabytes=megabytes)


def test_a_server_that_no_photo_votes_for_is_refused(finished):
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        db.Gallery(finished, device="cpu").serve(k=0)


def test_why_a_threshold_can_not_be_chosen_is_printed_and_shows_no_path(
    finished, newcomers, tmp_path, monkeypatch
):
    def gone(*_: object):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path))

    with running(finished, tmp_path / "gallery") as client:
        monkeypatch.setattr("dml_bench.serve.service.calibrated", gone)
        assert enrol(client, NEW, newcomers).is_success
        deadline = time.monotonic() + 60
        while "can't be chosen" not in (rule := client.get("/gallery").json()["rule"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert str(tmp_path) not in rule
        assert predicted(client, newcomers[:1])[0]["class"] is None


def test_every_response_keeps_browsers_from_other_content(client):
    for path in ("/", "/page.js", "/docs", "/gallery", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "<code>answers[].vote.share</code>" in client.get("/docs").text
    pages = client.get("/").text + client.get("/docs").text
    assert re.findall(r"https?://", pages) == [], "nothing is loaded from elsewhere"


# Many clients


def test_concurrent_requests_have_the_answers_of_single_ones_and_share_batches(
    client, finished, tmp_path
):
    gallery = open_gallery_file(finished, "all", None).read()
    paths = [Path(entry.path) for entry in gallery.entries] * 3
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda path: predicted(client, [path])[0], paths))
    assert [answer["class"] for answer in answers] == [
        entry.class_name for entry in gallery.entries
    ] * 3
    metrics = client.get("/metrics").text
    batches = float(re.search(r"dml_bench_batch_images_count (\S+)", metrics)[1])
    images = float(re.search(r"dml_bench_batch_images_sum (\S+)", metrics)[1])
    assert images == len(paths)
    assert batches < images
    assert f'dml_bench_answers_total{{answer="class"}} {images}' in metrics


def test_one_process_holds_the_gallery(finished, newcomers, tmp_path, client):
    folder = tmp_path / "gallery"
    with pytest.raises(ValueError, match="another process is changing"):
        db.Gallery(finished, folder=folder, device="cpu").enrol(newcomers[0].parents[1])
    with pytest.raises(ValueError, match="another process is changing"), running(finished, folder):
        pass


def test_without_its_packages_a_server_says_what_to_install(finished, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    line = refusal(monkeypatch, capsys, "serve", finished)
    assert line.endswith("needs prometheus_client: pip install 'dml-bench[serve]'")


def test_the_description_of_the_interface_is_that_of_the_answers(client, photo):
    description = client.get("/openapi.json").json()
    schemas = description["components"]["schemas"]

    def keys(name: str) -> set[str]:
        return set(schemas[name]["properties"])

    answer = client.post("/predict", files=sent([photo])).json()
    assert set(answer) == keys("PredictAnswer")
    assert set(answer["answers"][0]) == keys("PhotoAnswer")
    assert set(answer["answers"][0]["closest"][0]) == keys("NearImage")
    assert set(client.get("/gallery").json()) == keys("GalleryAnswer")
    assert set(client.get("/classes").json()["classes"][0]) == keys("GalleryClass")
    assert "curl -F images=@photo.jpg" in client.get("/docs").text
