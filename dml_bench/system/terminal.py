"""What a person at a terminal sees of a run."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dml_bench.system.callbacks import Callback, EpochRecord
from dml_bench.system.pace import RecentPace
from dml_bench.system.printable import printable
from dml_bench.system.tables import OutcomeTable, number

if TYPE_CHECKING:
    from dml_bench.system.devices import LaterNumber

__all__ = [
    "SuiteProgress",
    "Terminal",
    "TerminalCallback",
    "as_text",
    "duration",
    "print_unwrapped",
    "show_comparison",
    "show_outcome",
]

WIDEST = 10_000
"""The number of columns of the widest table that is printed unwrapped."""


class Terminal(Console):
    """A console that shows names which people gave as text: [XL] is no style, :bag: no picture, and
    an escape character changes nothing."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """What is printed, piece by piece."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_unwrapped(console: Console, table: Table) -> None:
    """Print a table as wide as it is. The terminal itself wraps long lines, so that a path in one
    can be copied."""
    options = console.options.update(max_width=WIDEST)
    width = max(console.measure(table, options=options).maximum, len(str(table.caption or "")))
    for line in console.render_lines(table, options.update(width=width), pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        parts = [(part.text, part.style or "") for part in line]
        console.print(Text.assemble(*parts), soft_wrap=True)


def as_text(show: Callable[[Console], None]) -> str:
    """What `show` prints on a console, as plain text of 120 columns."""
    console = Terminal(width=120, color_system=None)
    with console.capture() as capture:
        show(console)
    return capture.get()


def live_bars(console: Console) -> Progress:
    """Bars that vanish when they are done, and are not there at all where the output is no
    terminal."""
    texts = [
        TextColumn(form, markup=False) for form in ("{task.description}", "{task.fields[detail]}")
    ]
    columns = texts[0], BarColumn(bar_width=24), texts[1]
    return Progress(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=4,
        disable=not console.is_terminal,
    )


class TerminalCallback(Callback):
    """Prints the plan, a line per epoch, and below it a live bar of the running epoch with the time
    left for everything."""

    def __init__(
        self,
        console: Console,
        say: Callable[[str], None] | None = None,
        warned: set[str] | None = None,
    ):
        self.console = console
        self.warned = set() if warned is None else warned
        """Warnings that were printed, perhaps by another callback, and that are not repeated."""
        self.say = say
        """Where notes go beside a result, which finished steps don't touch either; None is the
        console."""
        self.progress_bar = live_bars(console)
        self._task: TaskID | None = None
        self._label = ""
        self._units = self._done = 0.0
        self._pace = RecentPace()
        self._step, self._step_done, self._step_pace = "", 0, RecentPace()
        self._last_shown = 0.0
        self._loss: LaterNumber | None = None

    def __enter__(self) -> "TerminalCallback":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress_bar.stop()

    def note(self, text: str) -> None:
        if self.say is not None:
            self.say(text)
        else:
            self.console.print(Text(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        if text not in self.warned:
            self.warned.add(text)
            self.console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)

    def on_plan(self, plan: dict[str, Any]) -> None:
        experiment, environment = plan["experiment"], plan["environment"]
        session, dataset = environment["sessions"][-1], environment["dataset"]
        unseen = environment["unseen_classes"]
        model = experiment.model
        weights = "random start" if model.weights == "none" else f"{model.weights} weights"
        processes = f", {session['processes']} processes" if session["processes"] > 1 else ""
        rows = {
            "experiment": f"{experiment.name}, seed {experiment.seed}\n{experiment.summary}",
            "model": (
                f"{named(model.backbone)} ({weights}, {model.trainable} trained), head"
                f" {named(model.head)}"
            ),
            "objective": (
                f"loss {named(experiment.loss)}; miner {named(experiment.miner)}; batches"
                f" {named(experiment.sampler)}"
            ),
            "optimizer": (
                f"{named(experiment.optimizer)}; {experiment.train.epochs} epochs, batches of"
                f" {experiment.train.batch_size}"
                if experiment.train.epochs
                else named(experiment.optimizer)
            ),
            "dataset": (
                f"{dataset['name']}: {dataset['num_images']:,} images, {dataset['num_classes']}"
                f" classes at {experiment.images.size} px (fingerprint"
                f" {dataset['fingerprint'][:12]})"
            ),
            "split": plan["split"],
            "unseen": describe_unseen(plan["unseen"], unseen),
            "device": (
                f"{session['device']}, {session['precision']}, {session['threads']} threads"
                f" ({session['processor']}){processes}"
            ),
            "results": str(plan["folder"]),
        }
        if experiment.schedule.name != "constant" or experiment.schedule.options["warmup"]:
            rows["optimizer"] += f"; rate {named(experiment.schedule)}"
        if experiment.start.name != "none":
            rows["start"] = named(experiment.start)
        if experiment.mixing.technique.name != "none":
            rows["mixing"] = describe_mixing(experiment.mixing)
        if experiment.labelling.name != "given":
            rows["labels"] = named(experiment.labelling)
        if experiment.profile:
            rows = {"profile": f"{experiment.profile}: {plan['profile']}"} | rows
        for phase in plan["phases"]:
            done = (
                f", {phase['epochs_done']} of {phase['epochs']} epochs done"
                if phase["epochs_done"]
                else ""
            )
            rows[f"phase {phase['name']}"] = (
                f"trains on {phase['classes']} classes, {phase['images']:,} images{done}"
            )
        table = Table.grid(padding=(0, 2))
        for name, text in rows.items():
            table.add_row(Text(name, style="bold"), Text(text))
        self.console.print(table)
        self.console.print()

    def progress(self, message: str, done: int, total: int) -> None:
        if message != self._step or done < self._step_done:
            self._step, self._step_pace = message, RecentPace()
        self._step_done = done
        left = written_time(self._step_pace.seconds_left(done, total))
        self._show(message, done, total, f"{done:,}/{total:,}{left}", force=done == total)
        if done == total:
            self._hide()
            self._step = ""
            if self.say is None:
                self.console.print(Text(f"{message}: done"))

    def on_work(self, units: float) -> None:
        """What is left is known anew; the pace so far is kept."""
        self._units = self._done + units

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        self._name, self._epochs, self._images = name, epochs, images
        self._accuracy = ""
        self._loss = None
        self._epoch_done = 0
        self._epoch_start = time.perf_counter()
        self._pace.begin(self._done)

    def on_step(self, images: int, loss: Any) -> None:
        self._done += 3 * images
        self._epoch_done += images
        if time.perf_counter() - self._last_shown > 0.25:
            rate = self._epoch_done / (time.perf_counter() - self._epoch_start)
            detail = (
                f"{self._epoch_done:,}/{self._images:,}  {rate:.0f} images/s"
                f"{self._newest_loss(loss)}{self._accuracy}{self._time_left()}"
            )
            self._show(f"{self._name}: training", self._epoch_done, self._images, detail)

    def on_embedded(self, images: int) -> None:
        self._done += images
        self._show(f"{self._name}: embedding", 1, 1, self._time_left().strip())

    def on_epoch(self, record: EpochRecord) -> None:
        if accuracy := accuracies(record):
            self._accuracy = f"  P@1 {accuracy[0]:.3f}"
        self.on_epoch_beside(self._name, self._epochs, record)
        self._epoch_done = 0
        self._epoch_start = time.perf_counter()

    def on_epoch_beside(self, name: str, epochs: int, record: EpochRecord) -> None:
        loss = next(value for key, value in record.items() if key.startswith("train_loss"))
        parts = [f"{name:<8}{record['epoch']:>4}/{epochs}", f"loss {loss:.4f}"]
        if accuracy := accuracies(record):
            parts.append(f"P@1 {accuracy[0]:.4f}")
        parts.append(f"{record['train_images'] / record['train_seconds']:.0f} images/s")
        if record["batches_without_tuples"]:
            parts.append(f"{record['batches_without_tuples']} batches without a valid triplet")
        self._hide()
        self.console.print(Text("  ".join(parts) + self._time_left()))

    def on_work_beside(self, units: float) -> None:
        self._done += units
        if time.perf_counter() - self._last_shown > 1:  # nothing is trained here any more
            detail = self._time_left().strip()
            self._show("other phases", int(self._done), int(self._units), detail)

    def _newest_loss(self, loss: Any) -> str:
        """The loss, or that of the step shown before, where a GPU has yet to compute this one."""
        from dml_bench.system.devices import LaterNumber  # brings torch

        before, self._loss = self._loss, LaterNumber(loss)
        known = self._loss if self._loss.is_known() else before
        return "" if known is None else f"  loss {float(known):.3f}"

    def _time_left(self) -> str:
        return written_time(self._pace.seconds_left(self._done, self._units))

    def _show(self, label: str, done: int, total: int, detail: str, force: bool = False) -> None:
        if not force and time.perf_counter() - self._last_shown < 0.1:
            return
        self._last_shown = time.perf_counter()
        if self._task is None:
            self._task = self.progress_bar.add_task(label, total=total, detail=detail)
            self.progress_bar.start()
        self.progress_bar.update(
            self._task, description=label, completed=done, total=total, detail=detail
        )

    def _hide(self) -> None:
        """Without a bar the terminal is left alone: lines follow each other as they are."""
        if self._task is not None:
            self.progress_bar.stop()
            self.progress_bar.remove_task(self._task)
            self._task = None


def written_time(seconds: float | None) -> str:
    """`  2:03 left`, or nothing where it isn't known."""
    return "" if seconds is None else f"  {duration(seconds)} left"


def accuracies(record: EpochRecord) -> list[float]:
    """P@1 after an epoch, where it was validated."""
    names = [key for key in record if key.startswith(("test_accuracy", "valid_accuracy"))]
    return [cast(dict[str, float], record)[name] for name in names]


class SuiteProgress:
    """One bar for a whole suite, below it one for each run at work, and above them a lasting line
    for each that ended."""

    def __init__(self, console: Console):
        self.console = console
        self.bars = live_bars(console)

    def __enter__(self) -> "SuiteProgress":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()
        for task in self.bars.task_ids:
            self.bars.remove_task(task)

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def progress(self, message: str, done: int, total: int) -> None:
        self.show(done, total, f"{message}: {done:,}/{total:,}", [])

    def show(
        self, done: float, total: float, detail: str, working: list[tuple[str, float, str]]
    ) -> None:
        """`done` of `total` of everything, and of each run at work its name, its finished part (0
        to 1) and what it is at."""
        rows = [("suite", done / total if total else 1.0, detail), *working]
        for task in self.bars.task_ids[len(rows) :]:
            self.bars.remove_task(task)
        for _ in range(len(rows) - len(self.bars.task_ids)):
            self.bars.add_task("", total=1.0, detail="")
        for task, (name, fraction, text) in zip(self.bars.task_ids, rows, strict=True):
            self.bars.update(task, description=name, completed=fraction, detail=text)


def named(component: Any) -> str:
    """NTXent(temperature=0.1, distance=cosine)"""
    options = ", ".join(f"{key}={value}" for key, value in component.options.items())
    return f"{component.name}({options})" if options else component.name


def describe_mixing(mixing: Any) -> str:
    start = f", from epoch {mixing.start_from + 1}" if mixing.start_from else ""
    periods = f", {mixing.on} epochs on and {mixing.off} off" if mixing.off else ""
    end = f", until epoch {mixing.finetuning_epoch}" if mixing.finetuning_epoch else ""
    return named(mixing.technique) + start + periods + end


def describe_unseen(rule: str, unseen: list[str]) -> str:
    names = ", ".join([*unseen[:3], *(["..."] if len(unseen) > 3 else [])])
    return f"{len(unseen)} class{'es' if len(unseen) != 1 else ''} ({rule}): {names}"


def show_outcome(
    console: Console, folder: Path, summary: Mapping[str, Any], tables: Iterable[OutcomeTable]
) -> None:
    """What ends a run: the tables of its protocol, then training and cost."""
    console.print()
    for table in tables:
        console.print(rich_table(table))
        console.print()
    for line in describe_training(summary):
        console.print(Text(line))
    show_cost(console, summary)
    console.print(Text(f"results  {folder}"), soft_wrap=True)


def rich_table(outcome: OutcomeTable) -> Table:
    table = Table(title=outcome.title, title_justify="left")
    for place, head in enumerate(outcome.heads):
        table.add_column(head, justify="left" if place < outcome.num_text_columns else "right")
    for row in outcome.rows:
        table.add_row(*row)
    if outcome.totals:
        table.add_section()
    for row in outcome.totals:
        table.add_row(*row)
    if outcome.caption:
        table.caption = outcome.caption
        table.caption_justify = "left"
    return table


def describe_training(summary: Mapping[str, Any]) -> Iterator[str]:
    """What folds, label correction and the choice of an epoch came to, where a run has them."""
    for phase, results in summary.get("phases", {}).items():
        if folds := results.get("folds"):
            yield f"folds    {phase}: {describe_folds(folds, results['precision_at_1_macro'])}"
        if labels := results.get("labels"):
            yield f"labels   {phase}: {describe_labels(labels)}"
        if "l2" in results.get("fitted", {}):
            yield f"fitted   {phase}: {describe_fit(results['fitted'])}"
        if chosen := results.get("chosen"):
            metric, value = next((key, value) for key, value in chosen.items() if key != "epoch")
            name = metric.replace("_", " ")
            yield f"kept     {phase}: epoch {chosen['epoch']}, {name} {value:.4f}"


def describe_fit(fitted: dict[str, Any]) -> str:
    return (
        f"L2 {fitted['l2']:g}, chosen on {fitted['chosen_on_images']:,} {fitted['chosen_on']}"
        f" (accuracy {fitted['valid_accuracy']:.3f})"
    )


def describe_folds(folds: dict[str, Any], ensemble: float) -> str:
    values = ", ".join(f"{value:.3f}" for value in folds["precision_at_1_macro"])
    mean = f"{folds['mean']:.3f} [{folds['low']:.3f}, {folds['high']:.3f}]"
    return f"P@1 macro {values}; mean {mean}; ensemble {ensemble:.3f}"


def describe_labels(labels: dict[str, Any]) -> str:
    """How many labels were replaced and, where some were made wrong on purpose, how many of them
    rightly."""
    replaced = f"{labels['replaced']:,} of {labels['training_images']:,} replaced"
    wrong = labels["wrong_labels"]
    if not wrong:
        return f"{replaced}; it is not known which of the labels were wrong"
    if "replaced_rightly" not in labels:  # a run of a version that did not count them
        return f"{replaced}, {wrong:,} were wrong"
    return (
        f"{replaced}, {labels['replaced_rightly']:,} of them rightly; {wrong:,} labels were wrong,"
        f" now {labels['wrong_labels_after']:,} are"
    )


def show_cost(console: Console, summary: Mapping[str, Any]) -> None:
    cost = summary["cost"]
    trained = {name: part for name, part in cost.items() if isinstance(part, dict)}
    phases = " ".join(map(describe_phase_cost, trained, trained.values()))
    memory = max(part["peak_memory_bytes"] for part in trained.values()) / 2**30
    at_once = cost.get("phases_at_once", 1)
    together = f" ({at_once} phases at a time)" if at_once > 1 else ""
    console.print(
        Text(
            f"cost     {phases} {duration(cost['total_seconds'])} in all{together}, peak memory"
            f" {memory:.1f} GiB, {cost['device']}"
        )
    )


def describe_phase_cost(name: str, part: Mapping[str, Any]) -> str:
    """Without a rate where nothing was trained in epochs."""
    training = f"{duration(part['train_seconds'])} training"
    if "train_images_per_second" in part:
        training += f" at {part['train_images_per_second']:.0f} images/s"
    return f"{name}: {training}, embedding at {part['embed_images_per_second']:.0f};"


SHOWN_CLASSES = 10
Q_VALUE = "q: share of false discoveries among the differences with a q as small; no verdict"


def show_comparison(console: Console, comparison: Any) -> None:
    """A `Comparison`: the overall differences, and the classes that differ most."""
    console.print()
    console.print(differences_table(comparison))
    if comparison.equal:
        console.print(Text("the two are equal on every query"))
        return
    different = [row for row in comparison.classes if row.difference]
    largest = sorted(different, key=lambda row: -abs(row.difference))[:SHOWN_CLASSES]
    console.print(classes_table([row for row in comparison.classes if row in largest]))


def differences_table(comparison: Any) -> Table:
    """In points. q-values and what would be detectable only where an interval covers other seeds
    than these."""
    seeds = ", ".join(map(str, comparison.seeds))
    noun = "seed" if len(comparison.seeds) == 1 else "seeds"
    covers = ": intervals of these networks only" if comparison.these_networks_only else ""
    table = Table(
        title=f"first: {comparison.first}\nsecond: {comparison.second}\n"
        f"split {comparison.split}, {noun} {seeds}{covers}",
        title_justify="left",
        caption="" if comparison.these_networks_only else Q_VALUE,
        caption_justify="left",
    )
    heads = ["first", "second", "first - second [95%]"]
    if not comparison.these_networks_only:
        heads += ["smallest detectable", "seeds for 2 points", "q"]
    table.add_column("points")
    for head in heads:
        table.add_column(head, justify="right")
    for row in comparison.overall:
        cells = difference_cells(row)
        table.add_row(row.head, *cells[: len(heads)])
    return table


def difference_cells(row: Any) -> list[str]:
    form = "+.1f" if row.signed else ".1f"
    estimate, low, high = (
        100 * value for value in (row.difference.estimate, row.difference.low, row.difference.high)
    )
    return [
        number(100 * row.first.estimate, form),
        number(100 * row.second.estimate, form),
        f"{number(estimate, '+.1f')} [{number(low, '+.1f')}, {number(high, '+.1f')}]",
        f"{100 * row.smallest_detectable:.1f}",
        seeds_needed(row.seeds_for_2_points),
        "<0.001" if row.q < 0.0005 else number(row.q),
    ]


def seeds_needed(seeds: float) -> str:
    if math.isinf(seeds):
        return "more classes"
    return number(seeds, ".0f")


def classes_table(rows: Sequence[Any]) -> Table:
    """The classes with the largest differences, described and not tested."""
    table = Table(title="The classes that differ most (points)", title_justify="left")
    table.add_column("class", overflow="fold")
    has_spread = any(len(row.by_seed) > 1 for row in rows)
    spread = ("lowest seed", "highest seed") if has_spread else ()
    for head in ("first", "second", "first - second", *spread):
        table.add_column(head, justify="right")
    for row in rows:
        differences = [row.difference]
        if has_spread:
            differences += [min(row.by_seed), max(row.by_seed)]
        table.add_row(
            row.name,
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            *(number(100 * difference, "+.1f") for difference in differences),
        )
    return table
