"""How well chains of near-identical embeddings find sessions: on drawn embeddings whose sessions
are known, and on the photos of a run whose folders say which shopping trips they are of.

    python benchmarks/session_chains.py [--quick] [--run RUN]

RUN is one of frozen_efficientnet_lite0 on `grocery`.

Of the pairs of photos that are in one chain, `precision` are of one session; of the pairs of one
session, `recall` are in one chain. `beside` is the share of test photos that a random split puts
beside their own session, by the chains and by the known sessions; `chance` that of photos without
sessions. Photos below the run's folders `train` and `val` are of other shopping trips than those
below `test`; which trips there were is not known, so there is no recall. Writes
session_chains.json and session_chains.md below --out.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import facts, options_of, table, write

from dml_bench.analysis.sessions import chains, sessions_of_embeddings
from dml_bench.data.sessions import share_beside
from dml_bench.runs.run import read_folder

__all__ = ["SETTINGS", "Setting", "draw", "measure"]

TEST_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Classes, sessions in them, and photos around these, all normal in `dimension` dimensions."""

    photos: int = 60
    """Of each of 40 classes."""
    session_size: int = 4
    noise: float = 0.3
    """Of a photo around the middle of its session, which is 1 around that of its class."""
    dimension: int = 12

    def describe(self) -> str:
        """In a few words."""
        if self.session_size == 1:
            return f"{self.photos} photos a class, no sessions, {self.dimension} dimensions"
        return (
            f"{self.photos} photos a class, sessions of {self.session_size}, noise {self.noise:g},"
            f" {self.dimension} dimensions"
        )


SETTINGS = (
    Setting(session_size=1),
    Setting(session_size=1, dimension=5),
    Setting(session_size=1, photos=10),
    Setting(noise=0.1),
    Setting(),
    Setting(noise=0.5),
    Setting(noise=0.3, dimension=30),
    Setting(noise=0.3, dimension=5),
    Setting(session_size=10),
    Setting(session_size=20),
    Setting(photos=12, session_size=2),
)


def draw(setting: Setting, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(photos, dim) unit vectors, (photos) classes and (photos) sessions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(40), setting.photos)
    sessions = np.arange(len(labels)) // setting.session_size
    shape = (len(labels), setting.dimension)
    vectors = 3 * rng.normal(size=shape)[labels] + rng.normal(size=shape)[sessions]
    if setting.session_size > 1:
        vectors += setting.noise * rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels, sessions


def pairs_of(ids: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pairs) the photos of pairs with the same id and class."""
    together = (ids[:, None] == ids) & (labels[:, None] == labels)
    first, second = np.nonzero(np.triu(together, 1))
    return first, second


def measure(vectors: np.ndarray, labels: np.ndarray, sessions: np.ndarray) -> dict[str, float]:
    """What the chains are worth against known sessions."""
    ids = chains(vectors, labels)
    first, second = pairs_of(ids, labels)
    right = int((sessions[first] == sessions[second]).sum())
    num_true = len(pairs_of(sessions, labels)[0])
    estimate = sessions_of_embeddings(vectors, labels, TEST_FRACTION)
    return {
        "precision": right / len(first) if len(first) else np.nan,
        "recall": right / num_true if num_true else np.nan,
        "beside": estimate.beside,
        "chance": estimate.chance,
        "beside_truly": share_beside(labels, sessions, TEST_FRACTION),
    }


def measure_run(folder: Path) -> dict[str, Any]:
    """The same of a run on photos whose first folder says the part of the data set."""
    run = read_folder(folder)
    stored = run.embeddings(run.protocol.main_phase)
    images = np.concatenate([stored.images(part) for part in stored.parts])
    vectors = np.concatenate([stored.vectors(part) for part in stored.parts])
    images, rows = np.unique(images, return_index=True)
    names = [run.split[image].class_name for image in images]
    labels = np.unique(names, return_inverse=True)[1]
    is_test = np.array([run.split[image].path.startswith("test/") for image in images])
    first, second = pairs_of(chains(vectors[rows], labels), labels)
    by_class = pairs_of(np.zeros(len(labels), int), labels)
    estimate = sessions_of_embeddings(vectors[rows], labels, TEST_FRACTION)
    return {
        "experiment": run.experiment.name,
        "photos": len(images),
        "pairs_in_chains": len(first),
        "of_the_same_trips": float((is_test[first] == is_test[second]).mean()),
        "of_the_same_trips_by_chance": float((is_test[by_class[0]] == is_test[by_class[1]]).mean()),
        "beside": estimate.beside,
        "chance": estimate.chance,
    }


def mean_of(results: list[dict[str, float]], name: str) -> float:
    return float(np.mean([result[name] for result in results]))


def percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"


def main() -> None:
    out = Path(__file__).parent.parent / "reports" / "sessions"
    options = options_of(__doc__, draws=5, run="")
    if options.out.name == "speed" and not options.quick:
        options.out = out
    draws = 1 if options.quick else options.draws
    measured, rows = [], []
    for setting in SETTINGS:
        results = [measure(*draw(setting, seed)) for seed in range(draws)]
        means = {name: mean_of(results, name) for name in results[0]}
        if setting.session_size == 1:
            means |= {"precision": np.nan, "recall": np.nan}
        measured.append({"setting": asdict(setting), **means})
        rows.append([setting.describe(), *map(percent, means.values())])
    result: dict[str, Any] = {**facts(), "draws": draws, "settings": measured}
    lines = [
        "",
        (
            f"Means of {draws} draws of 40 classes. Pairs in one chain that are of one session:"
            " precision. Pairs of one session that are in one chain: recall. A random split with"
            f" {TEST_FRACTION:.0%} test photos puts `beside` of these beside their own session."
        ),
        "",
        *table(["photos", "precision", "recall", "beside", "chance", "beside truly"], rows),
        "",
        (
            "Sessions of more than a quarter of their class are not seen. In few dimensions, photos"
            " that were taken one by one are as near as those of a session."
        ),
    ]
    if options.run:
        of_run = measure_run(Path(options.run))
        result["run"] = of_run
        lines += [
            "",
            "## Photos",
            "",
            (
                f"`{of_run['experiment']}`, {of_run['photos']:,} photos: of"
                f" {of_run['pairs_in_chains']:,} pairs in chains,"
                f" {of_run['of_the_same_trips']:.1%} are on one side of the official split, which"
                " keeps shopping trips apart; of all pairs of a class,"
                f" {of_run['of_the_same_trips_by_chance']:.1%} are. A random split would put"
                f" {of_run['beside']:.0%} of test photos beside one of their own session (chance"
                f" {of_run['chance']:.0%})."
            ),
        ]
    write("session_chains", "Sessions from embeddings", result, lines, options.out)


if __name__ == "__main__":
    main()
