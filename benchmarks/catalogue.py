"""P@1 of a catalogue of studio photos as the gallery of field photos, alone and with others.

    python benchmarks/catalogue.py --runs RUN ...

RUN is a run on a data set with a catalogue, e.g. grocery with data.dataset.catalogue=true. Runs of
one experiment are its seeds, and make a row for each model and group of classes. `dml-bench report`
has the same table. Writes catalogue.json and catalogue.md below --out.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from common import facts, options_of, table, write

from dml_bench.analysis.catalogue import CatalogueRow, catalogue_rows
from dml_bench.evaluation.catalogue import KS
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.run import Run, open_run

__all__ = ["cells"]


def with_bounds(value: Interval) -> str:
    return f"{100 * value.estimate:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def cells(experiment: str, seeds: int, row: CatalogueRow) -> list[str]:
    """The cells of a row."""
    text = [f"`{experiment}`", str(seeds), row.model, row.classes]
    text += [with_bounds(value) for value in (row.field, row.catalogue, row.centred)]
    for curve in (row.beside_centred, row.field_only):
        text += [f"{100 * curve[k]:.1f}" for k in KS[1:]]
    return text


def main() -> None:
    options = options_of(__doc__, runs=("",))
    if options.out.name == "speed" and not options.quick:
        options.out = Path(__file__).parent.parent / "reports" / "catalogue"
    rows = []
    result: dict[str, Any] = {**facts(), "rows": []}
    seeds: dict[str, list[Run]] = defaultdict(list)
    for folder in options.runs:
        run = open_run(Path(folder))
        seeds[run.experiment.name].append(run)
    for name, runs in seeds.items():
        for row in catalogue_rows(runs):
            rows.append(cells(name, len(runs), row))
            numbers = [row.field.as_table(), row.catalogue.as_table(), row.centred.as_table()]
            result["rows"].append([name, len(runs), row.model, row.classes, *numbers])
    heads = ["experiment", "seeds", "model", "classes", "training photos", "catalogue", "centred"]
    heads += [f"centred, and {k}" for k in KS[1:]] + [f"{k} alone" for k in KS[1:]]
    lines = [
        "",
        "P@1 (%) of test photos, averaged over classes, by the gallery: all training photos; one"
        " studio photo of each class; the same with the means of studio and field photos taken"
        " away; these and k random training photos of each class; these k photos alone. `limited`"
        " was never trained on the unseen classes.",
        "",
        *table(heads, rows),
    ]
    write("catalogue", "Studio photos as the gallery of field photos", result, lines, options.out)


if __name__ == "__main__":
    main()
