"""Fetching CUB-200-2011: from a server on this machine, from an archive, and through all that can
go wrong."""

import hashlib
import io
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dml_bench.data.datasets import cub_folder
from dml_bench.data.fetch import CUB_MD5, CUB_URL, fetch_cub

IMAGES = ("001.Auk/1.jpg", "001.Auk/2.jpg", "002.Wren/3.jpg")


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    listing = "".join(f"{i} {name}\n" for i, name in enumerate(IMAGES, 1)).encode()
    noise = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(4000))
    return [
        member("attributes.txt", b"1 has_bill\n"),
        member("CUB_200_2011", type=tarfile.DIRTYPE, mode=0o755),
        member("CUB_200_2011/images.txt", listing),
        *(member(f"CUB_200_2011/images/{name}", noise) for name in IMAGES),
    ]


def packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


ARCHIVE = packed(archive_members())


@dataclass
class Server:
    """What the server does, and the Range header of each request that it got."""

    url: str = ""
    content: bytes = ARCHIVE
    ranges: bool = True
    stop_after: int | None = None
    status: int | None = None
    requested_ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requested_ranges.append(wanted)
            if state.status:
                self.send_error(state.status)
                return
            start, total = 0, len(state.content)
            if wanted and state.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            self.wfile.write(state.content[start : state.stop_after])

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}/CUB_200_2011.tgz"
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def fetched(data_dir: Path, server: Server | None = None, **options) -> Path:
    url = server.url if server else "http://127.0.0.1:9/unused"
    return fetch_cub(data_dir, **{"url": url, "md5": md5(ARCHIVE), "num_images": 3, **options})


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def assert_whole(folder: Path) -> None:
    assert [(folder / "images" / name).stat().st_size for name in IMAGES] == [128000] * 3
    assert names(folder) == ["images", "images.txt"]


def test_the_published_record_is_the_default():
    assert CUB_URL == "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
    assert CUB_MD5 == "97eceeb196236b17998738112f37df78"


def test_a_download_is_checked_and_unpacked_and_nothing_else_is_left(tmp_path, server):
    stages = []
    folder = fetched(
        tmp_path / "new" / "birds",
        server,
        progress=lambda stage, done, total: stages.append((stage, done <= total)),
    )
    assert (
        folder
        == tmp_path / "new" / "birds" / "CUB_200_2011"
        == cub_folder(tmp_path / "new" / "birds")
    )
    assert_whole(folder)
    assert names(folder.parent) == ["CUB_200_2011", "CUB_200_2011.tgz", "attributes.txt"]
    assert list(dict.fromkeys(stages)) == [
        ("downloading", True),
        ("checking MD5", True),
        ("unpacking", True),
    ]


def test_a_download_that_broke_off_is_continued_where_it_stopped(tmp_path, server):
    server.stop_after = len(ARCHIVE) // 2
    with pytest.raises(
        ValueError,
        match=(
            rf"the connection ended after {len(ARCHIVE) // 2} of {len(ARCHIVE)} bytes.*fetch again"
            r" to continue"
        ),
    ):
        fetched(tmp_path, server)
    assert names(tmp_path) == ["CUB_200_2011.tgz.part"]
    server.stop_after = None
    assert_whole(fetched(tmp_path, server))
    assert server.requested_ranges == [None, f"bytes={len(ARCHIVE) // 2}-"]


def test_a_server_that_ignores_ranges_makes_the_download_start_anew(tmp_path, server):
    (tmp_path / "CUB_200_2011.tgz.part").write_bytes(ARCHIVE[:1000])
    server.ranges = False
    assert_whole(fetched(tmp_path, server))
    assert server.requested_ranges == ["bytes=1000-"]


def test_a_part_that_was_whole_already_is_only_checked(tmp_path, server):
    (tmp_path / "CUB_200_2011.tgz.part").write_bytes(ARCHIVE)
    assert_whole(fetched(tmp_path, server))
    assert server.requested_ranges == [f"bytes={len(ARCHIVE)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path, server):
    (tmp_path / "CUB_200_2011.tgz.part").write_bytes(ARCHIVE + b"x")
    assert_whole(fetched(tmp_path, server))
    assert server.requested_ranges == [f"bytes={len(ARCHIVE) + 1}-", None]


def test_a_download_with_another_md5_is_removed(tmp_path, server):
    (tmp_path / "CUB_200_2011.tgz.part").write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match=rf"instead of {md5(ARCHIVE)} and was removed"):
        fetched(tmp_path, server)
    assert names(tmp_path) == []
    assert_whole(fetched(tmp_path, server))


def test_an_error_of_the_server_says_what_to_download_by_hand(tmp_path, server):
    server.status = 503
    with pytest.raises(ValueError, match="HTTP 503") as caught:
        fetched(tmp_path, server)
    for hint in (server.url, md5(ARCHIVE), str(tmp_path / "CUB_200_2011.tgz"), "--archive FILE"):
        assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_error_says_what_to_download_by_hand(tmp_path, server):
    gone = "http://127.0.0.1:1/CUB_200_2011.tgz"
    with pytest.raises(ValueError, match=rf"can't download {gone} \(.*refused.*by hand") as caught:
        fetched(tmp_path, url=gone)
    assert "\n" not in str(caught.value)


def test_an_archive_put_there_by_hand_is_used_without_the_network(tmp_path):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(ARCHIVE)
    assert_whole(fetched(tmp_path))


def test_a_local_archive_is_used_and_kept(tmp_path):
    archive = tmp_path / "elsewhere.tgz"
    archive.write_bytes(ARCHIVE)
    assert_whole(fetched(tmp_path / "birds", archive=archive))
    assert archive.read_bytes() == ARCHIVE
    assert names(tmp_path / "birds") == ["CUB_200_2011", "attributes.txt"]


def test_a_local_archive_with_another_md5_is_refused_and_kept(tmp_path):
    archive = tmp_path / "elsewhere.tgz"
    archive.write_bytes(ARCHIVE + b"x")
    with pytest.raises(
        ValueError, match=rf"has the MD5 {md5(ARCHIVE + b'x')} instead of {md5(ARCHIVE)}"
    ):
        fetched(tmp_path / "birds", archive=archive)
    assert archive.exists()
    assert names(tmp_path / "birds") == []


def test_a_local_archive_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone.tgz does not exist.*--archive FILE"):
        fetched(tmp_path, archive=tmp_path / "gone.tgz")


def test_what_is_there_and_complete_is_left_as_it_is(tmp_path, server):
    folder = fetched(tmp_path, server)
    (folder / "mine.txt").write_text("keep me")
    said = []
    assert fetched(tmp_path, server, progress=lambda *report: said.append(report)) == folder
    assert fetched(folder, server) == folder
    assert said == [("already there and complete", 3, 3)]
    assert (folder / "mine.txt").exists()
    assert len(server.requested_ranges) == 1


def test_what_is_there_but_incomplete_is_neither_used_nor_overwritten(tmp_path, server):
    folder = fetched(tmp_path, server)
    (folder / "images" / IMAGES[1]).unlink()
    with pytest.raises(
        ValueError, match=rf"1 of its images are missing \(first: {IMAGES[1]}\): move it away"
    ):
        fetched(tmp_path, server)
    (folder / "images.txt").unlink()
    with pytest.raises(ValueError, match="has no images.txt: move it away"):
        fetched(tmp_path, server)
    assert (folder / "images" / IMAGES[0]).exists()


def test_an_archive_that_lacks_images_becomes_no_data_set(tmp_path):
    content = packed(archive_members()[:-1])
    (tmp_path / "CUB_200_2011.tgz").write_bytes(content)
    with pytest.raises(
        ValueError,
        match=(
            r"not the whole data set: CUB_200_2011 1 of its images are missing \(first:"
            rf" {IMAGES[2]}\)"
        ),
    ):
        fetched(tmp_path, md5=md5(content))
    with pytest.raises(ValueError, match="lists 3 images instead of 11788"):
        fetched(tmp_path, md5=md5(content), num_images=11788)
    assert names(tmp_path) == ["CUB_200_2011.tgz"]


def test_an_unpacking_that_is_killed_is_never_taken_for_a_data_set_and_can_be_repeated(tmp_path):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(ARCHIVE)

    def killed(stage: str, done: int, total: int) -> None:
        if stage == "unpacking" and list(
            tmp_path.glob(f".*/unpacked/CUB_200_2011/images/{IMAGES[0]}")
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        fetched(tmp_path, progress=killed)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*/unpacked/CUB_200_2011/images.txt"))) == 1
    assert cub_folder(tmp_path) is None
    assert_whole(fetched(tmp_path))
    assert names(tmp_path) == ["CUB_200_2011", "CUB_200_2011.tgz", "attributes.txt"]


@pytest.mark.parametrize(
    "evil",
    [
        member("/tmp/dml-bench-evil.txt", b"x"),
        member("../evil.txt", b"x"),
        member("CUB_200_2011/../../evil.txt", b"x"),
        member("..\\evil.txt", b"x"),
        member("C:evil.txt", b"x"),
        member("CUB_200_2011/link", type=tarfile.SYMTYPE, linkname="../.."),
        member("CUB_200_2011/link", type=tarfile.SYMTYPE, linkname="/etc"),
        member("CUB_200_2011/link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("CUB_200_2011/pipe", type=tarfile.FIFOTYPE),
    ],
    ids=[
        "absolute",
        "parent",
        "parent inside",
        "backslash",
        "drive",
        "symlink up",
        "symlink absolute",
        "hard link",
        "pipe",
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused_and_leaves_nothing(tmp_path, evil):
    data_dir = tmp_path / "a" / "b"
    content = packed([*archive_members(), evil])
    archive = tmp_path / "evil.tgz"
    archive.write_bytes(content)
    with pytest.raises(
        ValueError, match="leads out of its folder|neither a file nor a folder"
    ) as caught:
        fetched(data_dir, archive=archive, md5=md5(content))
    assert "\n" not in str(caught.value)
    assert names(data_dir) == []
    assert names(tmp_path) == ["a", "evil.tgz"]
    assert not Path("/tmp/dml-bench-evil.txt").exists()


@pytest.mark.parametrize(
    "content",
    [ARCHIVE[: len(ARCHIVE) // 2], b"<html>", b"", packed([])],
    ids=["truncated", "page", "empty", "no members"],
)
def test_a_damaged_archive_is_refused_in_one_line(tmp_path, content):
    archive = tmp_path / "damaged.tgz"
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"can't be unpacked|not the whole data set") as caught:
        fetched(tmp_path / "birds", archive=archive, md5=md5(content))
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "birds") == []


def test_a_place_that_can_not_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="choose another --data-dir"):
        fetched(tmp_path / "file" / "birds")
