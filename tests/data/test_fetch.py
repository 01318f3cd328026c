"""Fetching published data sets: from a server on this machine, from archives, and through all that
can go wrong."""

import hashlib
import io
import os
import signal
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from forked import in_fork

from dml_bench.data.datasets import cub_folder
from dml_bench.data.fetch import dataset_in, fetch
from dml_bench.data.publications import PUBLICATIONS, Archive, Publication

IMAGES = ("001.Auk/1.jpg", "001.Auk/2.jpg", "002.Wren/3.jpg")


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive_members() -> list[tuple[tarfile.TarInfo, bytes]]:
    listing = "".join(f"{i} {name}\n" for i, name in enumerate(IMAGES, 1)).encode()
    class_ids = "".join(f"{i} {int(name[:3])}\n" for i, name in enumerate(IMAGES, 1)).encode()
    noise = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(4000))
    return [
        member("attributes.txt", b"1 has_bill\n"),
        member("CUB_200_2011", type=tarfile.DIRTYPE, mode=0o755),
        member("CUB_200_2011/images.txt", listing),
        member("CUB_200_2011/classes.txt", b"1 001.Auk\n2 002.Wren\n"),
        member("CUB_200_2011/image_class_labels.txt", class_ids),
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


def birds_at(url: str, content: bytes = ARCHIVE, **changes) -> Publication:
    """Three birds of two species, published at `url` as CUB-200-2011 is at its own."""
    archive = Archive(file="CUB_200_2011.tgz", url=url, digest=f"md5:{md5(content)}")
    options = {"num_images": 3, "num_classes": 2, "archives": (archive,)} | changes
    return replace(PUBLICATIONS["cub"], **options)


def fetched(
    data_dir: Path,
    server: Server | None = None,
    *,
    content: bytes = ARCHIVE,
    num_images: int = 3,
    **options,
) -> Path:
    url = server.url if server else "http://127.0.0.1:9/unused"
    publication = birds_at(url, content, num_images=num_images)
    return fetch("cub", data_dir, **{"publication": publication, **options})


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def assert_whole(folder: Path) -> None:
    assert [(folder / "images" / name).stat().st_size for name in IMAGES] == [128000] * 3
    assert names(folder) == ["classes.txt", "image_class_labels.txt", "images", "images.txt"]


def test_the_published_record_is_the_default():
    (archive,) = PUBLICATIONS["cub"].archives
    assert archive.url == "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
    assert archive.digest == "md5:97eceeb196236b17998738112f37df78"


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
        fetched(tmp_path, publication=birds_at(gone))
    assert "\n" not in str(caught.value)


def test_an_archive_put_there_by_hand_is_used_without_the_network(tmp_path):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(ARCHIVE)
    assert_whole(fetched(tmp_path))


def test_a_local_archive_is_used_and_kept(tmp_path):
    archive = tmp_path / "elsewhere.tgz"
    archive.write_bytes(ARCHIVE)
    assert_whole(fetched(tmp_path / "birds", archives=[archive]))
    assert archive.read_bytes() == ARCHIVE
    assert names(tmp_path / "birds") == ["CUB_200_2011", "attributes.txt"]


def test_a_local_archive_with_another_md5_is_refused_and_kept(tmp_path):
    archive = tmp_path / "elsewhere.tgz"
    archive.write_bytes(ARCHIVE + b"x")
    with pytest.raises(
        ValueError, match=rf"has the MD5 {md5(ARCHIVE + b'x')} instead of {md5(ARCHIVE)}"
    ):
        fetched(tmp_path / "birds", archives=[archive])
    assert archive.exists()
    assert names(tmp_path / "birds") == []


def test_a_local_archive_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gone.tgz does not exist.*--archive FILE"):
        fetched(tmp_path, archives=[tmp_path / "gone.tgz"])


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
        ValueError,
        match=rf"images that do not exist.*: 1 \(first: images/{IMAGES[1]}\).*move it away",
    ):
        fetched(tmp_path, server)
    (folder / "images.txt").unlink()
    with pytest.raises(ValueError, match=r"images.txt is missing\)\): move it away"):
        fetched(tmp_path, server)
    assert (folder / "images" / IMAGES[0]).exists()


@pytest.mark.parametrize("first", ["1", "0000139e-21dc-4d0c-bfe1-4cae3c85c829"])
def test_a_data_set_of_somebody_else_is_not_to_be_deleted(tmp_path, server, first):
    """NABirds has the lists of CUB's layout. Fetching CUB beside it told to delete it, or, where
    its lists can't be read, the folder of all data sets."""
    other = tmp_path / "nabirds"
    other.mkdir()
    (other / "images").mkdir()
    (other / "images" / "1.jpg").write_bytes(b"1")
    (other / "images.txt").write_text(f"{first} 1.jpg\n")
    (other / "classes.txt").write_text("1 Loon\n")
    (other / "image_class_labels.txt").write_text(f"{first} 1\n")
    with pytest.raises(ValueError, match="choose another --data-dir") as caught:
        fetched(tmp_path, server)
    assert "nabirds" in str(caught.value)
    assert "delete" not in str(caught.value)
    assert names(tmp_path) == ["nabirds"]


def test_an_archive_that_lacks_images_becomes_no_data_set(tmp_path):
    content = packed(archive_members()[:-1])
    (tmp_path / "CUB_200_2011.tgz").write_bytes(content)
    with pytest.raises(
        ValueError,
        match=(
            r"not the whole data set \(images that do not exist in CUB_200_2011: 1 \(first:"
            rf" images/{IMAGES[2]}\)"
        ),
    ):
        fetched(tmp_path, content=content)
    with pytest.raises(ValueError, match="images that do not exist in CUB_200_2011: 1"):
        fetched(tmp_path, content=content, num_images=11788)
    assert names(tmp_path) == ["CUB_200_2011.tgz"]


def test_an_unpacking_that_is_killed_is_never_taken_for_a_data_set_and_can_be_repeated(tmp_path):
    (tmp_path / "CUB_200_2011.tgz").write_bytes(ARCHIVE)

    def killed(stage: str, done: int, total: int) -> None:
        if stage == "unpacking" and list(
            tmp_path.glob(f".*/unpacked/CUB_200_2011/images/{IMAGES[0]}")
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(partial(fetched, tmp_path, progress=killed)) == -signal.SIGKILL
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
        fetched(data_dir, archives=[archive], content=content)
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
        fetched(tmp_path / "birds", archives=[archive], content=content)
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "birds") == []


def test_a_place_that_can_not_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="choose another --data-dir"):
        fetched(tmp_path / "file" / "birds")


# A publisher who packs anew for each download, so that only the content can be known


def test_a_download_without_a_digest_is_known_by_its_content(tmp_path, server):
    known = dataset_in("cub", fetched(tmp_path / "first", server)).fingerprint
    archive = Archive(file="birds.tar.gz", url=server.url)
    published = birds_at(server.url, archives=(archive,), fingerprint=known)
    assert_whole(fetch("cub", tmp_path / "second", publication=published))

    other = replace(published, fingerprint="0" * 64)
    with pytest.raises(
        ValueError,
        match=rf"fingerprint must be 000000000000, got {known[:12]}.*was removed: fetch again",
    ):
        fetch("cub", tmp_path / "third", publication=other)
    assert names(tmp_path / "third") == []


def test_a_truncated_download_without_a_digest_is_not_used_again(tmp_path, server):
    server.content = ARCHIVE[:2000]
    published = birds_at(server.url, archives=(Archive(file="birds.tar.gz", url=server.url),))
    with pytest.raises(ValueError, match=r"can't be unpacked.*was removed: fetch again"):
        fetch("cub", tmp_path, publication=published)
    assert names(tmp_path) == []
    server.content = ARCHIVE
    assert_whole(fetch("cub", tmp_path, publication=published))


def test_other_labels_than_the_published_ones_are_not_taken_for_the_data_set(tmp_path, server):
    folder = fetched(tmp_path, server)
    published = birds_at(server.url, fingerprint=dataset_in("cub", folder).fingerprint)
    assert fetch("cub", tmp_path, publication=published) == folder
    (folder / "image_class_labels.txt").write_text("1 1\n2 2\n3 2\n")
    with pytest.raises(ValueError, match=r"images or classes are not those published.*move it"):
        fetch("cub", tmp_path, publication=published)


# Several files, and files that a person downloaded


def characters(folder: str, alphabet: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for drawer in ("01", "02"):
            name = f"{folder}/{alphabet}/character01/0001_{drawer}.png"
            packed.writestr(name, f"{alphabet} {drawer}")
    return buffer.getvalue()


FIRST = characters("images_background_small1", "Greek")
SECOND = characters("images_background_small2", "Tagalog")


def two_alphabets(url: str) -> Publication:
    archives = [
        Archive(file=name, url=url, digest=f"sha256:{hashlib.sha256(content).hexdigest()}")
        for name, content in (("small1.zip", FIRST), ("small2.zip", SECOND))
    ]
    return replace(
        PUBLICATIONS["omniglot"],
        num_images=4,
        num_classes=2,
        archives=tuple(archives),
        fingerprint="",
    )


def test_several_archives_make_one_folder(tmp_path, server):
    (tmp_path / "small1.zip").write_bytes(FIRST)
    server.content = SECOND
    folder = fetch("omniglot", tmp_path, publication=two_alphabets(server.url))
    assert folder == tmp_path / "omniglot"
    assert names(folder) == ["images_background_small1", "images_background_small2"]
    assert names(tmp_path) == ["omniglot", "small1.zip", "small2.zip"]


def test_each_of_several_archives_has_a_digest_of_its_own(tmp_path, server):
    archives = [tmp_path / name for name in ("one.zip", "two.zip")]
    for archive, content in zip(archives, (FIRST, SECOND), strict=True):
        archive.write_bytes(content)
    published = two_alphabets(server.url)
    assert fetch("omniglot", tmp_path / "a", archives=archives, publication=published).is_dir()
    with pytest.raises(ValueError, match="it lacks images_background_small2"):
        fetch("omniglot", tmp_path / "b", archives=archives[:1], publication=published)
    archives[1].write_bytes(SECOND + b"x")
    with pytest.raises(ValueError, match=r"two.zip has the SHA-256 .* instead of .* or "):
        fetch("omniglot", tmp_path / "b", archives=archives, publication=published)
    assert names(tmp_path / "b") == []


def test_files_that_were_downloaded_by_hand_become_a_data_set(tmp_path):
    (tmp_path / "downloads").mkdir()
    listing = tmp_path / "downloads" / "list_eval_partition.txt"
    photos = (
        "img/id_1/front.jpg id_1 train",
        "img/id_2/a.jpg id_2 query",
        "img/id_2/b.jpg id_2 gallery",
    )
    listing.write_text("\n".join(["3", "image_name item_id evaluation_status", *photos]))
    archive = tmp_path / "downloads" / "img.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for photo in photos:
            packed.writestr(photo.split()[0], photo)
    published = replace(PUBLICATIONS["inshop"], num_images=3, num_classes=2)
    with pytest.raises(
        ValueError, match=r"inshop has no direct download: get img.zip and .* --archive FILE"
    ):
        fetch("inshop", tmp_path / "data", publication=published)
    folder = fetch("inshop", tmp_path / "data", archives=[archive, listing], publication=published)
    assert dataset_in("inshop", folder).parts == ("train", "query", "gallery")
    with pytest.raises(ValueError, match="52,712 images are published, and 3 are there"):
        fetch("inshop", tmp_path / "data")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [(6, 1, "encrypted"), (8, 9, "compression")],
    ids=["a password", "Deflate64"],
)
def test_a_zip_that_python_can_t_unpack_is_refused_in_one_line(tmp_path, field, value, reason):
    """Publishers lock archives with a password, and Windows packs large ones by Deflate64."""
    archive = tmp_path / "img.zip"
    with zipfile.ZipFile(archive, "w") as packed_zip:
        packed_zip.writestr("img/1.jpg", b"1")
    content = bytearray(archive.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        content[content.index(signature) + field + shift] = value
    archive.write_bytes(content)
    birds = birds_at("http://127.0.0.1:9/unused", bytes(content))
    with pytest.raises(ValueError, match=f"img.zip can't be unpacked .*{reason}") as caught:
        fetch("cub", tmp_path / "birds", publication=birds, archives=[archive])
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "birds") == []


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/dml-bench-evil.txt", "link"])
def test_a_zip_that_leads_out_of_its_folder_is_refused_and_leaves_nothing(tmp_path, name):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (0o120777 if name == "link" else 0o100644) << 16
        packed.writestr(entry, "/etc/passwd")
    with pytest.raises(ValueError, match="leads out of its folder|neither a file nor a folder"):
        fetch("sop", tmp_path / "a", archives=[archive])
    assert names(tmp_path / "a") == []
    assert names(tmp_path) == ["a", "evil.zip"]
    assert not Path("/tmp/dml-bench-evil.txt").exists()


@pytest.mark.parametrize("name", sorted(PUBLICATIONS))
def test_a_publication_says_where_it_is_from_and_what_may_be_done_with_it(name):
    about = PUBLICATIONS[name]
    assert about.licence
    assert about.citation
    assert about.parts
    assert bool(about.archives) != bool(about.by_hand)
    for archive in about.archives:
        assert archive.digest or about.fingerprint, "nothing would recognise a damaged download"
        assert about.version.split()[-1] in archive.url or "65de6-vp158" in archive.url


def test_a_second_fetch_of_the_same_archives_is_refused_while_one_runs(tmp_path, server):
    """Both wrote into one .part, and the one that ended last lost it."""
    refused = []

    def fetch_again(stage: str, done: int, total: int) -> None:
        if stage == "downloading" and not refused:
            with pytest.raises(ValueError, match="another process fetches cub into") as caught:
                fetched(tmp_path, server)
            refused.append(str(caught.value))

    assert_whole(fetched(tmp_path, server, progress=fetch_again))
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert names(tmp_path) == ["CUB_200_2011", "CUB_200_2011.tgz", "attributes.txt"]
