"""The HTTP interface of a gallery."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from dml_bench.data.images import Unreadable
from dml_bench.gallery.store import GalleryImage
from dml_bench.registry import UnknownName
from dml_bench.serve.api_page import api_page
from dml_bench.serve.batching import Crowded
from dml_bench.serve.changes import Changed
from dml_bench.serve.served_gallery import ServedGallery, image_id
from dml_bench.serve.service import Answer, GalleryService
from dml_bench.serve.uploads import RefusedRequest, read_request
from dml_bench.system.callbacks import LOGGER
from dml_bench.system.failures import describe_error
from dml_bench.system.files import defined, writable
from dml_bench.version import __version__

__all__ = ["application"]

PAGE = Path(__file__).parent / "page"
FORM = {
    "type": "object",
    "required": ["images"],
    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
REFUSED = {422: "An image, or the request, can't be read."}
BASE64 = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {
            "type": "array",
            "items": {"type": "string", "format": "byte", "description": "Base64 of a file."},
        }
    },
}


class NearImage(BaseModel):
    """An image of the gallery, as an answer names it."""

    class_name: str = Field(alias="class")
    similarity: float = Field(description="Cosine, -1 to 1.")
    origin: str = Field(description="run: the run's own; enrolled: added since.")
    file: str = Field(description="The name of its file.")
    image: str = Field(description="Where a small picture of it is.")


class Vote(BaseModel):
    """What the closest images elect."""

    class_name: str = Field(alias="class", description="Of most of the closest images.")
    share: float = Field(description="Its share of them.")
    k: int = Field(description="How many vote.")


class PhotoAnswer(BaseModel):
    """The answer to one photo."""

    image: str = Field(description="The name that the client gave it.")
    class_name: str | None = Field(alias="class", description="null: unknown.")
    closest_class: str = Field(description="Of the closest image, also if it is unknown.")
    similarity: float = Field(description="Of the closest image.")
    confidence: float | None = Field(
        description="Of the images that choose thresholds, validation or enrolled ones, the share"
        " that is answered right among those at least as similar; null where they are fewer than"
        " 20."
    )
    vote: Vote
    as_close: list[str] = Field(description="Other classes with an image exactly as close.")
    closest: list[NearImage] = Field(description="The closest first.")


class UnreadableImage(BaseModel):
    """A file that is no image, or too large."""

    image: str
    reason: str


class PredictAnswer(BaseModel):
    """The answers to a request."""

    answers: list[PhotoAnswer] = Field(description="In the order of the images.")
    unreadable: list[UnreadableImage]
    threshold: float | None = Field(description="Similarity below which a photo is unknown.")


class EnrolAnswer(BaseModel):
    """What a request has enrolled. It is on the disk, and the next answer knows it."""

    class_name: str = Field(alias="class")
    is_new: bool
    enrolled: int
    already_there: int = Field(
        description="Images whose bytes the gallery had, or that came twice."
    )


class RemoveAnswer(BaseModel):
    """What a request has removed."""

    class_name: str = Field(alias="class")
    removed: int


class GalleryClass(BaseModel):
    """A class of the gallery."""

    class_name: str = Field(alias="class")
    images: int
    enrolled: int = Field(description="Images that were added since the run.")
    image: str = Field(description="Where a small picture of one of them is.")


class ClassesAnswer(BaseModel):
    """All classes."""

    classes: list[GalleryClass]


class GalleryAnswer(BaseModel):
    """What answers."""

    run: str
    phase: str
    weights: str = Field(description="Digest of the network's weights.")
    classes: int
    images: int
    threshold: float | None
    rule: str = Field(description="Which photos are unknown, and what that is worth.")
    max_images: int = Field(description="The number of images of a request.")
    max_megabytes: float = Field(description="The size of a request.")
    version: str


class Health(BaseModel):
    """That it answers."""

    status: str


class Problem(BaseModel):
    """Why a request was not carried out, and the next step."""

    error: str


def application(service: GalleryService, k: int) -> FastAPI:
    """The application of a service; `k` images are named where a client does not say how many."""
    app = FastAPI(
        title="dml-bench serve",
        version=__version__,
        summary=f"The gallery of {service.file.run.experiment.name}, phase {service.file.phase}",
        docs_url=None,  # it loads programs from elsewhere
        redoc_url=None,
    )
    add_errors(app)
    add_questions(app, service, k)
    add_state(app, service)
    add_changes(app, service)
    add_pages(app)
    return app


def add_questions(app: FastAPI, service: GalleryService, k: int) -> None:
    """What is said of photos, and of the gallery in which they are looked up."""

    @app.post("/predict", openapi_extra=body_of(FORM, BASE64), **documented(PredictAnswer, REFUSED))
    async def predict(
        request: Request,
        k: int = Query(k, ge=1, le=100, description="Closest images that vote and are listed."),
    ) -> Response:
        """Look photos up: one or many, as a form or as JSON with base64."""
        _, images = await read_request(request, service.limits)
        answers = await service.predict(images, k)
        return as_json(
            {
                "answers": [answer_json(answer) for answer in answers.answers],
                "unreadable": [
                    {"image": name, "reason": reason} for name, reason in answers.unreadable
                ],
                "threshold": answers.answers[0].by.threshold,
            }
        )

    @app.get("/classes", **documented(ClassesAnswer))
    async def classes() -> Response:
        """List the classes of the gallery."""
        return as_json({"classes": classes_json(service.served)})

    @app.get("/gallery", **documented(GalleryAnswer))
    async def gallery() -> Response:
        """Tell which run and which threshold answer."""
        served = service.served
        return as_json(
            {
                "run": service.file.run.experiment.name,
                "phase": service.file.phase,
                "weights": service.file.run.weights_digest(service.file.phase),
                "classes": len(served.gallery.class_names),
                "images": len(served.gallery.entries),
                "threshold": served.threshold,
                "rule": served.rule,
                "max_images": service.limits.images,
                "max_megabytes": service.limits.megabytes,
                "version": __version__,
            }
        )

    @app.get("/images/{image}", response_class=Response, responses={404: {"model": Problem}})
    async def image(image: str) -> Response:
        """A small picture of an image of the gallery, by its id."""
        entry = service.served.images.get(image)
        if entry is None:
            raise HTTPException(404, "the gallery has no such image: ask /predict again")
        try:
            content = await service.in_decoder(lambda: service.thumbnail(entry.path))
        except Unreadable:
            raise HTTPException(404, "the file of this image is gone") from None
        caching = {"cache-control": "private, max-age=3600"}
        return Response(content, media_type="image/jpeg", headers=caching)


def add_state(app: FastAPI, service: GalleryService) -> None:
    """What is said of the server."""

    @app.get("/healthz", response_model=Health)
    async def healthz() -> dict[str, str]:
        """Whether the server answers. Needs no token."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and times, in Prometheus' text format."""
        return Response(service.measurements.as_text(), media_type="text/plain; version=0.0.4")


def add_changes(app: FastAPI, service: GalleryService) -> None:
    """What changes the gallery. An answer comes when the change is on the disk and in use."""

    @app.post(
        "/enrol",
        openapi_extra=body_of(with_class(FORM), with_class(BASE64)),
        **documented(
            EnrolAnswer, {**REFUSED, 409: "The gallery has an image under another class."}
        ),
    )
    async def enrol(request: Request) -> Response:
        """Add photos to a class, which may be new: all of them or none."""
        name, images = await read_request(request, service.limits, with_class=True)
        changed = await refused_as(409, service.enrol(name, images))
        return as_json(
            {
                "class": changed.class_name,
                "is_new": changed.is_new,
                "enrolled": changed.enrolled,
                "already_there": changed.already_there,
            }
        )

    @app.delete(
        "/classes/{name:path}",
        **documented(RemoveAnswer, {404: "No such class.", 409: "It is the last class."}),
    )
    async def remove(name: str) -> Response:
        """Remove a class. Photos of it that were enrolled here are deleted."""
        changed = await refused_as(409, service.remove(name))
        return as_json({"class": changed.class_name, "removed": changed.removed})


async def refused_as(status: int, change: Awaitable[Changed]) -> Changed:
    """The result of a change. What the gallery refuses has a status of its own."""
    try:
        return await change
    except RefusedRequest:
        raise
    except UnknownName as problem:
        raise RefusedRequest(404, str(problem)) from None
    except ValueError as problem:
        raise RefusedRequest(status, str(problem)) from None


def add_pages(app: FastAPI) -> None:
    """The web page, and the page of the interface. They need nothing from elsewhere."""
    for path, name in {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}.items():
        app.get(path, include_in_schema=False)(file_of(PAGE / name))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(api_page(app.openapi()))


def file_of(path: Path) -> Callable[[], Awaitable[Response]]:
    """A route that gives a file of the package."""

    async def file() -> Response:
        return FileResponse(path, headers={"cache-control": "no-cache"})

    return file


def add_errors(app: FastAPI) -> None:
    """Every error is {"error": "..."}."""

    @app.exception_handler(RefusedRequest)
    async def refused(request: Request, problem: RefusedRequest) -> Response:
        return as_json({"error": str(problem)}, problem.status)

    @app.exception_handler(Crowded)
    async def crowded(request: Request, problem: Crowded) -> Response:
        text = "too many images wait: try again in a second"
        return JSONResponse({"error": text}, 503, {"retry-after": "1"})

    @app.exception_handler(HTTPException)
    async def failed(request: Request, problem: HTTPException) -> Response:
        text = str(problem.detail)
        if problem.detail == HTTPStatus(problem.status_code).phrase:  # no route of this server
            path = request.url.path
            text = f"there is no {request.method} {path}: GET /docs lists all requests"
        return JSONResponse({"error": text}, problem.status_code, problem.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, problem: Exception) -> Response:
        text = "the server failed at this, and printed why: mend that there, then ask again"
        return as_json({"error": text}, 500)  # the server prints the traceback

    @app.exception_handler(OSError)
    async def refused_by_the_system(request: Request, problem: OSError) -> Response:
        LOGGER.warning("%s %s: %s", request.method, request.url.path, describe_error(problem))
        text = "the server's disk or machine refused this, and the server printed why: mend that"
        return as_json({"error": f"{text} there, then ask again"}, 500)

    from fastapi.exceptions import RequestValidationError

    @app.exception_handler(RequestValidationError)
    async def misfit(request: Request, problem: RequestValidationError) -> Response:
        first = problem.errors()[0]
        text = f"{first['loc'][-1]}: {first['msg']}, got {first.get('input')!r}: correct it"
        return as_json({"error": text}, 422)


def documented(model: type[BaseModel], others: dict[int, str] | None = None) -> dict[str, Any]:
    """What the description of a route says of its answers."""
    responses: dict[int, dict[str, Any]] = {200: {"model": model}}
    for status, description in (others or {}).items():
        responses[status] = {"model": Problem, "description": description}
    return {"response_class": JSONResponse, "responses": responses}


def body_of(form: dict[str, Any], json_body: dict[str, Any]) -> dict[str, Any]:
    """What the description of a route says of its body."""
    content = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": json_body},
    }
    return {"requestBody": {"required": True, "content": content}}


def with_class(schema: dict[str, Any]) -> dict[str, Any]:
    """A body that names a class too."""
    return {
        **schema,
        "required": ["class", "images"],
        "properties": {"class": {"type": "string"}, **schema["properties"]},
    }


def as_json(value: dict[str, Any], status: int = 200) -> Response:
    """A response of plain values; what is undefined is null. Names may hold what is no text, as
    file names and JSON of clients do, and keep it."""
    text = json.dumps(defined(value), ensure_ascii=False, separators=(",", ":"))
    return Response(writable(text), status, media_type="application/json")


def answer_json(answer: Answer) -> dict[str, Any]:
    """One photo."""
    prediction = answer.prediction
    closest = [near_json(image, similarity) for image, similarity in prediction.closest]
    return {
        "image": answer.name,
        "class": prediction.class_name if prediction.known else None,
        "closest_class": prediction.closest_class,
        "similarity": prediction.similarity,
        "confidence": answer.by.confidence(prediction.similarity),
        "vote": {
            "class": prediction.vote_class,
            "share": prediction.vote_share,
            "k": len(prediction.closest),
        },
        "as_close": list(prediction.as_close),
        "closest": closest,
    }


def near_json(image: GalleryImage, similarity: float) -> dict[str, Any]:
    """One image of the gallery. Where its file lies is no client's business."""
    return {
        "class": image.class_name,
        "similarity": similarity,
        "origin": image.origin,
        "file": Path(image.path).name,
        "image": f"images/{image_id(image)}",
    }


def classes_json(served: ServedGallery) -> list[dict[str, Any]]:
    """The classes with their sizes, in the order of their names."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in served.gallery.entries:
        row = rows.setdefault(
            entry.class_name,
            {
                "class": entry.class_name,
                "images": 0,
                "enrolled": 0,
                "image": f"images/{image_id(entry)}",
            },
        )
        row["images"] += 1
        row["enrolled"] += entry.origin == "enrolled"
    return [rows[name] for name in served.gallery.class_names]
