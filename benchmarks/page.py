"""What is shown and written of the times: a table for the terminal, a page in Markdown."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["markdown", "show"]

Values = dict[str, dict[str, list[float]]]
"""Measurements by contestant and kind."""

ROWS = (
    ("whole epoch", "s", "epoch", False),
    ("of it training", "s", "train", False),
    ("of it evaluation", "s", "evaluate", False),
    ("whole epoch, CPU time", "CPU s", "epoch_cpu", False),
    ("input pipeline alone", "images/s", "input", True),
    ("training step alone", "images/s", "step", True),
    ("evaluation with its input", "images/s", "evaluate_rate", True),
)
"""What is shown: name, unit, key, and whether more is better."""


def row_values(values: Values, key: str, more: bool) -> tuple[list[str], list[str]]:
    """Cells `median (least-most)` of each contestant, and how many times as fast as the usual loop
    each other is."""
    medians = {name: statistics.median(measured[key]) for name, measured in values.items()}
    cells = [
        f"{medians[name]:.4g} ({min(measured[key]):.4g}-{max(measured[key]):.4g})"
        for name, measured in values.items()
    ]
    if "usual" not in medians:
        return cells, []
    others = [
        median / medians["usual"] if more else medians["usual"] / median
        for name, median in medians.items()
        if name != "usual"
    ]
    return cells, [f"{ratio:.2f}" for ratio in others]


def rows_of(values: Values) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table."""
    ratios = [f"{name} : usual" for name in values if name != "usual"] if "usual" in values else []
    head = ["", *values, *ratios]
    body = []
    for title, unit, key, more in ROWS:
        cells, fast = row_values(values, key, more)
        body.append([f"{title}, {unit}", *cells, *fast])
    return head, body


def decoding(result: dict[str, Any]) -> str:
    """The price of the cache, and the epochs after which the input pipelines alone have paid it
    back."""
    evaluated = result["train_images"] + result["test_images"]
    price = (
        "Decoding once into the cache (both views):"
        f" {1e3 * result['cache_seconds'] / evaluated:.1f} s per 1,000 images"
    )
    if not {"ours", "usual"} <= set(result["values"]):
        return price + "."
    ours, usual = (statistics.median(result["values"][name]["input"]) for name in ("ours", "usual"))
    saved = (evaluated + result["train_images"]) * (1 / usual - 1 / ours)
    return (
        price
        + f"; by the input pipelines alone it has paid after {result['cache_seconds'] / saved:.1f}"
        " epochs."
    )


def notes_of(result: dict[str, Any]) -> list[str]:
    """The separate lines below the table."""
    score = {
        name: statistics.median(values) * 1e3 for name, values in result["scoring_seconds"].items()
    }
    notes = [
        decoding(result),
        (
            f"Scoring embeddings that are there: ours {score['ours_precision_at_1']:.1f} ms (search"
            f" and P@1), AccuracyCalculator {score['usual_precision_at_1']:.1f} ms (P@1 only, in"
            f" the times above), {score['usual_default_metrics']:.1f} ms (its default metrics, not"
            " in the times above)."
        ),
    ]
    if result["save_state_seconds"]:
        notes.append(
            f"Writing the resumable state: {statistics.median(result['save_state_seconds']):.2f} s"
            " an epoch, not in the times above."
        )
    if same := result["same"]:
        notes.append(
            "Same computation, asserted before timing, in float32 without augmentation: from equal"
            f" weights one training step has inputs within {same['inputs']:.0e}, losses within"
            f" {same['loss']:.0e} and changes of the weights within {same['update']:.0e}"
            f" (relative); from equal weights embeddings are within {same['embeddings']:.0e} and"
            f" P@1 is {same['ours_precision_at_1']:.4f} and {same['usual_precision_at_1']:.4f} on"
            f" {same['queries']} queries, {same['undecided']} of which are too close to call."
        )
    return notes


def markdown(result: dict[str, Any]) -> str:
    head, body = rows_of(result["values"])
    made, machine, packages = result["made_by"], result["machine"], result["machine"]["packages"]
    table = [head, ["---", *["--:"] * (len(head) - 1)], *body]
    precisions = ", ".join(
        f"{name} {precision}"
        for name, precision in result["precision"].items()
        if name in result["values"]
    )
    used = ("torch", "torchvision", "pytorch-metric-learning", "faiss-cpu", "pillow")
    seen = (
        f"seen at {result['size']} px, batches of {result['batch_size']}; ResNet-18,"
        f" {result['experiment']}"
    )
    files = (
        f"{result['image_pixels'][0]} x {result['image_pixels'][1]} px"
        f" ({result['mean_file_kilobytes']:.0f} kB a file)"
    )
    threads = (
        f"{machine['cores']} cores, {result['threads']} threads, {result['workers']} loader workers"
    )
    commit = f"dml-bench {machine['dml_bench']} (commit {machine['commit'] or 'unknown'})"
    lines = [
        "# One epoch: dml-bench and the usual loop",
        "",
        (
            f"Made by `{made['command']}` on {made['date']}; never edited by hand. How to read it:"
            " benchmarks/README.md."
        ),
        "",
        (
            f"- {result['train_images']} training and {result['test_images']} test images of"
            f" {files}, {seen}"
        ),
        f"- {machine['processor']}, {threads}, {result['device']}; {precisions}",
        (
            f"- {', '.join(f'{name} {packages[name]}' for name in used)}, Python"
            f" {machine['python']}, {commit}"
        ),
        (
            f"- load average of the last minute {result['load_average_start']:.2f} at the start,"
            f" {result['load_average_end']:.2f} at the end"
        ),
        (
            f"- medians (least-most) of {result['rounds']} rounds in turns; the ratio is how many"
            " times as fast as the usual loop"
        ),
        "",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        *(f"- {note}" for note in notes_of(result)),
    ]
    return "\n".join(lines) + "\n"


def show(result: dict[str, Any], console: Console) -> None:
    head, body = rows_of(result["values"])
    table = Table(
        title=f"One epoch at {result['size']} px, median (least-most) of {result['rounds']} rounds",
        title_justify="left",
    )
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left")
    for row in body:
        table.add_row(*row)
    console.print(table)
    for note in notes_of(result):
        console.print(note)
