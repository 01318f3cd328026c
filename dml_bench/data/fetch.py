"""CUB-200-2011 from its publisher: downloaded, checked, unpacked, and only then taken for a data
set."""

import gzip
import hashlib
import http.client
import os
import re
import shutil
import ssl
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

from dml_bench.data.csv_table import inside
from dml_bench.data.datasets import Progress, cub_folder
from dml_bench.system.drafts import scratch

__all__ = ["CUB_MD5", "CUB_URL", "fetch_cub"]

CUB_URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
CUB_MD5 = "97eceeb196236b17998738112f37df78"
FOLDER = "CUB_200_2011"
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


def fetch_cub(
    data_dir: Path,
    *,
    archive: Path | None = None,
    url: str = CUB_URL,
    md5: str = CUB_MD5,
    num_images: int = 11788,
    progress: Progress | None = None,
) -> Path:
    """Put CUB-200-2011 into `data_dir` and return its folder; from `archive` where one is given,
    else from `url`.

    A download continues where an earlier one broke off. A folder is there whole or not at all; one
    that is there whole is left as it is. The archive is kept. Raises ValueError where the network,
    the archive or the disk fails, with what to do by hand.
    """
    report = progress or (lambda stage, done, total: None)
    present = cub_folder(data_dir) or data_dir / FOLDER
    if present.exists():
        shortcoming = shortcoming_of(present, num_images)
        if shortcoming:
            raise ValueError(
                f"{present} is there already but {shortcoming}: move it away or delete it, then"
                " fetch again"
            )
        report("already there and complete", num_images, num_images)
        return present
    source = archive or data_dir / f"{FOLDER}.tgz"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if archive is None and not source.exists():
            download(source, url, md5, report)
        else:
            verify(source, url, md5, report)
        return unpack(source, data_dir, num_images, report)
    except OSError as error:
        raise ValueError(
            f"fetching into {data_dir} failed ({error}): make room or choose another --data-dir,"
            " then fetch again"
        ) from error


def shortcoming_of(folder: Path, num_images: int) -> str:
    """What keeps `folder` from being the whole data set; empty if nothing does."""
    if not (folder / "images.txt").is_file():
        return "has no images.txt"
    lines = (
        (folder / "images.txt").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    )
    names = [line.split(maxsplit=1)[-1].strip() for line in lines if line.strip()]
    if len(names) != num_images:
        return f"its images.txt lists {len(names)} images instead of {num_images}"
    missing = [name for name in names if not (folder / "images" / name).is_file()]
    return f"{len(missing)} of its images are missing (first: {missing[0]})" if missing else ""


def verify(archive: Path, url: str, md5: str, report: Progress) -> None:
    if not archive.is_file():
        raise ValueError(
            f"{archive} does not exist: give the downloaded {FOLDER}.tgz with --archive FILE, or"
            " leave --archive out to download it"
        )
    actual = md5_of(archive, report)
    if actual != md5:
        raise ValueError(
            f"{archive} has the MD5 {actual} instead of {md5}, so it is damaged or another file:"
            f" delete it and download {url} again"
        )


def md5_of(file: Path, report: Progress) -> str:
    state, total = hashlib.md5(usedforsecurity=False), file.stat().st_size
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            state.update(chunk)
            report("checking MD5", content.tell(), total)
    return state.hexdigest()


def download(archive: Path, url: str, md5: str, report: Progress) -> None:
    """Fetch `url` into `archive`, by way of a .part file that a later call continues. Raises
    ValueError."""
    part = archive.with_name(f"{archive.name}.part")
    try:
        transfer(part, url, report)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
        ssl.SSLError,
    ) as error:
        reason = (
            f"HTTP {error.code}"
            if isinstance(error, urllib.error.HTTPError)
            else str(getattr(error, "reason", "") or error)
        )
        raise ValueError(
            f"can't download {url} ({reason or type(error).__name__}): fetch again to continue, or"
            f" download it by hand (MD5 {md5}) and put it at {archive} or give it with --archive"
            " FILE"
        ) from error
    actual = md5_of(part, report)
    if actual != md5:
        part.unlink()
        raise ValueError(
            f"the download of {url} had the MD5 {actual} instead of {md5} and was removed: fetch"
            " again, or use --archive FILE"
        )
    os.replace(part, archive)


def transfer(part: Path, url: str, report: Progress) -> None:
    """Append to `part` what it lacks. Raises an error of the network, or ConnectionError when the
    transfer stops early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "dml-bench", **({"Range": f"bytes={have}-"} if have else {})}
    )
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        # Nothing is left to send: `part` is whole, which its MD5 decides, or longer than the file.
        if content_range(error)[1] == have:
            return None
        part.unlink()
        return transfer(part, url, report)
    with response:
        start, total = content_range(response)
        with part.open("ab" if start == have else "wb") as file:
            done = receive(response, file.write, start, total, report)
    if total and done != total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")
    return None


def content_range(response: http.client.HTTPResponse | urllib.error.HTTPError) -> tuple[int, int]:
    """Where the response's bytes begin in the whole file, and how long that is (0 if unknown)."""
    match = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
    )
    if match is None:
        return 0, int(response.headers.get("Content-Length") or 0)
    return int(match[1] or 0), 0 if match[2] == "*" else int(match[2])


def receive(
    response: http.client.HTTPResponse,
    write: Callable[[bytes], int],
    done: int,
    total: int,
    report: Progress,
) -> int:
    """The number of bytes that are there once the response has ended, `done` of them before it."""
    while chunk := response.read(CHUNK_BYTES):
        write(chunk)
        done += len(chunk)
        report("downloading", done, total)
    return done


def unpack(archive: Path, data_dir: Path, num_images: int, report: Progress) -> Path:
    """Unpack beside the target and rename at the end, so that whatever stops this leaves no half a
    data set. Raises ValueError."""
    with scratch(data_dir) as folder:
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        extract(archive, unpacked, report)
        shortcoming = shortcoming_of(unpacked / FOLDER, num_images)
        if shortcoming:
            raise ValueError(
                f"{archive} is not the whole data set: {FOLDER} {shortcoming}; use the published"
                " archive"
            )
        # The published archive has attributes.txt beside the folder.
        for entry in unpacked.iterdir():
            if entry.name != FOLDER and not (data_dir / entry.name).exists():
                entry.rename(data_dir / entry.name)
        (unpacked / FOLDER).rename(data_dir / FOLDER)
    return data_dir / FOLDER


def extract(archive: Path, target: Path, report: Progress) -> None:
    """Write the archive's files and folders, with none of their owners or modes.

    Raises ValueError on a damaged archive, on a member that would come to lie outside of `target`,
    and on links and devices. (tarfile's own filters came with Python 3.11.4; Debian 12 has 3.11.2.)
    """
    total = archive.stat().st_size
    with archive.open("rb") as packed:
        try:
            with tarfile.open(fileobj=packed, mode="r:gz") as tar:
                for member in tar:
                    report("unpacking", packed.tell(), total)
                    place = target / admitted(member, archive)
                    if member.isdir():
                        place.mkdir(parents=True, exist_ok=True)
                    elif content := tar.extractfile(member):
                        place.parent.mkdir(parents=True, exist_ok=True)
                        with content, place.open("wb") as file:
                            shutil.copyfileobj(content, file)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{archive} can't be unpacked ({error}): use the published archive"
            ) from error


def admitted(member: tarfile.TarInfo, archive: Path) -> str:
    """The member's path, if it is a file or a folder inside of the archive's own."""
    if not inside(member.name):
        raise ValueError(
            f"{archive} holds {member.name!r}, which leads out of its folder: don't use this"
            " archive"
        )
    if not (member.isfile() or member.isdir()):
        raise ValueError(
            f"{archive} holds {member.name!r}, which is neither a file nor a folder: don't use this"
            " archive"
        )
    return member.name
