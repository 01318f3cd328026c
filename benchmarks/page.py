"""What is shown and written of the times: a table for the terminal, a page in Markdown."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["markdown", "show"]

Values = dict[str, dict[str, list[float]]]
"""Measurements by contestant and kind."""

COLUMNS = (
    ("epoch, s", "epoch"),
    ("training, s", "train"),
    ("evaluation, s", "evaluate"),
    ("CPU s", "epoch_cpu"),
    ("input, images/s", "input"),
    ("step, images/s", "step"),
)
"""What is shown of each contestant: head and key. The input and the step are timed alone."""
LAST = "ours is faster"


def rows_of(values: Values) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table: medians (least-most), and by how much the epochs of ours are
    faster, which is the median of the ratios within rounds."""
    head = ["", *(title for title, _ in COLUMNS), *([LAST] if "ours" in values else [])]
    body = []
    for name, measured in values.items():
        cells = [
            f"{statistics.median(measured[key]):.3g}"
            f" ({min(measured[key]):.3g}-{max(measured[key]):.3g})"
            for _, key in COLUMNS
        ]
        if "ours" in values:
            cells.append(f"{faster(values, name):.2f}x")
        body.append([name, *cells])
    return head, body


def faster(values: Values, name: str) -> float:
    """How many times as fast an epoch of ours is: the median over rounds."""
    pairs = zip(values[name]["epoch"], values["ours"]["epoch"], strict=True)
    return statistics.median(other / own for other, own in pairs)


def for_two_lines(values: Values) -> list[str]:
    """Which part of the win anybody has for two lines; nothing where it was not measured."""
    lines = "usual, two lines"
    if not {"ours", "usual", lines} <= set(values):
        return []
    pairs = zip(values["usual"]["epoch"], values[lines]["epoch"], strict=True)
    theirs = statistics.median(slow / fast for slow, fast in pairs)
    return [
        f"Ours is {faster(values, 'usual'):.2f} times as fast as the usual loop. Anybody has"
        f" {theirs:.2f} of it for two lines, bfloat16 by autocast and channels-last memory; ours is"
        f" {faster(values, lines):.2f} times as fast as that."
    ]


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
        *for_two_lines(result["values"]),
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
    precisions = "; ".join(
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
        f"# One epoch: dml-bench and the {'bare' if 'floor' in result['values'] else 'usual'} loop",
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
            f"- medians (least-most) of {result['rounds']} rounds in turns; the last column is how"
            " many times as fast an epoch of ours is"
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
