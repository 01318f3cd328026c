"""A submission made again, from nothing but its configuration and the images."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dml_bench.board.submission import Finding, Submission
from dml_bench.evaluation.statistics import interval
from dml_bench.protocols.metric import Metric
from dml_bench.runs.execute import execute
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.request import RunRequest
from dml_bench.runs.run import Run, read_folder
from dml_bench.system.callbacks import Callback

__all__ = ["run_again"]


SAME_BITS = ("code", "packages", "processor", "device", "precision", "threads", "processes")
"""What two runs have to have in common to give the same bits."""


def run_again(
    submission: Submission,
    data_dir: Path | None,
    cache_dir: Path,
    device: str,
    callback: Callback,
) -> Iterator[Finding]:
    """By the same code, packages and processor every answer has to be the same. Elsewhere networks
    differ in their last bits: a metric is refused where zero lies outside of the 99% interval of
    its difference, query by query."""
    experiment = submission.run.experiment
    if experiment.plugins is not None:
        yield Finding("unchecked", "rerun", "it has plug-ins, which are never imported")
        return
    if experiment.model.weights not in ("imagenet", "none", "source"):
        yield Finding("unchecked", "rerun", "its weights are a file, which is never read")
        return
    library, colon, _ = experiment.model.backbone.name.partition(":")
    if colon and library != "timm":  # whose models are those of its own list
        text = f"its backbone is whatever {library} loads by that name, which is never read"
        yield Finding("unchecked", "rerun", text)
        return
    with TemporaryDirectory() as folder:
        request = RunRequest(
            experiment=experiment,
            data_dir=data_dir,
            out=Path(folder),
            cache_dir=cache_dir,
            device=device,
            callback=callback,
        )
        again = read_folder(execute(request).folder)
        equal = share_of_equal_answers(submission, again)
        callback.note(f"{submission.path}: {equal:.1%} of the answers are the same again")
        if equal == 1:
            return
        session: dict[str, Any] = dict(again.last_session(*SAME_BITS))
        stated = submission.run.last_session()
        if all(stated.get(key) == session[key] for key in SAME_BITS):
            yield Finding(
                "refused",
                "rerun",
                f"the same code on such a machine gives {1 - equal:.1%} other answers",
            )
            return
        for metric in metrics_of(experiment).values():
            yield from differs(metric, submission, again)


def share_of_equal_answers(submission: Submission, again: Run) -> float:
    """Over all phases."""
    shares = []
    for phase, neighbours in submission.run.neighbours.items():
        same = neighbours.labels[:, 0] == again.neighbours[phase].labels[:, 0]
        shares.append(float(same.mean()))
    return float(np.mean(shares))


def differs(metric: Metric, submission: Submission, again: Run) -> Iterator[Finding]:
    """A refusal where a metric is another one."""
    stated, measured = metric.scores(submission.run), metric.scores(again)
    difference = interval([stated.minus(measured)], average=metric.average, level=0.99)
    if difference.low > 0 or difference.high < 0:
        yield Finding(
            "refused",
            "rerun",
            f"{metric.name} is {difference.estimate:+.3f} above that of the same run made again"
            f" (99% interval {difference.low:+.3f} to {difference.high:+.3f})",
        )
