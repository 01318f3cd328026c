"""What stands around a search for settings: one process, first weights that know no validation
class, and what is said where no trial came to its end."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from steps import Heard
from tiny import tiny

from dml_bench.config.tuning import Range, TuningSpace
from dml_bench.runs.settings_search import search_alone
from dml_bench.suite.plan import resolve_row
from dml_bench.suite.tuned import require_chosen
from dml_bench.training.tuning import TuningRequest

NAME = "EPSHN_cosine_resnet18_sgd_aug"
SPACE = TuningSpace(
    name="small",
    summary="one number",
    trials=2,
    epochs=0.34,
    valid_classes=0.5,
    prune=False,
    shared=False,
    ranges={"optimizer.lr": Range(low=0.01, high=1e30, log=True)},
    of_loss={},
)


@pytest.fixture
def request_of(birds, cache_dir, tmp_path):
    def of(*settings: str) -> TuningRequest:
        return TuningRequest(
            experiment=tiny(*settings),
            name=NAME,
            space=SPACE,
            trials=2,
            data_dir=birds,
            out=tmp_path,
            cache_dir=cache_dir,
            device="cpu",
            callback=Heard(),
        )

    return of


def test_weights_of_a_phase_that_trained_on_the_validation_classes_are_refused(
    trained, request_of, tmp_path
):
    weights = trained("train.epochs=1").folder / "limited" / "weights.safetensors"
    with pytest.raises(ValueError, match=r"trained on \d+ images that must be unseen here"):
        search_alone(request_of(f"model.weights={weights}"))
    assert not list(tmp_path.rglob("*.json"))


def test_copies_by_which_trials_would_be_judged_are_said_as_a_run_says_them(
    request_of, birds, tmp_path
):
    data = Path(shutil.copytree(birds, tmp_path / "CUB_200_2011"))
    first, *others = (sorted(folder.glob("*"))[0] for folder in sorted(data.glob("images/*")))
    for other in others:
        shutil.copy(first, other)
    request = replace(request_of(), data_dir=data, trials=1)
    search_alone(request)
    in_gallery, trained_on = request.callback.warnings
    assert "queries have the same pixels as a gallery image" in in_gallery
    assert "that must stay unseen are trained on" in trained_on


def test_two_processes_do_not_make_one_search(request_of, tmp_path):
    folder = Path(tmp_path, "tuning", NAME)
    folder.mkdir(parents=True)
    with (
        FileLock(folder / ".cub-42.lock"),
        pytest.raises(ValueError, match="another process makes this search in .*: wait for it"),
    ):
        search_alone(request_of())


def test_a_search_of_which_no_trial_ends_is_said_and_tunes_no_row(request_of):
    request = request_of("optimizer.lr=1e29")
    space = replace(SPACE, ranges={"optimizer.lr": Range(low=1e28, high=1e30, log=True)})
    search = search_alone(replace(request, space=space))
    assert {trial.state for trial in search.trials} == {"diverged"}
    (warning,) = request.callback.warnings
    assert "no trial of 2 came to its end, so nothing was chosen: lower optimizer.lr" in warning
    row = resolve_row(NAME, "", [], [42])
    with pytest.raises(ValueError, match=f"no trial of .*, the search of {NAME}, came to its end"):
        require_chosen(row, [search])
