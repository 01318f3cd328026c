"""Kills and flipped bits: whatever a command was doing, the next one ends in the bits of an
uninterrupted run.

    python benchmarks/crash.py --seconds 900 --seed 1
    python benchmarks/crash.py --only plain force enrol --seconds 120

Every scenario (`scenarios.py`) is carried out once undisturbed. Then it is killed again and again
(`killing.py`), carried out once more, and what lies in its place is compared with what lay there
undisturbed. Writes crash/README.md and crash/crash.json below --out.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import facts, heading, table
from killing import EXPECTED, STOPPED, Death, Event, drawn_deaths, events_of, run_in_fork
from scenarios import Scenario, bits_of, leftovers, scenarios

from dml_bench.system.files import write_json

TESTS = Path(__file__).parent.parent / "tests"
REPORTS = Path(__file__).parent.parent / "reports"
QUICK = ("force", "enrol", "draw")
QUICK_KILLS = 20
COLUMNS = ("operations", "cases", "kills", "differences", "leftovers", "seconds")


@dataclass(kw_only=True)
class Tally:
    """What became of a scenario."""

    scenario: Scenario
    prepared: Path
    """Its place before anything is killed."""
    bits: dict[str, str]
    """Of the place after an undisturbed run."""
    events: list[Event]
    """File operations of an undisturbed run."""
    seconds: float
    """Of an undisturbed run."""
    spent: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    """By signal."""
    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    """Cases that ended otherwise, in words."""
    left: list[str] = field(default_factory=list)
    """Drafts that no later command removed."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=900, help="for the kills, after the undisturbed runs"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these scenarios, and no flipped bits"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_KILLS} kills in {', '.join(QUICK)}: shows that it works",
    )
    parser.add_argument("--out", type=Path, default=REPORTS)
    return parser.parse_args()


def import_everything() -> None:
    """So that a forked command begins at once."""
    import dml_bench.browse.session
    import dml_bench.explain.neighbour_panels
    import dml_bench.gallery.export
    import dml_bench.gallery.predict
    import dml_bench.report.compose  # noqa: F401
    from dml_bench.cli import catalogue
    from dml_bench.suite import run  # noqa: F401

    for kind in catalogue.KINDS:
        catalogue.entries(kind)


def undisturbed(scenario: Scenario, world: Path) -> Tally:
    """Carried out twice: the second time says whether equal bits can be asked for at all. The first
    is in this process, which then has loaded and compiled all that its forks need."""
    prepared, log = world / f"{scenario.name}-prepared", world / f"{scenario.name}.log"
    places = [world / f"{scenario.name}-{number}" / "place" for number in (1, 2)]
    prepared.mkdir()
    with open(log, "a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        scenario.prepare(prepared)
        for place in places:
            shutil.copytree(prepared, place)
        if not scenario.by_itself:
            scenario.act(places[0])
    if scenario.by_itself:
        require(run_in_fork(scenario.act, places[0], log)[0], scenario, log)
    code, seconds = run_in_fork(scenario.act, places[1], log, events=log.with_suffix(".json"))
    require(code, scenario, log)
    bits = [bits_of(place) for place in places]
    assert bits[0] == bits[1], f"undisturbed it differs by itself in {differing(*bits)}"
    return Tally(
        scenario=scenario,
        prepared=prepared,
        bits=bits[1],
        events=events_of(log.with_suffix(".json")),
        seconds=seconds,
    )


def require(code: int, scenario: Scenario, log: Path) -> None:
    if code:
        raise AssertionError(
            f"undisturbed it ends with exit code {code}: {log.read_text()[-1500:]}"
        )


def case(tally: Tally, chance: random.Random, place: Path) -> None:
    """Kill, carry out, compare."""
    scenario, log = tally.scenario, place.parent.with_suffix(".log")
    shutil.copytree(tally.prepared, place)
    story = []
    for death in drawn_deaths(chance, tally.events, tally.seconds, scenario.by_time_only):
        code, _ = run_in_fork(scenario.act, place, log, death)
        story.append(f"{death} {named(tally, death)}-> {code}")
        if code in (-death.signal, STOPPED):
            tally.kills[death.signal.name] += 1
        elif code not in (0, EXPECTED):
            tally.wrong.append(f"{story[-1]}: {log.read_text()[-1500:]}")
    code, _ = run_in_fork(scenario.again or scenario.act, place, log)
    tally.cases += 1
    bits = {} if code else bits_of(place)
    if code or bits != tally.bits:
        reason = (
            f"exit code {code}: {log.read_text()[-1500:]}"
            if code
            else f"other bits: {differing(bits, tally.bits)}"
        )
        tally.wrong.append(f"{'; '.join(story)}; then {reason}")
        print(f"{scenario.name}: {tally.wrong[-1]}", flush=True)
    elif left := leftovers(place):
        tally.left.append(f"{'; '.join(story)}: {left}")
        print(f"{scenario.name}: left after {tally.left[-1]}", flush=True)
    shutil.rmtree(place.parent)
    log.unlink(missing_ok=True)


def named(tally: Tally, death: Death) -> str:
    if death.moment in ("time", "group"):
        return ""
    event = tally.events[int(death.at) - 1]
    return f"({event.name} {Path(event.file).name}) "


def differing(actual: dict[str, str], wanted: dict[str, str]) -> list[str]:
    return sorted(
        name for name in actual.keys() | wanted.keys() if actual.get(name) != wanted.get(name)
    )


def kill_all(tallies: Sequence[Tally], options: argparse.Namespace, world: Path) -> None:
    """Whoever had least of the time is next. On a busy machine it may take longer: until each had
    one case."""
    chance, end, number = random.Random(options.seed), time.monotonic() + options.seconds, 0
    while time.monotonic() < end or not all(tally.cases for tally in tallies):
        if options.quick and sum(sum(tally.kills.values()) for tally in tallies) >= QUICK_KILLS:
            break
        tally = min(tallies, key=lambda candidate: candidate.spent / candidate.scenario.weight)
        begun, number = time.monotonic(), number + 1
        case(tally, chance, world / f"case-{number}" / "place")
        tally.spent += time.monotonic() - begun


def flipped_bits(world: Path, seed: int) -> list[dict[str, Any]]:
    """One bit of a file of each kind that is read back (`tests/persisted.py`): silent, healed, or
    refused in words."""
    sys.path.insert(0, str(TESTS))
    from persisted import KINDS

    chance, birds = random.Random(seed), world / "birds"
    rows: list[dict[str, Any]] = []
    made: dict[Any, Path] = {}
    wanted: dict[Any, str] = {}
    for kind in KINDS:
        if kind.make not in made:
            made[kind.make] = world / f"kind-{len(made)}"
            code, _ = run_in_fork(partial(fill, kind, birds), made[kind.make], world / "kinds.log")
            assert code == 0, (world / "kinds.log").read_text()[-2000:]
        place = Path(shutil.copytree(made[kind.make], world / "damaged"))
        path = kind.path(place)
        content = bytearray(path.read_bytes())
        bit = chance.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        code, _ = run_in_fork(partial(use, kind, birds), place, world / "kinds.log")
        if (kind.make, kind.use) not in wanted:
            undamaged = Path(shutil.copytree(made[kind.make], world / "whole"))
            assert run_in_fork(partial(use, kind, birds), undamaged, world / "kinds.log")[0] == 0
            wanted[kind.make, kind.use] = (undamaged / "used").read_text()
            shutil.rmtree(undamaged)
        same = code == 0 and (place / "used").read_text() == wanted[kind.make, kind.use]
        result = (
            "healed"
            if same and kind.heals
            else {0: "SILENT", EXPECTED: "refused"}.get(code, "TRACEBACK")
        )
        rows.append({"kind": str(kind), "bit": bit, "result": result})
        print(f"{kind}: bit {bit}, {result}", flush=True)
        shutil.rmtree(place)
    return rows


def fill(kind: Any, birds: Path, place: Path) -> None:
    kind.make(place, birds)


def use(kind: Any, birds: Path, place: Path) -> None:
    (place / "used").write_text(repr(sorted(kind.use(place, birds).items())))


def page(result: dict[str, Any]) -> str:
    rows, total = [], dict.fromkeys(COLUMNS, 0)
    for name, tally in result["scenarios"].items():
        rows.append([name, *(f"{tally[key]:.0f}" for key in COLUMNS)])
        for key in COLUMNS:
            total[key] += tally[key]
    signals = ", ".join(f"{number} {name}" for name, number in result["signals"].items())
    lines = [
        *heading("Kills and flipped bits", result),
        "",
        (
            f"Seed {result['seed']}. {total['kills']} kills ({signals}) of commands that were then"
            f" carried out again; of {total['cases']} cases {total['differences']} ended in other"
            " bits."
        ),
        "",
        *table(
            ["what is killed", *COLUMNS],
            [*rows, ["all", *(f"{total[key]:.0f}" for key in COLUMNS)]],
        ),
        "",
        *(
            f"- {name}: {line}"
            for name, tally in result["scenarios"].items()
            for line in [*tally["wrong"], *tally["left"]]
        ),
    ]
    lines += [f"- {line}" for line in result["failed"]]
    if result["flips"]:
        silent = [row for row in result["flips"] if row["result"] not in ("healed", "refused")]
        lines += [
            "",
            (
                f"A flipped bit in a file of each of {len(result['flips'])} kinds that are read"
                f" back: {len(silent)} silent."
            ),
            "",
        ]
        lines += table(
            ["file", "bit", "what became of it"],
            [[row["kind"], str(row["bit"]), row["result"]] for row in result["flips"]],
        )
    return "\n".join([*lines, ""])


def as_dict(tally: Tally) -> dict[str, Any]:
    return {
        "operations": len(tally.events),
        "cases": tally.cases,
        "kills": sum(tally.kills.values()),
        "differences": len(tally.wrong),
        "leftovers": len(tally.left),
        "seconds": round(tally.spent, 1),
        "wrong": tally.wrong,
        "left": tally.left,
    }


def main() -> None:
    options = arguments()
    import torch

    torch.set_num_threads(1)
    import_everything()
    with ExitStack() as stack:
        world = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crash-")))
        every = scenarios(world)
        tallies, failed = [], []
        for name in options.only or (QUICK if options.quick else every):
            try:
                tallies.append(undisturbed(every[name], world))
            except AssertionError as problem:
                failed.append(f"{name} can't be tried: {problem}")
                print(failed[-1], flush=True)
                continue
            print(
                f"{name}: {len(tallies[-1].events)} file operations, {tallies[-1].seconds:.1f} s",
                flush=True,
            )
        flips = [] if options.only or options.quick else flipped_bits(world, options.seed)
        print(f"kills for {options.seconds:.0f} s", flush=True)
        kill_all(tallies, options, world)
    result = {
        **facts(),
        "seed": options.seed,
        "signals": dict(sum((tally.kills for tally in tallies), Counter())),
        "scenarios": {tally.scenario.name: as_dict(tally) for tally in tallies},
        "flips": flips,
        "failed": failed,
    }
    text = page(result)
    print(text)
    (options.out / "crash").mkdir(parents=True, exist_ok=True)
    write_json(options.out / "crash" / "crash.json", result)
    (options.out / "crash" / "README.md").write_text(text, encoding="utf-8")
    bad = (
        len(failed)
        + sum(len(tally.wrong) + len(tally.left) for tally in tallies)
        + sum(row["result"] in ("SILENT", "TRACEBACK") for row in flips)
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
