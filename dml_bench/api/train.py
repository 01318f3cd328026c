"""Public functions that train, or look at what training would do: resolve, run, suites, learning
rates, batches."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dml_bench.api.arguments import (
    Overrides,
    PathLike,
    WandbMode,
    callback_or_log,
    experiment_of,
    optional_path,
    override_texts,
    path_of,
    picture_file,
    seeds_of,
    texts_of,
)
from dml_bench.system.cache_folder import cache_folder
from dml_bench.system.callbacks import Callback

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console

    from dml_bench.config import Experiment
    from dml_bench.runs.run import Run
    from dml_bench.suite.executor import ExecutorSetup, JobResult
    from dml_bench.suite.over_data_sets import SuitesOverData
    from dml_bench.suite.run import Suite
    from dml_bench.system.terminal import SuiteProgress
    from dml_bench.training.lr_finder import RateSweep
    from dml_bench.training.tuning import Search

__all__ = [
    "draw_batches",
    "find_learning_rate",
    "plan_suite",
    "plan_suites",
    "resolve",
    "run",
    "run_suite",
    "suite_commands",
    "tune",
]


def resolve(
    experiment: "Experiment | str | Path", overrides: Overrides = (), *, demo: bool = False
) -> "Experiment":
    """The experiment with every value that a run of it will use.

    `experiment` is the name of a shipped experiment or the path of a .toml or .json file;
    `overrides` maps dotted keys to values, or lists texts `key=value`; `demo` applies the demo
    profile first: small images of drawn birds, a few minutes on a CPU. Nothing is trained or
    written.

    Raises ValueError where a name, key or value is unknown or two settings contradict each other.
    Source: docs/components.md lists names; `dml-bench show` prints the result.

    >>> experiment = db.resolve("EPSHN_cosine_resnet18_sgd_aug", {"train.epochs": 3})
    >>> experiment.train.epochs, experiment.loss.name
    (3, 'NTXent')
    """
    return experiment_of(experiment, overrides, demo=demo)


def run(
    experiment: "Experiment | str | Path",
    *,
    demo: bool = False,
    data_dir: PathLike | None = None,
    overrides: Overrides = (),
    out: PathLike = "runs",
    device: str = "auto",
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
    wandb: WandbMode = "disabled",
    force: bool = False,
    phases_at_once: int = 0,
) -> "Run":
    """Train and evaluate every phase of an experiment, and return the finished run.

    `experiment`, `demo` and `overrides` are as in `resolve`. `data_dir` is the folder of images;
    `out` the folder of run folders; `device` auto, cpu or cuda. `callback` hears of progress; where
    there is none, warnings go to the logger `dml_bench`. A run that was interrupted goes on after
    its last finished epoch; one that is finished is read and not trained again, unless `force`
    discards it. On a CPU `phases_at_once` phases train beside each other, each in a process of its
    own; 0 lets the program choose, and 1 needs least memory. Overrides other than seed, data and
    held-out classes give the run a name and folder of its own, such as `NAME~optimizer.lr=0.1`.

    Raises ValueError where settings, data or the run folder do not fit together.
    Source: docs/protocols_and_statistics.md describes phases and measurements.

    >>> small = {"model.backbone": "timm:test_resnet", "model.weights": "none", "images.size": 32}
    >>> small |= {"augment.random_crop_from": 36, "unseen": "last:2", "train.epochs": 1}
    >>> finished = db.run(
    ...     "EPSHN_cosine_resnet18_sgd_aug",
    ...     data_dir="CUB_200_2011", overrides=small, out="short_runs", device="cpu",
    ... )
    >>> finished.experiment.name.partition("~")[0], finished.folder.name
    ('EPSHN_cosine_resnet18_sgd_aug', 'seed-42')
    """
    resolved = experiment_of(experiment, overrides, demo=demo)
    heard = callback_or_log(callback)
    from dml_bench.data.datasets.by_name import check_data_dir

    check_data_dir(resolved.data.dataset, optional_path(data_dir))  # before torch is imported
    from dml_bench.config.variants import variant_name
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest
    from dml_bench.runs.run import read_folder
    from dml_bench.tracking.wandb_mirror import mirror_in_wandb

    request = RunRequest(
        experiment=resolved,
        variant=variant_name(resolved.name, override_texts(overrides)),
        data_dir=optional_path(data_dir),
        out=path_of(out),
        cache_dir=cache_folder(cache_dir),
        device=device,
        mirror=mirror_in_wandb(wandb),
        force=force,
        phases_at_once=phases_at_once,
        callback=heard,
    )
    outcome = execute(request)
    if outcome.already_finished:
        heard.note("this run is finished already; --force redoes it")
    return read_folder(outcome.folder)


def plan_suite(
    experiments: Sequence[str] = (),
    *,
    table: str = "",
    only: Sequence[str] = (),
    demo: bool = False,
    data_dir: PathLike | None = None,
    overrides: Overrides = (),
    seeds: Sequence[int] = (),
    sweeps: Sequence[str] = (),
    tuned: bool = False,
    out: PathLike = "runs",
    report: PathLike | None = None,
    cache_dir: PathLike | None = None,
    wandb: WandbMode = "disabled",
    results: PathLike | None = None,
    command: Sequence[str] = (),
) -> "Suite":
    """What a suite will run: a table's rows or the named experiments, each with each seed.

    `table` is the name of a shipped table, by default `study`; `only` are patterns of row names
    (`EPSHN*`); `seeds` are by default those of the table, else the experiment's own; `report` is
    the folder of the suite's page, by default one in `out`; `command` is what the page names as its
    maker. `sweeps` are texts `key=value,value`: each row becomes one for
    each combination of their values, with a name of its own. With `tuned`, each row stands beside
    itself with the settings of its search (`tune`), from `out` or else from `results`. `results`
    is the folder of records: each run is recorded there when it ends, and counts as finished where
    the same code made its record of the same data. Nothing is trained or written.

    Raises ValueError where a row can't be resolved or has no search, or experiments and a table are
    both named.
    Source: the files in experiments/tables.

    >>> suite = db.plan_suite(["EPSHN_cosine_resnet18_sgd_aug"], seeds=[42, 43], demo=True)
    >>> [experiment.seed for row in suite.rows for experiment in row.seeds]
    [42, 43]
    >>> rates = ["optimizer.lr=0.01,0.1"]
    >>> swept = db.plan_suite(["EPSHN_cosine_resnet18_sgd_aug"], sweeps=rates, demo=True)
    >>> [row.name for row in swept.rows]  # doctest: +NORMALIZE_WHITESPACE
    ['EPSHN_cosine_resnet18_sgd_aug~optimizer.lr=0.01',
     'EPSHN_cosine_resnet18_sgd_aug~optimizer.lr=0.1']
    """
    from dml_bench.suite.plan import chosen_rows

    profile = "demo" if demo else ""
    texts = override_texts(overrides)
    name, title, rows = chosen_rows(
        texts_of(experiments, "experiments"),
        table,
        texts_of(only, "only"),
        profile=profile,
        overrides=texts,
        seeds=seeds_of(seeds),
        sweeps=texts_of(sweeps, "sweeps"),
    )
    if tuned:
        from dml_bench.suite.tuned import with_tuned_rows

        places = [path_of(out)] if results is None else [path_of(out), path_of(results)]
        rows = with_tuned_rows(rows, places, profile, texts, optional_path(data_dir))
    from dml_bench.suite.run import Suite

    return Suite(
        name=name,
        title=title,
        rows=rows,
        profile=profile,
        overrides=tuple(texts),
        data_dir=optional_path(data_dir),
        out=path_of(out),
        cache_dir=cache_folder(cache_dir),
        report=optional_path(report),
        wandb=wandb,
        command=tuple(command) or ("dml_bench.run_suite", name),
        results=optional_path(results),
    )


def plan_suites(
    table: str,
    *,
    seeds: Sequence[int] = (),
    tuned: bool = False,
    data_dir: PathLike | None = None,
    out: PathLike = "runs",
    report: PathLike | None = None,
    results: PathLike = "results",
    cache_dir: PathLike | None = None,
    wandb: str = "offline",
    command: Sequence[str] = (),
) -> "SuitesOverData":
    """Plan a table over several data sets: a suite for each that is here.

    `table` is such a table (`reality`). `data_dir` holds the folders of the data sets; `absent`
    says which were left out, and why. `results` is the folder of the records, where each run is
    recorded: a record of the same settings and images counts as finished, whatever code made it.
    With `tuned`, each trained row stands beside itself with the settings of its search (`tune`),
    under hold-outs that leave classes to search by; a data set with a row that has no search is
    left out. `searches` says which of these nobody has made yet. Nothing is trained.

    Raises ValueError where the table is of one data set.
    Source: the files in experiments/tables.

    >>> planned = db.plan_suites("reality", results="records")
    >>> list(planned.suites), list(planned.absent)[:4]
    (['demo'], ['grocery', 'omniglot', 'cars196_train', 'flowers102_part'])
    """
    from dml_bench.suite.over_data_sets import Places
    from dml_bench.suite.over_data_sets import plan_suites as plan

    places = Places(
        data_dir=optional_path(data_dir),
        out=path_of(out),
        cache_dir=cache_folder(cache_dir),
        results=path_of(results),
        report=optional_path(report),
        wandb=wandb,
    )
    made_by = tuple(command) or ("dml_bench.plan_suites", table)
    return plan(table, seeds_of(seeds), places, tuned=tuned, command=made_by)


def run_suite(
    suite: "Suite | SuitesOverData",
    *,
    jobs: int = 0,
    device: str = "auto",
    devices: str = "",
    ray: str = "",
    gpus_per_run: float = 1.0,
    console: "Console | None" = None,
) -> "list[JobResult]":
    """Run what is not finished of a planned suite, each run in a process of its own, and write the
    suite's page. Of the suites of `plan_suites`, first what they cost is said, and at the end there
    is a page over all data sets.

    `jobs` is the number of runs at a time (0: one per device, or 2 on a CPU); `devices` lists the
    devices that they share (`cuda:0,cuda:1`). `ray` runs them on a Ray cluster instead (`auto`,
    HOST:PORT or `local`), where `gpus_per_run` is each run's fraction of a GPU. `console` is the
    rich console that shows progress and the table. Returns how each run
    ended, seed by seed in the order of the table.

    Raises ValueError before anything is trained where options contradict each other, the data
    can't be opened, or an experiment claims what can't be measured.
    Source: docs/scale.md.

    >>> suite = db.plan_suite(
    ...     ["EPSHN_cosine_resnet18_sgd_aug"],
    ...     data_dir="CUB_200_2011", overrides=trained_with, seeds=[42, 43], report="suite_page",
    ... )
    >>> from rich.console import Console
    >>> results = db.run_suite(suite, device="cpu", jobs=1, console=Console(quiet=True))
    >>> [result.status for result in results]
    ['finished earlier', 'finished earlier']
    """
    from dml_bench.suite.over_data_sets import SuitesOverData, run_suites
    from dml_bench.suite.run import run_suite as run_planned
    from dml_bench.system.terminal import SuiteProgress, Terminal

    display = SuiteProgress(console or Terminal())

    def chosen() -> "AbstractContextManager[ExecutorSetup]":
        return executor(ray, jobs, device, devices, gpus_per_run, display)

    if isinstance(suite, SuitesOverData):
        return run_suites(suite, chosen, display)
    return run_planned(suite, chosen(), display)


def executor(
    ray: str, jobs: int, device: str, devices: str, gpus_per_run: float, display: "SuiteProgress"
) -> "AbstractContextManager[ExecutorSetup]":
    """What carries out the runs of a suite. Raises ValueError for options that contradict each
    other."""
    from dml_bench.suite.executor import ExecutorSetup
    from dml_bench.suite.local import LocalExecutor, slots_of

    if not ray:
        if gpus_per_run != 1:
            raise ValueError(
                "--gpus-per-run is for --ray: here, --jobs says how many runs share the --devices"
            )
        return nullcontext(ExecutorSetup(slots_of(jobs, device, devices), LocalExecutor))
    if devices:
        raise ValueError(
            f"--devices {devices}: Ray gives out the GPUs; leave it out, or see --gpus-per-run"
        )
    from dml_bench.suite.ray import on_ray

    return on_ray(ray, jobs, device, gpus_per_run, display.say)


def suite_commands(suite: "Suite | SuitesOverData", device: str = "auto") -> list[str]:
    """The shell command of each run of a suite, or of the suites of `plan_suites`, that is not
    finished, for SLURM or xargs. Of suites, what they cost is said on stderr.

    Raises ValueError as `run_suite` does, and where a name has a line break.
    Source: docs/scale.md.

    >>> suite = db.plan_suite(
    ...     ["EPSHN_cosine_resnet18_sgd_aug"],
    ...     data_dir="CUB_200_2011", overrides=trained_with, seeds=[44],
    ... )
    >>> [line.split()[:3] for line in db.suite_commands(suite)]
    [['dml-bench', 'run', 'EPSHN_cosine_resnet18_sgd_aug']]
    """
    from dml_bench.suite.over_data_sets import SuitesOverData, commands_of_suites
    from dml_bench.suite.run import commands
    from dml_bench.system.terminal import SuiteProgress, Terminal

    display = SuiteProgress(Terminal(file=sys.stderr, width=120))
    if isinstance(suite, SuitesOverData):
        return commands_of_suites(suite, device, display)
    return commands(suite, device, display)


def find_learning_rate(
    experiment: "Experiment | str | Path",
    *,
    demo: bool = False,
    data_dir: PathLike | None = None,
    overrides: Overrides = (),
    out: PathLike | None = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    device: str = "auto",
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> "RateSweep":
    """Train at ever higher learning rates until the loss explodes.

    The result holds `rates` (steps) from `low` to `high` and `losses` (steps), one batch each, and
    `suggestion()` says which rate to take. `out` names a picture (.png or .svg) of the curve; its
    numbers go into a .csv beside it. No run folder is made, and no test image is looked at.

    Raises ValueError on another kind of picture, and where low < high does not hold.
    Source: Smith, "Cyclical learning rates for training neural networks" (2017).

    >>> sweep = db.find_learning_rate(
    ...     "EPSHN_cosine_resnet18_sgd_aug",
    ...     data_dir="CUB_200_2011", overrides=trained_with, steps=12, high=0.1, device="cpu",
    ... )
    >>> sweep.rates.shape == sweep.losses.shape
    True
    """
    picture = None if out is None else picture_file(out, (".png", ".svg"), "lr")
    resolved = experiment_of(experiment, overrides, demo=demo)
    from dml_bench.training.lr_finder import sweep as measure_rates

    sweep = measure_rates(
        resolved,
        data_dir=optional_path(data_dir),
        cache_dir=cache_folder(cache_dir),
        device=device,
        low=low,
        high=high,
        steps=steps,
        callback=callback_or_log(callback),
    )
    if picture is not None:
        write_rates(sweep, picture)
    return sweep


def write_rates(sweep: "RateSweep", picture: Path) -> None:
    """The curve as a picture, and its numbers as a table beside it."""
    from dml_bench.plots.canvas import standalone
    from dml_bench.plots.learning_rates import learning_rates
    from dml_bench.system.files import write_atomically, write_csv
    from dml_bench.training.lr_finder import smoothed

    drawn = learning_rates(sweep)
    content = drawn.png if picture.suffix.lower() == ".png" else standalone(drawn.svg).encode()
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(picture, lambda file: file.write(content))
    columns = (sweep.rates.tolist(), sweep.losses.tolist(), smoothed(sweep.losses).tolist())
    heads = ("learning_rate", "loss", "smoothed_loss")
    write_csv(picture.with_suffix(".csv"), heads, zip(*columns, strict=True))


def tune(
    experiment: "Experiment | str | Path",
    *,
    trials: int | None = None,
    space: str = "",
    demo: bool = False,
    data_dir: PathLike | None = None,
    overrides: Overrides = (),
    out: PathLike = "runs",
    device: str = "auto",
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> "Search":
    """Search for settings on classes that no trial trains on.

    Trials train on some of the classes that the experiment never holds out, and are judged by MAP@R
    among images of others. They see no test image. `space` is the name of a file in
    experiments/tuning, or a path: by default `heads` where only the head is trained,
    `recipes` where classes are disjoint, else `networks`. `trials` is by default the space's. The
    search is kept in `out`: the same call goes on with it, and `plan_suite(..., tuned=True)` runs
    what it chose.

    The result holds `trials`, the `best` and the experiment's `own` one, and `path`.

    Raises ValueError where optuna is missing, too few classes are known, a search of other settings
    is in the way, or the first weights are of a run that knew what no trial must see.
    Source: Bergstra et al., "Algorithms for hyper-parameter optimization" (2011), by optuna.

    >>> search = db.tune(
    ...     "EPSHN_cosine_resnet18_sgd_aug",
    ...     data_dir="CUB_200_2011", overrides=trained_with, trials=2, device="cpu",
    ... )
    >>> search.best.score >= search.own.score
    True
    """
    resolved = experiment_of(experiment, overrides, demo=demo)
    from dml_bench.config.tuning import read_space, space_for
    from dml_bench.config.variants import variant_name
    from dml_bench.runs.settings_search import search_alone
    from dml_bench.training.tuning import TuningRequest

    chosen = read_space(space or space_for(resolved))
    wanted = chosen.trials if trials is None else trials
    if wanted < 2:
        raise ValueError(f"trials must be at least 2, got {wanted}: the first has no new settings")
    request = TuningRequest(
        experiment=resolved,
        name=variant_name(resolved.name, override_texts(overrides)),
        space=chosen,
        trials=wanted,
        data_dir=optional_path(data_dir),
        out=path_of(out),
        cache_dir=cache_folder(cache_dir),
        device=device,
        callback=callback_or_log(callback),
    )
    return search_alone(request)


def draw_batches(
    experiment: "Experiment | str | Path",
    *,
    demo: bool = False,
    data_dir: PathLike | None = None,
    overrides: Overrides = (),
    out: PathLike | None = None,
    epoch: int = 1,
    batches: int = 1,
    images: int = 32,
    callback: Callback | None = None,
    cache_dir: PathLike | None = None,
) -> "Image":
    """A contact sheet of training batches as the network would see them: augmented, resized and
    mixed, with labels and their weights.

    `epoch` counts from 1; `images` are drawn of each of `batches`. The result is a Pillow image;
    `out` writes it as .png or .jpg. No run folder is made.

    Raises ValueError on another kind of picture, an epoch that the experiment does not have, or
    an experiment that trains on features instead of images.
    Source: the experiment's own [augment], [sampler] and [mixing].

    >>> sheet = db.draw_batches(
    ...     "EPSHN_cosine_resnet18_sgd_aug",
    ...     data_dir="CUB_200_2011", overrides=trained_with, images=4,
    ... )
    >>> sheet.width > 0
    True
    """
    picture = None if out is None else picture_file(out, (".png", ".jpg", ".jpeg"), "sheet")
    resolved = experiment_of(experiment, overrides, demo=demo)
    from dml_bench.system.files import write_atomically
    from dml_bench.training.preview import preview

    sheet = preview(
        resolved,
        data_dir=optional_path(data_dir),
        cache_dir=cache_folder(cache_dir),
        epoch=epoch,
        batches=batches,
        images=images,
        callback=callback_or_log(callback),
    )
    if picture is not None:
        form = "PNG" if picture.suffix.lower() == ".png" else "JPEG"
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(picture, lambda file: sheet.save(file, form))
    return sheet
