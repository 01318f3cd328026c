"""Kinds of FAISS index by name. Each is planned for a gallery's size, built reproducibly bit for
bit, and opened memory-mapped.

`flat` compares a query with every image. It is the default, and no approximate index is ever chosen
without being named. What an approximate index misses is measured on the gallery for which it is
built
 (`dml_bench.gallery.index_recall`).

An option of 0 takes its value from the size of the gallery, and nprobe from what is found with it
(`dml_bench.gallery.index_recall.tune_recall`). Names are those of FAISS (Douze et al. 2024, "The
Faiss library").
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.data.datasets import Progress
from dml_bench.registry import indexes

__all__ = [
    "IndexPlan",
    "IndexSpec",
    "advice",
    "build",
    "library",
    "narrowed",
    "one_thread",
    "open_mapped",
    "parse",
    "tune",
]

SLOW_BYTES = 100_000_000
"""The size of embeddings from which on an exact search is slow: it reads them all, in about 10 ms
on one thread, which is as long as a small network takes for the photo."""
LARGE = 100_000
"""The number of images from which on a graph gets more edges."""
SMALLEST = 16
"""The smallest gallery for which an approximate index is built."""
CHUNK = 65_536
"""How many vectors are added at a time, so that mapped ones need not all be in memory."""
SEED = 1234
SAMPLED = 64
"""The most vectors on which each centroid is trained."""
ROTATIONS = 10
"""The rounds in which a rotation before product codes is improved; FAISS's 50 take minutes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexPlan:
    """An index for a certain size of gallery, with all its parameters."""

    factory: str
    """FAISS's own description of the index."""
    build_parameters: dict[str, int]
    """The parameters on which the file depends."""
    search_parameters: dict[str, int]
    """The parameters of a search, which an existing index can change. An nprobe that nobody set is
    the first that is tried."""

    @property
    def parameters(self) -> dict[str, int]:
        """All parameters."""
        return self.build_parameters | self.search_parameters


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index as a person names it, whatever the gallery."""

    name: str
    options: dict[str, int]
    """The options that were set."""

    @property
    def exact(self) -> bool:
        """Whether it misses nothing."""
        return bool(indexes[self.name].facts["exact"])

    @property
    def compresses(self) -> bool:
        """Whether it stores vectors with less precision."""
        return bool(indexes[self.name].facts["compresses"])

    @property
    def tunes(self) -> bool:
        """Whether nprobe is left to be chosen by what is found."""
        has_cells = "nprobe" in indexes[self.name].options
        return has_cells and not self.options.get("nprobe")

    def plan(
        self, images: int, dim: int, *, chosen: Mapping[str, int] = {}, **built: int
    ) -> IndexPlan:
        """The plan for a gallery of (images, dim), or with the parameters with which it was `built`
        for another size, and those that were `chosen` where a person sets none. Raises ValueError
        on options that do not go together."""
        entry = indexes[self.name]
        require(
            self.exact or images >= SMALLEST,
            self.name,
            f"the gallery must have at least {SMALLEST} images for an approximate index,"
            f" got {images}",
            "leave --index out",
        )
        options = entry.resolve({**chosen, **self.options, **built}, "index")
        plan: IndexPlan = entry.build(images, dim, **options)
        return plan


def parse(text: str) -> IndexSpec:
    """The index of NAME[:key=value,...]; `auto` is `flat`, see `advice`. Raises ValueError where a
    text is not of that form, UnknownName for an unknown name."""
    name, colon, rest = text.partition(":")
    options: dict[str, int] = {}
    for part in rest.split(",") if colon else ():
        key, _, value = part.partition("=")
        if not key or not value.isdecimal() or key in options:
            raise ValueError(
                f"index {text}: write NAME or NAME:key=value,key=value with whole numbers, each key"
                " once, e.g. ivf:nprobe=16"
            )
        options[key] = int(value)
    indexes[name].resolve(options, "index")
    return IndexSpec("flat" if name == "auto" else name, options)


def advice(images: int, dim: int) -> str:
    """A sentence on a gallery whose exact searches are slow; empty where they are fast."""
    size = 4 * dim
    if images * size < SLOW_BYTES:
        return ""
    return (
        f"an exact search compares with all {images:,} images ({images * size / 1e6:,.0f} MB);"
        f" from {SLOW_BYTES // size:,} images of {dim} dimensions on, try --index hnsw (fast,"
        " larger) or ivf: it may miss some images, and reports how many"
    )


@indexes.register(
    "flat",
    summary="compares with every image; the default",
    source="Johnson, Douze and Jegou 2021, Billion-scale similarity search with GPUs",
    exact=True,
)
def flat(images: int, dim: int) -> IndexPlan:
    return IndexPlan(factory="Flat", build_parameters={}, search_parameters={})


@indexes.register(
    "auto",
    summary="flat, and a note where the gallery is large enough to try an approximate index",
    source="this package",
    exact=True,
)
def auto(images: int, dim: int) -> IndexPlan:
    return flat(images, dim)


@indexes.register(
    "sq8",
    summary="compares with every image, whose values are stored in 8 bits each",
    source="Douze et al. 2024, The Faiss library",
    compresses=True,
)
def sq8(images: int, dim: int) -> IndexPlan:
    return IndexPlan(factory="SQ8", build_parameters={}, search_parameters={})


@indexes.register(
    "hnsw",
    summary=(
        "walks a graph of near images with M edges each; efConstruction and efSearch are the"
        " numbers of candidates while building and searching"
    ),
    source=(
        "Malkov and Yashunin 2020, Efficient and robust approximate nearest neighbor search using"
        " hierarchical navigable small world graphs"
    ),
)
def hnsw(
    images: int, dim: int, *, M: int = 0, efConstruction: int = 100, efSearch: int = 64
) -> IndexPlan:
    edges = M or (16 if images < LARGE else 32)
    require(edges >= 2, "hnsw", f"M must be at least 2, got {edges}", "give e.g. M=32")
    require(
        efConstruction > 0 < efSearch,
        "hnsw",
        f"efConstruction and efSearch must be at least 1, got {efConstruction} and {efSearch}",
        "give e.g. efSearch=64",
    )
    return IndexPlan(
        factory=f"HNSW{edges},Flat",
        build_parameters={"M": edges, "efConstruction": efConstruction},
        search_parameters={"efSearch": efSearch},
    )


@indexes.register(
    "ivf",
    summary="compares with the images of the nprobe nearest of nlist cells, found by k-means",
    source="Sivic and Zisserman 2003, Video Google",
)
def ivf(images: int, dim: int, *, nlist: int = 0, nprobe: int = 0) -> IndexPlan:
    nlist, nprobe = cells("ivf", images, nlist, nprobe)
    return IndexPlan(
        factory=f"IVF{nlist},Flat",
        build_parameters={"nlist": nlist},
        search_parameters={"nprobe": nprobe},
    )


@indexes.register(
    "ivfpq",
    summary=(
        "the same as ivf, with each image rotated and in m codes of so many bits; k_factor times as"
        " many images are compared again in 8 bits a value, or none with 0"
    ),
    source=(
        "Jegou, Douze and Schmid 2011, Product quantization for nearest neighbor search; Ge, He, Ke"
        " and Sun 2013, Optimized product quantization"
    ),
    compresses=True,
)
def ivfpq(
    images: int,
    dim: int,
    *,
    nlist: int = 0,
    nprobe: int = 0,
    m: int = 0,
    bits: int = 0,
    k_factor: int = 4,
) -> IndexPlan:
    nlist, nprobe = cells("ivfpq", images, nlist, nprobe)
    fitting = [parts for parts in range(1, dim + 1) if dim % parts == 0]
    m = m or max(parts for parts in fitting if parts <= max(dim // 4, 1))
    require(
        m in fitting,
        "ivfpq",
        f"m must divide {dim} dimensions, got {m}",
        f"choose one of {', '.join(map(str, fitting))}",
    )
    bits = bits or min(8, max(1, int(math.log2(max(images, 2)))))
    require(1 <= bits <= 12, "ivfpq", f"bits must be 1 to 12, got {bits}", "choose e.g. bits=8")
    require(
        2**bits <= images,
        "ivfpq",
        f"the gallery must have at least {2**bits:,} images for codes of {bits} bits,"
        f" got {images:,}",
        "choose fewer bits, or another index",
    )
    # Raw vectors beside the codes would make the file larger than the gallery.
    refined = ",Refine(SQ8)" if k_factor else ""
    built = {"nlist": nlist, "m": m, "bits": bits} | ({} if k_factor else {"k_factor": 0})
    # np: without FAISS's reordering of codes for Hamming distances, which takes minutes and is not
    # used
    return IndexPlan(
        factory=f"OPQ{m},IVF{nlist},PQ{m}x{bits}np{refined}",
        build_parameters=built,
        search_parameters={"nprobe": nprobe} | ({"k_factor": k_factor} if k_factor else {}),
    )


def cells(name: str, images: int, nlist: int, nprobe: int) -> tuple[int, int]:
    """How many cells there are, and how many are searched; FAISS advises 4 to 16 sqrt(images) cells
    and 30 images in each."""
    nlist = nlist or max(1, min(round(4 * math.sqrt(images)), images // 30))
    require(
        nlist <= images,
        name,
        f"nlist must be at most the gallery's {images:,} images, got {nlist:,}",
        "choose fewer cells, or leave it out",
    )
    nprobe = nprobe or min(nlist, max(8, nlist // 64))
    require(
        nprobe <= nlist,
        name,
        f"nprobe must be at most the {nlist:,} cells (nlist), got {nprobe:,}",
        "probe fewer, or build more cells",
    )
    return nlist, nprobe


def require(holds: bool, name: str, what: str, step: str) -> None:
    """Raises ValueError unless a condition holds."""
    if not holds:
        raise ValueError(f"index {name}: {what}: {step}")


def library() -> Any:
    """FAISS with all names of its Python layer, of which its type stubs know only a part."""
    import faiss

    return faiss


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS with one thread: its graphs and sums depend on the number of threads, and times are
    reported for one."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def build(
    plan: IndexPlan,
    embeddings: np.ndarray,
    progress: Progress = lambda message, done, total: None,
) -> Any:
    """The FAISS index of (images, dim) float32 unit vectors; position i is image i. The same bit
    for bit for the same vectors."""
    import faiss

    index = faiss.index_factory(embeddings.shape[1], plan.factory, faiss.METRIC_INNER_PRODUCT)
    prepare(index, plan)
    with one_thread():
        if not index.is_trained:
            progress("training the index", 0, 1)
            index.train(np.ascontiguousarray(enough_to_rotate(plan, embeddings), np.float32))
            progress("training the index", 1, 1)
        for first in range(0, len(embeddings), CHUNK):
            progress("filling the index", first, len(embeddings))
            index.add(np.ascontiguousarray(embeddings[first : first + CHUNK], np.float32))
        progress("filling the index", len(embeddings), len(embeddings))
    tune(index, plan)
    return index


def enough_to_rotate(plan: IndexPlan, embeddings: np.ndarray) -> np.ndarray:
    """(images, dim) -> the same, or each so often that a rotation, where there is one, can be
    trained."""
    images, least = len(embeddings), least_rotated(embeddings.shape[1])
    if not plan.factory.startswith("OPQ") or images >= least:
        return embeddings
    return np.tile(embeddings, (-(-least // images), 1))


def least_rotated(dim: int) -> int:
    """The fewest vectors on which FAISS can train a rotation. It refuses fewer than it has codes of
    8 bits, whatever bits the index has, and fewer than dimensions break its memory."""
    return max(256, dim)


def prepare(index: Any, plan: IndexPlan) -> None:
    """Set the seeds and sizes of the index's own trainings."""
    faiss = library()

    inner = faiss.downcast_index(index.base_index) if hasattr(index, "base_index") else index
    if hasattr(inner, "chain"):
        rotation = faiss.downcast_VectorTransform(inner.chain.at(0))
        rotation.niter = rotation.niter_pq_0 = ROTATIONS
        sampled = SAMPLED * 2 ** plan.build_parameters["bits"]
        rotation.max_train_points = max(sampled, least_rotated(rotation.d_in))
        inner = faiss.downcast_index(inner.index)
    if hasattr(inner, "hnsw"):
        inner.hnsw.efConstruction = plan.build_parameters["efConstruction"]
    for part in (inner, getattr(inner, "pq", inner)):
        if hasattr(part, "cp"):
            part.cp.seed, part.cp.min_points_per_centroid, part.cp.max_points_per_centroid = (
                SEED,
                1,
                SAMPLED,
            )


def tune(index: Any, plan: IndexPlan) -> None:
    """Set the parameters of its searches."""
    import faiss

    for name, value in plan.search_parameters.items():
        faiss.ParameterSpace().set_index_parameter(
            index, {"k_factor": "k_factor_rf"}.get(name, name), value
        )


def narrowed(index: Any, live: np.ndarray) -> Any:
    """FAISS's parameters of a search among the vectors that are `live`, (vectors) bool; all others
    are the index's own."""
    faiss = library()

    if hasattr(index, "base_index"):
        within = narrowed(faiss.downcast_index(index.base_index), live)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=within)
    if hasattr(index, "chain"):
        within = narrowed(faiss.downcast_index(index.index), live)
        return faiss.SearchParametersPreTransform(index_params=within)
    selector = faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
    if hasattr(index, "hnsw"):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    if hasattr(index, "nprobe"):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    return faiss.SearchParameters(sel=selector)


def open_mapped(path: Path) -> Any:
    """A FAISS index whose vectors, codes and edges stay in the file and are read where a search
    needs them. All kinds here can be opened so, and not added to. Raises RuntimeError on another
    file."""
    import faiss

    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
