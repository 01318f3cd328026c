"""The public function that answers: a gallery or a classifier?"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from dml_bench.api.arguments import (
    Overrides,
    PathLike,
    callback_or_log,
    optional_path,
    override_texts,
    path_of,
)
from dml_bench.report.printed import PrintedDocument, PrintedRecord
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from dml_bench.decision.decide import Decision

__all__ = ["DecisionReport", "decide"]


@dataclass(frozen=True, repr=False)
class DecisionReport(PrintedDocument, PrintedRecord):
    """What `dml-bench decide` says. Printed, it is the page.

    >>> small = ["model.backbone=timm:test_resnet", "model.weights=none", "images.size=32"]
    >>> photos = "CUB_200_2011/images"
    >>> report = db.decide(photos, minutes=5, overrides=small, device="cpu")
    >>> report.decision.answer in ("gallery", "classifier")
    True
    """

    decision: "Decision"

    def as_dict(self) -> dict[str, Any]:
        """Plain values: proportions from 0 to 1."""
        return self.decision.as_table()


SET_BY_DECIDE = (
    *("name", "protocol", "unseen", "data", "data.split", "data.time"),
    *("data.test_fraction", "data.valid_fraction", "data.skip_unreadable"),
)
"""Settings that follow from how the photos are divided: with others, rows would be compared on
photos of sessions that they trained on, and the page would tell of another division."""

OF_SEVERAL_ANSWERS = ("train.folds", "evaluate.tta", "evaluate.tta_by", "evaluate.tta_draws")
"""Settings by which several networks or views answer in a run, where one does on the final part."""


def require_others_settings(overrides: Sequence[str]) -> None:
    """Raises ValueError where one sets what a decision sets itself."""
    from dml_bench.config.variants import setting_of

    for text in overrides:
        setting = setting_of(text)
        if setting == "seed":
            raise ValueError("decide runs seeds of its own: leave out --set seed")
        if setting == "data.group":
            raise ValueError(
                f"decide takes sessions from --group: give it in place of --set {text}"
            )
        if setting in OF_SEVERAL_ANSWERS:
            raise ValueError(
                "decide has one network and one view answer on the final part: leave out --set"
                f" {text}"
            )
        if setting in SET_BY_DECIDE:
            raise ValueError(f"decide sets {setting} by its own division: leave out --set {text}")


def decide(
    photos: PathLike,
    *,
    minutes: float = 30,
    out: PathLike = "decision",
    group: str = "",
    catalogue: PathLike | None = None,
    overrides: Overrides = (),
    device: str = "auto",
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
    command: Sequence[str] = (),
) -> DecisionReport:
    """Whether a gallery or a classifier suits the photos, in the time that is allowed.

    `photos` has one folder for each class, or a table. A fifth of them is set aside, rows that fit
    into `minutes` are run on the others in a fixed order, one is chosen, and only then the fifth is
    opened. Everything is kept in `out`, with the page index.html; the same call goes on from there.
    `group` says which photos were taken together, as `data.group` does (a column, `parent`,
    `regex:PATTERN`, `exif:day`, `runs`); without it, this is estimated. `catalogue` holds studio
    photos in class folders or a table; they are tried as a gallery and have no part in the choice.
    Only frozen backbones are used, whose weights come with packages.

    Raises ValueError where photos or minutes are too few, or a page in `out` is no report's.
    Source: docs/your_photos.md.

    >>> db.decide("photos", minutes=0)
    Traceback (most recent call last):
    ValueError: --minutes must be more than 0, got 0: allow some
    """
    if not isinstance(minutes, Real):
        raise ValueError(f"minutes must be a number, got {minutes!r}: give one, e.g. 30")
    if not minutes > 0:
        raise ValueError(f"--minutes must be more than 0, got {minutes:g}: allow some")
    texts = override_texts(overrides)
    require_others_settings(texts)
    from dml_bench.decision.decide import decide as decide_on
    from dml_bench.decision.parts import remove_old_catalogue
    from dml_bench.report.compose import WRITTEN, made_by, write
    from dml_bench.report.decision import compose_decision
    from dml_bench.report.ours import require_ours

    remove_old_catalogue(path_of(out))
    require_ours(path_of(out), WRITTEN)
    decision = decide_on(
        path_of(photos),
        minutes=minutes,
        out=path_of(out),
        group=group,
        catalogue=optional_path(catalogue),
        cache_dir=cache_folder(cache_dir),
        device=device,
        overrides=texts,
        callback=callback_or_log(callback),
    )
    maker = tuple(command) or ("dml_bench.decide", str(photos))
    document = compose_decision(decision, made_by(maker))
    write(path_of(out), document)
    return DecisionReport(document=document, decision=decision)
