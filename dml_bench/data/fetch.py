"""Published data sets from their publishers: downloaded, checked, unpacked, and only then taken for
data sets."""

import gzip
import hashlib
import http.client
import lzma
import os
import re
import shutil
import ssl
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from dml_bench.data.csv_table import inside
from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.datasets.dataset import NotThere, Where
from dml_bench.data.publications import PUBLICATIONS, Archive, Publication
from dml_bench.data.split import make_split
from dml_bench.registry import UnknownName, datasets, near_miss
from dml_bench.system.drafts import scratch
from dml_bench.system.locks import held

__all__ = ["dataset_in", "fetch", "publication_of", "shortcoming_of"]

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20
DIGESTS = {"md5": "MD5", "sha256": "SHA-256"}
PLAIN_FILES = (".mat", ".txt")
"""Lists that some publishers keep beside their archives."""


def publication_of(name: str) -> Publication:
    """Raises UnknownName where no published data set is called so."""
    if name not in PUBLICATIONS:
        names = sorted(PUBLICATIONS)
        raise UnknownName(
            f"{name!r} can't be fetched{near_miss(name, names)}; choose one of {', '.join(names)}"
        )
    return PUBLICATIONS[name]


def fetch(
    name: str,
    data_dir: Path,
    *,
    archives: Sequence[Path] = (),
    publication: Publication | None = None,
    progress: Progress | None = None,
) -> Path:
    """Put the data set called `name` into `data_dir` and return its folder; from `archives` where
    some are given, else from where the publication says. Archives are kept.

    A download continues where an earlier one broke off. A folder is there whole or not at all; one
    that is there whole is left as it is. Raises ValueError where the network, an archive or the
    disk fails, with what to do by hand, or where another process fetches the same, and
    UnknownName.
    """
    about = publication or publication_of(name)
    report = progress or (lambda stage, done, total: None)
    if present := already_there(name, about, data_dir):
        report("already there and complete", about.num_images, about.num_images)
        return present
    if not (archives or about.archives):
        raise ValueError(
            f"{name} has no direct download: get {about.by_hand} from {about.page}, then give each"
            " file with --archive FILE"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # Two would write into one download.
        busy = f"another process fetches {name} into {data_dir}: wait for it"
        with held(data_dir / f".{name}.lock", busy, file_stays=False):
            if archives:
                for file in archives:
                    verify(file, about.archives, report)
                return unpack(archives, name, about, data_dir, report)
            return from_publisher(name, about, data_dir, report)
    except OSError as error:
        raise ValueError(
            f"fetching into {data_dir} failed ({error}): make room or choose another --data-dir,"
            " then fetch again"
        ) from error


def already_there(name: str, about: Publication, data_dir: Path) -> Path | None:
    """The folder of the data set where it is there and complete; None where there is nothing of
    it. Raises ValueError where something is there that is not the data set."""
    if not data_dir.exists():
        return None
    made = data_dir / about.folder
    try:
        dataset = dataset_in(name, data_dir)
        place, shortcoming = dataset.root, shortcoming_of(dataset, about)
    except NotThere as problem:
        place, shortcoming = made, problem.missing
        if not place.exists():
            return None
    except ValueError as problem:
        place, shortcoming = made if made.exists() else data_dir, str(problem)
    if shortcoming and not place.is_relative_to(made):
        # It may be another data set of the same layout, or the folder of all data sets.
        raise ValueError(
            f"what is in {place} is not the whole data set ({shortcoming}): choose another"
            " --data-dir"
        )
    if shortcoming:
        raise ValueError(
            f"{place} is there already but is not the whole data set ({shortcoming}): move it away"
            " or delete it, then fetch again"
        )
    return place


def dataset_in(name: str, folder: Path) -> Dataset:
    """What the reader finds in or below a folder. Raises NotThere where that is nothing, ValueError
    where it can't be read."""
    entry = datasets[name]
    options = {key: option.default for key, option in entry.options.items()}
    where = Where(folder, folder, lambda stage, done, total: None)
    dataset: Dataset = entry.build(where, **options)
    return dataset


def shortcoming_of(dataset: Dataset, about: Publication) -> str:
    """What keeps images and labels from being those that were published; empty if nothing does."""
    if dataset.faults:
        return dataset.faults[0]
    counts = (
        ("images", len(dataset), about.num_images),
        ("classes", dataset.num_classes, about.num_classes),
    )
    for noun, count, expected in counts:
        if count != expected:
            return f"{expected:,} {noun} are published, and {count:,} are there"
    if about.fingerprint and dataset.fingerprint != about.fingerprint:
        return (
            f"images or classes are not those published: their fingerprint must be"
            f" {about.fingerprint[:12]}, got {dataset.fingerprint[:12]}"
        )
    if about.split_fingerprint:
        split = make_split(dataset, method="given", test_fraction=0.0, seed=0)
        if split.fingerprint != about.split_fingerprint:
            return (
                "train and test images are not those published: their fingerprint must be"
                f" {about.split_fingerprint[:12]}, got {split.fingerprint[:12]}"
            )
    return ""


def from_publisher(name: str, about: Publication, data_dir: Path, report: Progress) -> Path:
    """Download what is not there yet, and unpack it. Raises ValueError."""
    files = []
    unchecked = []
    for archive in about.archives:
        file = data_dir / archive.file
        files.append(file)
        if file.exists():
            verify(file, (archive,), report)
            continue
        download(file, archive, report)
        if not archive.digest:
            unchecked.append(file)
    try:
        return unpack(files, name, about, data_dir, report)
    except ValueError as problem:
        if not unchecked:
            raise
        # Without a digest a damaged download shows only here, and would be used again.
        for file in unchecked:
            file.unlink(missing_ok=True)
        raise ValueError(f"{problem}. The download was removed: fetch again") from problem


def verify(file: Path, archives: Sequence[Archive], report: Progress) -> None:
    """Raises ValueError where a file is missing, or is none of the archives; those without a digest
    are known by their content only."""
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist: give the downloaded archive with --archive FILE, or leave"
            " --archive out to download it"
        )
    digests = [archive.digest for archive in archives if archive.digest]
    if not archives or len(digests) < len(archives):
        return
    kind = digests[0].partition(":")[0]
    actual = digest_of(file, kind, report)
    if f"{kind}:{actual}" not in digests:
        wanted = " or ".join(digest.partition(":")[2] for digest in digests)
        raise ValueError(
            f"{file} has the {DIGESTS[kind]} {actual} instead of {wanted}, so it is damaged or"
            f" another file: delete it and download {archives[0].url} again"
        )


def digest_of(file: Path, kind: str, report: Progress) -> str:
    state, total = hashlib.new(kind, usedforsecurity=False), file.stat().st_size
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            state.update(chunk)
            report(f"checking {DIGESTS[kind]}", content.tell(), total)
    return state.hexdigest()


def download(file: Path, archive: Archive, report: Progress) -> None:
    """Download an archive into `file`, by way of a .part file that a later call continues. Raises
    ValueError."""
    part = file.with_name(f"{file.name}.part")
    kind, _, wanted = archive.digest.partition(":")
    try:
        transfer(part, archive.url, report)
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
        known_by = f" ({DIGESTS[kind]} {wanted})" if wanted else ""
        raise ValueError(
            f"can't download {archive.url} ({reason or type(error).__name__}): fetch again to"
            f" continue, or download it by hand{known_by} and put it at {file} or give it with"
            " --archive FILE"
        ) from error
    if wanted and (actual := digest_of(part, kind, report)) != wanted:
        part.unlink()
        raise ValueError(
            f"the download of {archive.url} had the {DIGESTS[kind]} {actual} instead of {wanted}"
            " and was removed: fetch again, or use --archive FILE"
        )
    os.replace(part, file)


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


def unpack(
    archives: Sequence[Path], name: str, about: Publication, data_dir: Path, report: Progress
) -> Path:
    """Unpack beside the target and rename at the end, so that whatever stops this leaves no half a
    data set. Raises ValueError."""
    with scratch(data_dir) as folder:
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        for archive in archives:
            extract(archive, unpacked, report)
        root = checked_root(archives, name, about, unpacked)
        target = data_dir / about.folder
        within = root.relative_to(unpacked)
        if not within.parts:
            unpacked.rename(target)
            return target
        top = within.parts[0]
        # The published archive of CUB-200-2011 has attributes.txt beside the folder.
        for entry in unpacked.iterdir():
            if entry.name != top and not (data_dir / entry.name).exists():
                entry.rename(data_dir / entry.name)
        (unpacked / top).rename(target)
    return target.joinpath(*within.parts[1:])


def checked_root(archives: Sequence[Path], name: str, about: Publication, unpacked: Path) -> Path:
    """The folder of the data set in what was unpacked. Raises ValueError where that is not the
    whole data set."""
    try:
        dataset = dataset_in(name, unpacked)
        shortcoming = shortcoming_of(dataset, about)
    except ValueError as problem:
        shortcoming = str(problem)
    if shortcoming:
        names = " and ".join(map(str, archives))
        shortcoming = shortcoming.replace(f"{unpacked}/", "").replace(str(unpacked), "it")
        raise ValueError(
            f"{names} is not the whole data set ({shortcoming}): use what was published"
        )
    return dataset.root


def extract(archive: Path, target: Path, report: Progress) -> None:
    """Write the archive's files and folders, with none of their owners or modes; a list that is no
    archive is copied.

    Raises ValueError on an archive that is damaged, locked with a password or packed in a way that
    Python can't unpack, on a member that would come to lie outside of `target`, and on links and
    devices. (tarfile's own filters came with Python 3.11.4; Debian 12 has 3.11.2.)
    """
    if archive.suffix.lower() in PLAIN_FILES:
        shutil.copyfile(archive, target / archive.name)
        return
    try:
        if zipfile.is_zipfile(archive):
            extract_zip(archive, target, report)
        else:
            extract_tar(archive, target, report)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        lzma.LZMAError,
        EOFError,
        zlib.error,
    ) as error:
        # tarfile says on several lines what each of its readers thinks.
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{archive} can't be unpacked ({reason}): use the published archive"
        ) from error
    except RuntimeError as error:
        # what zipfile raises for a password, and for a method such as Deflate64
        raise ValueError(
            f"{archive} can't be unpacked ({error}): unpack it with another program, pack it again"
            " without a password as .tar or plain .zip, and give that with --archive FILE"
        ) from error


def extract_tar(archive: Path, target: Path, report: Progress) -> None:
    total = archive.stat().st_size
    with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode="r:*") as tar:
        for member in tar:
            report("unpacking", packed.tell(), total)
            require_admitted(member.name, member.isfile() or member.isdir(), archive)
            place = target / member.name
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif content := tar.extractfile(member):
                place.parent.mkdir(parents=True, exist_ok=True)
                with content, place.open("wb") as file:
                    shutil.copyfileobj(content, file)


def extract_zip(archive: Path, target: Path, report: Progress) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for done, member in enumerate(members, 1):
            report("unpacking", done, len(members))
            kind = stat.S_IFMT(member.external_attr >> 16)
            require_admitted(member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), archive)
            place = target / member.filename
            if member.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as content, place.open("wb") as file:
                shutil.copyfileobj(content, file)


def require_admitted(name: str, is_plain: bool, archive: Path) -> None:
    """Raises ValueError unless a member is a file or a folder inside of the archive's own."""
    if not inside(name):
        raise ValueError(
            f"{archive} holds {name!r}, which leads out of its folder: don't use this archive"
        )
    if not is_plain:
        raise ValueError(
            f"{archive} holds {name!r}, which is neither a file nor a folder: don't use this"
            " archive"
        )
