"""The gallery of a finished run as one object: enrol classes, look photos up, export."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from dml_bench.api.arguments import (
    PathLike,
    callback_or_log,
    optional_path,
    path_of,
    paths_of,
    run_of,
    texts_of,
)
from dml_bench.report.printed import PrintedRecord
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from dml_bench.data.images import Unreadable
    from dml_bench.gallery.batch import BatchAnswers
    from dml_bench.gallery.enrol import Enrolment
    from dml_bench.gallery.export import Exported
    from dml_bench.gallery.index_store import OpenIndex
    from dml_bench.gallery.lookup import LookupSettings
    from dml_bench.gallery.predict import AppliedThreshold, Prediction, Predictions
    from dml_bench.gallery.store import Gallery as EmbeddedImages
    from dml_bench.gallery.upgrade import Upgrade
    from dml_bench.gallery.vector_stores import OpenStore
    from dml_bench.runs.run import Run
    from dml_bench.serve.monitor import Monitored

__all__ = ["Gallery", "GalleryMonitor", "PhotoPredictions"]


@dataclass(frozen=True, repr=False)
class PhotoPredictions(PrintedRecord):
    """What a gallery says of photos, in their order. Iterating gives one `Prediction` a photo;
    printed, it is the table that `dml-bench predict` shows.

    >>> gallery = db.Gallery("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", device="cpu")
    >>> predictions = gallery.predict("photo.jpg", k=3)
    >>> [len(prediction.closest) for prediction in predictions], predictions.unreadable
    ([3], ())
    """

    run: "Run"
    gallery: "EmbeddedImages"
    predictions: "Predictions"
    threshold: "AppliedThreshold"
    """The similarity below which an answer is `unknown`, and what it was chosen on."""
    index: "OpenIndex | OpenStore | None" = None
    """None where all images were compared."""
    classifier_classes: tuple[str, ...] | None = None
    """Those that the classifier knows; None where the gallery answered."""

    def __len__(self) -> int:
        return len(self.predictions.predictions)

    def __iter__(self) -> "Iterator[Prediction]":
        return iter(self.predictions.predictions)

    def __getitem__(self, place: int) -> "Prediction":
        return self.predictions.predictions[place]

    @property
    def unknown_share(self) -> float:
        """The share of these photos that are unknown; 0 where there are none."""
        return sum(not prediction.known for prediction in self) / max(len(self), 1)

    @property
    def unreadable(self) -> "tuple[Unreadable, ...]":
        """Files that could not be read as images, with the reason."""
        return self.predictions.unreadable

    def exit_code(self, max_unknown: float | None = None) -> int:
        """3 where more than a share of the photos is unknown, 1 where a file can't be read, else
        0."""
        from dml_bench.gallery.batch import exit_code

        return exit_code(self.unknown_share, max_unknown, len(self.unreadable))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `dml-bench predict --json` prints them."""
        from dml_bench.gallery.format import as_json

        return as_json(self.predictions, self.threshold, self.index)

    def table(self) -> "Table":
        """A rich table of each photo and the images closest to it."""
        from dml_bench.gallery.format import as_table

        return as_table(self.run, self.predictions)

    def notes(self) -> list[str]:
        """Sentences on the threshold and the index."""
        from dml_bench.gallery.format import describe_classifier, notes

        photos = [prediction.path for prediction in self]
        sentences = list(notes(self.run, self.gallery, self.threshold, self.index, photos))
        if self.classifier_classes is not None:
            sentences.append(describe_classifier(self.gallery, self.classifier_classes))
        return sentences

    def show(self, console: "Console") -> None:
        """Print the table and the notes on a terminal. The terminal wraps long paths itself, so
        that one can copy them."""
        from dml_bench.system.terminal import print_unwrapped

        print_unwrapped(console, self.table())
        for note in self.notes():
            console.print(note, soft_wrap=True)


@dataclass(frozen=True, repr=False)
class GalleryMonitor(PrintedRecord):
    """The answers of a server, held against the images on which its threshold was chosen.

    Photos are tested in windows of 200 by the statistic of Kolmogorov and Smirnov, at levels that
    sum up to .05 over all windows. Source: docs/serve.md.

    >>> db.Gallery("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42").monitor()
    Traceback (most recent call last):
    ValueError: ...answers.jsonl holds no answers: dml-bench serve ... writes them
    """

    monitored: "Monitored"

    @property
    def drifted(self) -> bool:
        """Whether the promise of the threshold no longer applies."""
        return self.monitored.drift.drifted

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `dml-bench monitor --json` prints them."""
        return self.monitored.as_dict()

    def show(self, console: "Console") -> None:
        """Print the sentences on a terminal, the verdict last."""
        for sentence in self.monitored.describe():
            console.print(sentence, soft_wrap=True)


class Gallery:
    """The images, with their classes, among which a run's network looks photos up.

    `run` is a finished run or its folder; `phase` whose network and gallery it is, by default
    `all`; `folder` keeps a changed gallery elsewhere than in the run folder; `device` is auto, cpu
    or cuda. `callback` hears of progress and of files that are left out. Changes are kept on disk
    and the run's own result stays as it is.

    Raises ValueError where the run or its gallery can't be read, or there is no such phase.
    Source: docs/your_photos.md.

    >>> gallery = db.Gallery("runs/EPSHN_cosine_resnet18_sgd_aug/cub/seed-42", device="cpu")
    >>> gallery.enrol("new_classes").new_classes
    ('pigeon',)
    >>> predictions = gallery.predict("photo.jpg", threshold=0.5)
    >>> predictions[0].class_name in gallery.class_names
    True
    >>> gallery.remove("pigeon").gallery.class_names == gallery.class_names
    True
    """

    def __init__(
        self,
        run: "Run | str | Path",
        *,
        phase: str = "",
        folder: PathLike | None = None,
        data_dir: PathLike | None = None,
        device: str = "auto",
        callback: Callback | None = None,
    ):
        from dml_bench.gallery.store import GalleryFile, chosen_phase

        opened = run_of(run, data_dir)
        self.run = opened
        self.device = device
        self.callback = callback_or_log(callback)
        self.file = GalleryFile(opened, chosen_phase(opened, phase), optional_path(folder))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that it has now, sorted."""
        return self.file.read(new=True).class_names

    def __len__(self) -> int:
        """How many images it has now."""
        return len(self.file.read(new=True).entries)

    def change(
        self,
        *,
        photos: PathLike | None = None,
        remove: Sequence[str] = (),
        rename: Sequence[str] | Mapping[str, str] = (),
    ) -> "Enrolment":
        """Remove classes, rename others (`{"old": "new"}` or texts OLD=NEW) and enrol a folder of
        class folders, in this order and all or nothing.

        Raises ValueError, with nothing changed, on a class that is not there, a name that is taken,
        and a photo that the gallery has under another class.
        """
        from dml_bench.gallery.embedder import GalleryEmbedder
        from dml_bench.gallery.enrol import (
            GalleryChanges,
            change_gallery,
            checked_renamings,
            parse_renamings,
            photos_by_class,
        )

        images = photos_by_class(path_of(photos), self.callback.note) if photos else ()
        if isinstance(rename, Mapping):
            names = checked_renamings(rename)
        else:
            texts = texts_of(rename, "rename")
            names = parse_renamings(texts, self.class_names) if texts else ()
        return change_gallery(
            self.file,
            GalleryChanges(remove=tuple(texts_of(remove, "remove")), rename=names, photos=images),
            lambda: GalleryEmbedder(self.run, self.file.phase, self.device),
            partial(self.callback.progress, "embedding"),
        )

    def enrol(self, folder: PathLike) -> "Enrolment":
        """Add the photos of a folder with one folder per class, or of a table with a column for the
        class and perhaps boxes, without training. Photos of known classes join theirs; a photo that
        is there already is not added again.

        The result's `unreadable` names files that could not be read.
        """
        return self.change(photos=folder)

    def remove(self, *class_names: str) -> "Enrolment":
        """Take classes out. Raises UnknownName on one that is not there."""
        return self.change(remove=class_names)

    def rename(self, old: str, new: str) -> "Enrolment":
        """Give a class another name. Raises ValueError where the name is taken."""
        return self.change(rename={old: new})

    def predict(
        self,
        images: PathLike | Sequence[PathLike],
        *,
        other: PathLike | None = None,
        boxes: Sequence[Sequence[float]] = (),
        **lookup: "Unpack[LookupSettings]",
    ) -> PhotoPredictions:
        """Look up photos, or all in a folder: class, vote of the `k` (10) closest images,
        similarity. Of a photo with several products, `boxes` are what to look up, each left, top,
        right and bottom in pixels; a table with a column for the photo and x0, y0, x1, y1 does that
        for many.

        The class is that of the closest photo (`by="photo"`), or of the closest mean of a class
        (`by="mean"`); or that of the run's own logits (`by="classifier"`), which know the classes
        trained on and no enrolled one.

        Similarities are cosines, -1 to 1. An answer is `known` where the closest image reaches the
        `threshold`. With a `precision`, the threshold is one that keeps it on new photos like the
        run's validation images, with 95% confidence, where `unknown_share` of the photos are of
        classes that are not enrolled. With neither, every photo is answered. `other` is a folder of
        photos of none of the classes, for which false answers are counted. `index` names a FAISS
        index (flat, hnsw, ivf, ivfpq, sq8) or a vector store that `export` made (`lancedb:PATH`);
        by default all images are compared.

        Raises ValueError where a precision can't be promised, a file does not exist, a folder has
        no images, or the index does not fit the gallery.
        """
        from dml_bench.gallery.enrol import named_images, parts_of_photo
        from dml_bench.gallery.lookup import LookupOptions, open_lookup

        options = LookupOptions(**lookup)
        if other is not None:
            options.require_similarities()
        files = named_images(paths_of(images), self.callback.note)
        if boxes:
            files = parts_of_photo(files, boxes)
        opened = open_lookup(
            self.file, options, self.device, self.callback.note, self.callback.progress
        )
        if other is not None:
            others = named_images([path_of(other)], self.callback.note)
            opened = opened.with_others(others, self._embedded("looking up others", len(others)))
        gallery, predictions = opened.predict(files, self._embedded("looking up", len(files)))
        known = None if opened.classifier is None else opened.classifier.class_names
        return PhotoPredictions(
            self.run, gallery, predictions, opened.threshold, opened.open_index, known
        )

    def predict_to(
        self,
        images: PathLike | Sequence[PathLike],
        out: PathLike,
        *,
        watch_seconds: float = 0.0,
        **lookup: "Unpack[LookupSettings]",
    ) -> "BatchAnswers":
        """Look up many photos as `predict` does, by the same settings, and write the answers into a
        .csv, .json or .parquet. A journal OUT.part keeps what is done: after a stop the same call
        goes on. With `watch_seconds` it looks that often for new photos in one folder, until
        Ctrl-C or SIGTERM. New photos are answered by the gallery as it is then; a line says where
        it was changed.

        Raises ValueError as `predict` does, where `out` is there already, where another command
        writes it, and where OUT.part has answers of another gallery or other options.
        """
        from dml_bench.gallery.batch import (
            AnswerJob,
            FollowedGallery,
            answer_file,
            answer_folder,
        )
        from dml_bench.gallery.enrol import named_images, photos_in
        from dml_bench.gallery.lookup import LookupOptions, open_lookup
        from dml_bench.system.failures import ended_as_by_ctrl_c

        options, paths = LookupOptions(**lookup), paths_of(images)
        if watch_seconds and not (len(paths) == 1 and paths[0].is_dir()):
            raise ValueError("--watch looks at one folder: give one folder that exists, and no -")
        files = [] if watch_seconds else named_images(paths, self.callback.note)
        note, progress = self.callback.note, self.callback.progress
        open_now = partial(open_lookup, self.file, options, self.device, note, progress)
        followed = FollowedGallery(self.file, options, open_now, note)
        opened = followed.open()
        with ended_as_by_ctrl_c(), answer_file(self.file, opened, options, path_of(out)) as answers:
            job = AnswerJob(opened, answers, partial(progress, "looking up"))
            if watch_seconds:
                return answer_folder(
                    job,
                    lambda: photos_in(paths[0]),
                    partial(seconds_pass, watch_seconds),
                    note,
                    followed.current,
                )
            done = job.run(files)
            answers.close()
        return done

    def serve(
        self,
        *,
        port: int = 8000,
        address: str = "127.0.0.1",
        token_file: PathLike | None = None,
        k: int = 10,
        threshold: float | None = None,
        precision: float | None = None,
        unknown_share: float = 0.0,
        max_megabytes: float = 32.0,
    ) -> None:
        """Answer over HTTP, with a web page, until Ctrl-C. Meanwhile only this process can change
        the gallery.

        `port` 0 is any free one; `address` 127.0.0.1 serves this machine only, and any other needs
        a `token_file`, whose one line clients have to send. `threshold`, `precision` and
        `unknown_share` are those of `predict`, and a threshold is chosen anew after each change.
        `max_megabytes` is the size of a request, at most 512.

        Raises ValueError where packages of the extra `serve` are missing, the precision can't be
        promised, the port is taken, or another process changes the gallery; KeyboardInterrupt at
        Ctrl-C.
        """
        from dml_bench.gallery.lookup import LookupOptions
        from dml_bench.serve.served_gallery import WantedThreshold
        from dml_bench.serve.server import ServeRequest, serve
        from dml_bench.serve.uploads import UploadLimits

        options = LookupOptions(
            k=k, threshold=threshold, precision=precision, unknown_share=unknown_share
        )
        serve(
            ServeRequest(
                gallery_file=self.file,
                device=self.device,
                wanted=WantedThreshold(
                    threshold=threshold, precision=precision, unknown_share=unknown_share
                ),
                k=options.k,
                port=port,
                address=address,
                token_file=optional_path(token_file),
                limits=UploadLimits(megabytes=max_megabytes),
                say=self.callback.note,
            )
        )

    def monitor(self) -> "GalleryMonitor":
        """Hold the answers that `serve` logged against the calibration images: whether the photos
        are still of the kind for which the threshold was promised.

        Raises ValueError where no answer was logged, or the run has no such images.
        """
        from dml_bench.serve.monitor import monitor

        return GalleryMonitor(monitor(self.file))

    def upgrade(
        self,
        new_run: "Run | str | Path",
        *,
        photos: PathLike | Sequence[PathLike] = (),
        folder: PathLike | None = None,
    ) -> "Upgrade":
        """Embed all images of this gallery again, from their files, with the network of another run
        and the same phase, and write them as its gallery in one step; `folder` keeps it elsewhere
        than in that run's folder. This gallery stays as it is.

        The result lists the `photos` to which the two galleries give other classes; without photos
        the test images of both runs.

        Raises ValueError, with nothing written, where the new run has a changed gallery already, or
        where an image is gone, changed or unreadable.
        """
        from dml_bench.gallery.embedder import GalleryEmbedder
        from dml_bench.gallery.enrol import named_images
        from dml_bench.gallery.store import GalleryFile, chosen_phase
        from dml_bench.gallery.upgrade import upgrade_gallery

        opened, paths = run_of(new_run), paths_of(photos)
        new = GalleryFile(opened, chosen_phase(opened, self.file.phase), optional_path(folder))
        return upgrade_gallery(
            self.file,
            new,
            lambda place: GalleryEmbedder(place.run, place.phase, self.device),
            named_images(paths, self.callback.note) if paths else [],
            partial(self.callback.progress, "embedding"),
        )

    def export(
        self,
        out: PathLike,
        *,
        to: Literal[
            "torch", "torchscript", "onnx", "hf", "lancedb", "qdrant", "pgvector", "parquet"
        ] = "torch",
        index: str = "flat",
        int8: bool = False,
    ) -> "Exported | OpenStore":
        """Write the network (pixels to unit vectors), preprocessing, FAISS index, table and model
        card into a new folder that needs none of this package.

        `to` is the network's format: `torch` (torch.export; PyTorch has deprecated TorchScript, so
        `torchscript` is another name of it), `onnx`, or `hf`: weights, graph, configuration and a
        card with the head that the Hugging Face Hub reads, for you to upload. With `int8`, an ONNX
        network of 8 bits comes besides, with what it loses on the run's test images. Or `to` is a
        vector store that gets the gallery's vectors with class, source and thresholds, and `out` is
        its place: a folder (`lancedb`, `qdrant`), a file (`parquet`), or
        postgresql://USER@HOST/DATABASE#TABLE. `predict(index="lancedb:PLACE")` looks up there.

        Raises ValueError where the place is taken, the exported network disagrees with the run, or
        the store can't have that index, and UnknownName where there is no such format.
        """
        if int8 and to != "onnx":
            raise ValueError(f"int8 needs the format onnx, got {to}: give --to onnx")
        if path_of(out).exists():
            raise ValueError(f"{out} exists already; name a folder that does not")
        from dml_bench.gallery.export import export
        from dml_bench.gallery.indexes import parse
        from dml_bench.gallery.network_formats import FORMATS
        from dml_bench.gallery.vector_stores import STORES, export_to_store
        from dml_bench.registry import UnknownName, near_miss

        known = [*FORMATS, "torchscript", *STORES]
        if to not in known:
            raise UnknownName(
                f"there is no export to {to!r}{near_miss(to, known)}: choose one of"
                f" {', '.join(known)}"
            )
        phase, gallery = self.file.phase, self.file.read()
        if to in STORES:
            store = STORES[to](str(out))
            return export_to_store(self.file, gallery, store, index, self.callback.progress)
        name = "torch" if to == "torchscript" else to
        return export(
            self.run,
            phase,
            gallery,
            path_of(out),
            parse(index),
            to=name,
            int8=int8,
            progress=self.callback.progress,
        )

    def _embedded(self, step: str, total: int) -> Callable[[int], None]:
        """What hears how many files are done."""
        return lambda done: self.callback.progress(step, done, total)


def seconds_pass(seconds: float) -> bool:
    """Wait so long; False where Ctrl-C ends that."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return False
    return True
