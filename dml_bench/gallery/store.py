"""The gallery of a phase of a finished run as a value, and the file of a changed gallery.

The run's own gallery is part of its sealed result. A changed one is a file of its own beside the
phases, <run>/gallery/<phase>.safetensors, which holds the embeddings, the entries as JSON, and as
metadata the SHA-256 of the weights that made them. It is one file so that a crash leaves either the
old gallery or the new one. Embeddings are mapped, not read. What a server has enrolled since is in
the journal beside it (`dml_bench.gallery.journal`), and belongs to the gallery.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from dml_bench.data.digests import digest_of
from dml_bench.gallery import journal
from dml_bench.gallery.identity import embedder_digest
from dml_bench.registry import UnknownName, near_miss
from dml_bench.registry.names import composed, spelling
from dml_bench.runs import layout
from dml_bench.runs.arrays import embeddings_digest, mapped
from dml_bench.runs.run import Run, open_run
from dml_bench.system.files import Damaged, from_json, is_sealed, seal_of, write_tensors
from dml_bench.system.locks import held

__all__ = [
    "Gallery",
    "GalleryFile",
    "GalleryImage",
    "GalleryIsBusy",
    "Step",
    "chosen_phase",
    "digest_of",
    "open_gallery_file",
    "part_of_split",
    "run_gallery",
]

FORMAT = "3"
UNSEALED_FORMATS = ("1", "2")
"""Of earlier versions. In the first, the entries were metadata, of which safetensors allows 100 MB:
some 600,000 images."""


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """One image of a gallery."""

    class_name: str
    path: str
    """The absolute path, but for old runs that were given a relative folder of images. The run's
    own lie there if they were not moved."""
    sha256: str
    """The SHA-256 of the file's bytes; empty where the file has not been read."""
    origin: Literal["run", "enrolled"]


@dataclass(frozen=True)
class Gallery:
    """Embedded images with their classes, in a fixed order. Changes give a new value."""

    entries: tuple[GalleryImage, ...]
    embeddings: np.ndarray
    """(entries, dim) float32 unit vectors."""

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """(classes) the names, sorted: the id of a class is its position here."""
        return tuple(sorted({entry.class_name for entry in self.entries}))

    @cached_property
    def class_ids(self) -> dict[str, int]:
        """The ids of the classes by name."""
        return {name: label for label, name in enumerate(self.class_names)}

    @cached_property
    def labels(self) -> np.ndarray:
        """(entries) int64 class ids."""
        ids = self.class_ids
        return np.array([ids[entry.class_name] for entry in self.entries], np.int64)

    def removed(self, name: str) -> "Gallery":
        """The gallery without a class. Raises UnknownName where it has none of that name,
        ValueError where it would be left empty."""
        name = self._known(name)
        if len(self.class_names) == 1:
            raise ValueError(
                f"{name} is the only class of the gallery: enrol another before it is removed"
            )
        kept = [row for row, entry in enumerate(self.entries) if entry.class_name != name]
        return Gallery(tuple(self.entries[row] for row in kept), self.embeddings[kept])

    def renamed(self, old: str, new: str) -> "Gallery":
        """The gallery with another name for a class. Raises UnknownName where there is no `old`,
        ValueError where there is a `new` already."""
        old = self._known(old)
        if spelling(new, self.class_names) in self.class_names and composed(new) != composed(old):
            raise ValueError(
                f"the gallery has a class {new} already: choose another name for {old}, or remove"
                f" {new} first"
            )
        entries = (
            replace(entry, class_name=new) if entry.class_name == old else entry
            for entry in self.entries
        )
        return Gallery(tuple(entries), self.embeddings)

    def joined(self, entries: tuple[GalleryImage, ...], embeddings: np.ndarray) -> "Gallery":
        """The gallery with more images."""
        return Gallery(self.entries + entries, np.concatenate([self.embeddings, embeddings]))

    def hashed(self) -> "Gallery":
        """The gallery with the digests of all files that are still in their place."""
        with ThreadPoolExecutor() as pool:
            digests = pool.map(
                lambda entry: entry.sha256 or digest_of(Path(entry.path)), self.entries
            )
            entries = tuple(
                replace(entry, sha256=digest)
                for entry, digest in zip(self.entries, digests, strict=True)
            )
        return Gallery(entries, self.embeddings)

    def _known(self, name: str) -> str:
        """The class of that name, as the gallery spells it."""
        known = spelling(name, self.class_names)
        if known not in self.class_names:
            raise UnknownName(
                f"the gallery has no class {name!r}{near_miss(name, list(self.class_names))}; it"
                f" has {len(self.class_names)} classes"
            )
        return known


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A change from one gallery to the next, as an index has to follow it: some images leave, and
    new ones come last."""

    embeddings: str
    """The digest of the embeddings before."""
    images: int
    """The number of images before."""
    left: list[int]
    """The rows before that are in the next gallery no more."""

    @property
    def kept(self) -> np.ndarray:
        """(images) bool: the rows that stay."""
        kept = np.ones(self.images, bool)
        kept[self.left] = False
        return kept


class GalleryIsBusy(ValueError):
    """Another process is changing the gallery."""


@dataclass(frozen=True)
class GalleryFile:
    """The file of a changed gallery of a phase."""

    run: Run
    phase: str
    folder: Path | None = None
    """Its folder; None is the run's own folder for galleries."""

    @property
    def path(self) -> Path:
        """The file, whether it exists or not."""
        return (self.folder or layout.gallery(self.run.folder)) / f"{self.phase}.safetensors"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a gallery is read, changed and written again. Raises GalleryIsBusy."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        busy = (
            f"another process is changing {self.path}: wait for it (dml-bench serve adds and"
            " removes classes itself), or choose another gallery with --gallery DIR"
        )
        with held(self.path.with_name(f".{self.phase}.lock"), busy, GalleryIsBusy):
            yield

    def read(self, *, new: bool = False) -> Gallery:
        """The changed gallery, or the run's own where there is none. Raises ValueError on one that
        is damaged or of other weights, and, unless a `new` one may begin, on a named folder without
        one."""
        if self.path.exists():
            gallery = self._read_with_journal()
            if not self.photos_folder.is_dir():
                return gallery
            return replace(gallery, entries=tuple(map(self._located, gallery.entries)))
        if self.journal_path.exists():
            raise ValueError(
                f"{self.path} is gone, and {self.journal_path} adds to it: put it back, or remove"
                " the journal and enrol its photos anew"
            )
        if self.folder is not None and not new:
            raise ValueError(
                f"{self.folder} holds no gallery of phase {self.phase}: make it with `dml-bench"
                " enrol`, or leave --gallery out"
            )
        return run_gallery(self.run, self.phase)

    @property
    def journal_path(self) -> Path:
        """The file of what was added since, whether it exists or not."""
        return self.path.with_suffix(".journal")

    @cached_property
    def photos_folder(self) -> Path:
        """Where a server keeps photos that came over HTTP, under the digests of their bytes."""
        return self.path.with_suffix(".photos").absolute()

    def _located(self, entry: GalleryImage) -> GalleryImage:
        """The image, with its path beside this file where a server put it beside the file and both
        were moved or copied since."""
        # A gallery has many images, and text is compared faster than paths.
        if f"{self.photos_folder.name}{os.sep}{entry.sha256}." not in entry.path:
            return entry
        file = self.photos_folder / Path(entry.path).name
        return replace(entry, path=str(file)) if file.is_file() else entry

    def append(self, entries: Sequence[GalleryImage], embeddings: np.ndarray) -> int:
        """Add images to a gallery that was written before, at the cost of these images, and return
        the size of its journal. Durable when this returns; the process must hold the lock."""
        rows = [list(asdict(entry).values()) for entry in entries]
        return journal.append(self.journal_path, seal_of(self.path), rows, embeddings)

    def _read_with_journal(self) -> Gallery:
        """The file and what was added to it. A server may write it as a whole meanwhile, and empty
        the journal: then both are read again."""
        seal = None
        while seal != seal_of(self.path):
            seal = seal_of(self.path)
            gallery = self._read()
            mine = self._of_this_file(self._journal())
        assert len(gallery.entries) == len(gallery.embeddings)
        if not mine:
            return gallery
        rows = [GalleryImage(*row) for _, entries, _ in mine for row in entries]
        return gallery.joined(tuple(rows), np.concatenate([vectors for *_, vectors in mine]))

    def _journal(self) -> list[journal.Addition]:
        try:
            return journal.read(self.journal_path)
        except Damaged as problem:
            raise ValueError(f"{problem}; remove it and enrol its photos anew") from None

    def _of_this_file(self, additions: list[journal.Addition]) -> list[journal.Addition]:
        """The additions to this file. Raises ValueError where some are to another; those to the
        file before were written into this one."""
        seal = seal_of(self.path)
        strangers = {addition[0] for addition in additions} - {seal, self._facts().get("follows")}
        if strangers:
            raise ValueError(
                f"{self.journal_path} was added to another file than {self.path}: put that one"
                " back, or remove the journal and enrol its photos anew"
            )
        return [addition for addition in additions if addition[0] == seal]

    def _facts(self) -> dict[str, str]:
        from safetensors import safe_open

        with safe_open(self.path, "numpy") as file:
            return file.metadata() or {}

    def _read(self) -> Gallery:
        """The file without its journal. One that is replaced meanwhile has other entries than
        embeddings, and has to be read again."""
        from safetensors import SafetensorError, safe_open

        try:
            with open(self.path, "rb") as content:
                formats = (FORMAT,) if is_sealed(self.path, content) else UNSEALED_FORMATS
            with safe_open(self.path, "numpy") as file:
                facts = file.metadata() or {}
                rows = (
                    facts["entries"].encode()
                    if "entries" in facts
                    else file.get_tensor("entries").tobytes()
                )
            if facts["format"].isdecimal() and int(facts["format"]) > int(FORMAT):
                raise ValueError(
                    f"{self.path} was written by a later version of dml-bench (format"
                    f" {facts['format']}, and this one reads up to {FORMAT}): update dml-bench, or"
                    " name another gallery with --gallery DIR"
                )
            if facts["format"] not in formats:
                raise Damaged(
                    self.path, f"it has format {facts['format']} instead of {' or '.join(formats)}"
                )
            embeddings = mapped(self.path, "embeddings")
            entries = tuple(GalleryImage(*row) for row in from_json(self.path, rows))
        except Damaged as problem:
            raise ValueError(f"{problem}; remove it and enrol anew") from None
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} can't be read as a gallery ({error}): remove it and enrol anew"
            ) from None
        if facts.get("weights") != self.run.weights_digest(self.phase):
            raise ValueError(
                f"{self.path} was made with other weights than those of {self.run.folder}, phase"
                f" {self.phase}: remove it and enrol anew, or name another with --gallery DIR"
            )
        digest = embedder_digest(self.run, self.phase)
        if facts.get("embedder", digest) != digest:
            raise ValueError(
                f"{self.path} was made by another model than {self.run.folder}, phase {self.phase}:"
                " remove it and enrol anew, or name another with --gallery DIR"
            )
        then, now = facts.get("dataset", self.data), self.data
        if then != now:
            raise ValueError(
                f"{self.path} is of a run on other data (fingerprint {then[:12]}; {self.run.folder}"
                f" has {now[:12]}): remove it and enrol anew, or name another with --gallery DIR"
            )
        return Gallery(entries, embeddings)

    @property
    def data(self) -> str:
        """Fingerprint of the run's images and labels: weights that were not trained are the same
        for others."""
        return str(self.run.summary["dataset"]["fingerprint"])

    def step(self) -> Step | None:
        """How the kept gallery came from the one before, where that had indexes, or from its file
        by its journal. Of a gallery that `read` has read."""
        if not self.path.exists():
            return None
        if self._of_this_file(self._journal()):
            embeddings = mapped(self.path, "embeddings")
            return Step(embeddings=embeddings_digest(embeddings), images=len(embeddings), left=[])
        step = self._facts().get("step")
        return Step(**json.loads(step)) if step else None

    def write(self, gallery: Gallery, step: Step | None = None) -> None:
        """Keep a changed gallery as a whole, and the step from the one before where there are
        indexes. What a journal had added is in it."""
        from safetensors.numpy import save

        rows = json.dumps([tuple(asdict(entry).values()) for entry in gallery.entries])
        facts = {
            "format": FORMAT,
            "weights": self.run.weights_digest(self.phase),
            "dataset": self.data,
            "embedder": embedder_digest(self.run, self.phase),
        }
        if self.path.exists() and self._of_this_file(self._journal()):
            facts["follows"] = seal_of(self.path)
        else:
            self.journal_path.unlink(missing_ok=True)  # a crash left it behind
        if step is not None:
            facts["step"] = json.dumps(asdict(step))
        tensors: dict[str, np.ndarray] = {
            "embeddings": np.ascontiguousarray(gallery.embeddings, np.float32),
            "entries": np.frombuffer(rows.encode(), np.uint8),
        }
        write_tensors(self.path, save(tensors), **facts)
        self.journal_path.unlink(missing_ok=True)


def open_gallery_file(
    path: Path, phase: str, folder: Path | None, data_dir: Path | None = None
) -> GalleryFile:
    """The place of a gallery, as a person names it. Raises ValueError as `open_run` and
    `chosen_phase` do."""
    run = open_run(path, data_dir)
    return GalleryFile(run, chosen_phase(run, phase), folder)


def chosen_phase(run: Run, wanted: str) -> str:
    """The phase of that name; '' means `all`, or the only one. Raises UnknownName."""
    names = list(run.phases)
    main_phase = run.protocol.main_phase
    phase = wanted or (main_phase if main_phase in names else names[0])
    if phase not in names:
        raise UnknownName(
            f"{run.folder} has no phase {phase!r}{near_miss(phase, names)}; there are:"
            f" {', '.join(names)}"
        )
    return phase


def part_of_split(run: Run, images: np.ndarray) -> list[tuple[str, str]]:
    """The recorded path and the class of images of the run's data set, by their indices."""
    return [(run.images.recorded(image), run.split[image].class_name) for image in images]


def run_gallery(run: Run, phase: str) -> Gallery:
    """The gallery as the run left it."""
    embeddings = run.embeddings(phase)
    entries = []
    for image in embeddings.gallery_images:
        kept = run.split[image]
        entries.append(
            GalleryImage(kept.class_name, run.images.recorded(image), kept.sha256, "run")
        )
    return Gallery(tuple(entries), embeddings.mapped_gallery())
