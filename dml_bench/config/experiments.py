"""Named experiments: TOML files that say only how they differ from another, resolved by one strict
loader."""

import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any, get_args

from dml_bench.config import Experiment, load
from dml_bench.config.experiment import components_of
from dml_bench.config.loader import hints_of, import_components
from dml_bench.registry import UnknownName, near_miss

__all__ = [
    "EXPERIMENTS",
    "describe_profile",
    "find",
    "names",
    "parent",
    "resolve",
    "why_untested",
]

_PACKAGE = Path(__file__).parent.parent
_SHIPPED = _PACKAGE / "_experiments"
EXPERIMENTS = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parent / "experiments"


def names() -> list[str]:
    """The names of all experiments that come with the package."""
    return sorted((path.stem for path in EXPERIMENTS.glob("*.toml")), key=str.lower)


def find(name: str) -> Path:
    """The file of a named experiment, or `name` itself if it is the path of a .toml or .json
    file."""
    if name.endswith((".toml", ".json")):
        path = Path(name)
        if not path.is_file():
            beside = [str(other) for other in path.parent.glob(f"*{path.suffix}")]
            raise UnknownName(f"no file {name}{near_miss(name, beside)}: check its path")
        return path
    if name not in names():
        raise UnknownName(
            f"unknown experiment {name!r}{near_miss(name, names())}; `dml-bench list experiments`"
            " lists them"
        )
    return EXPERIMENTS / f"{name}.toml"


def parent(name: str) -> str | None:
    """The named experiment that this one extends; None where it extends none, or is no named
    experiment."""
    path = EXPERIMENTS / f"{name}.toml"
    return (
        tomllib.loads(path.read_text(encoding="utf-8")).get("extends") if path.is_file() else None
    )


def resolve(
    name: str, *, profile: str = "", overrides: list[str] | tuple[str, ...] = ()
) -> Experiment:
    """The experiment called `name` (or in the file `name`): its chain of `extends`, then `profile`,
    then `key=value` overrides.

    Plug-ins that it names are imported, unless a .json file is among those it was read from: a
    run folder's record says what ran, and causes no import. Raises ValueError, in words for the
    person who wrote the file or the command.
    """
    files: list[Path] = []
    table = read(find(name), files)
    is_record = any(path.suffix == ".json" for path in files)
    if not is_record:
        import_components(table)
    if profile:
        apply_profile(table, profile)
    for key, value in read_overrides(overrides):
        assign(table, key, value)
        if key == "model.weights" and value != "source":
            table.pop("pretrain", None)
    if not is_record:
        with_absolute_imports(table, Path.cwd())
        import_components(table)
    experiment = load(table)
    if profile and why_untested(experiment):
        return replace(experiment, expects=())
    return experiment


def read_overrides(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Keys and values of `key=value` texts. Raises ValueError on what is no such text, and on a
    setting of a component that a later one replaces: it would be lost."""
    values: list[tuple[str, Any]] = []
    for override in overrides:
        key, equals, value = override.partition("=")
        key, text = key.strip(), value.strip() or value  # a space may be what stands between labels
        if not equals or not key:
            raise ValueError(
                f"--set {override}: write it as key=value, e.g. --set optimizer.lr=0.01"
            )
        values.append((key, parse_value(text, is_text=key == "unseen")))
    for place, (key, _) in enumerate(values):
        after = values[place + 1 :]
        by = next((later for later, value in after if replaces(later, value, key)), "")
        if by and key not in dict(after):
            raise ValueError(
                f"--set {key} is lost, as --set {by} comes after it and replaces it: write {key}"
                f" after {by}"
            )
    return values


def replaces(component: str, value: Any, key: str) -> bool:
    """Whether setting a component to a value takes away what `key` set of it, and says nothing of
    the same setting. An empty table says that all is taken away."""
    below = f"{component.removesuffix('.name')}."
    setting = key.removeprefix(below).partition(".")[0]
    if not key.startswith(below) or setting == "name" or value == {}:
        return False
    return not isinstance(value, dict) or setting not in value


def read(path: Path, files: list[Path] | None = None) -> dict[str, Any]:
    """The tables of a file merged over those of the experiment that it extends; the files that
    were read are added to `files`. Raises ValueError on a circle or bad syntax."""
    files = [] if files is None else files
    path = path.resolve()
    if path in files:
        raise ValueError(
            "experiments extend each other in a circle:"
            f" {' -> '.join(p.stem for p in (*files, path))}"
        )
    files.append(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} can't be read: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} can't be read: its values are nested too deeply") from None
    if not isinstance(table, dict):
        raise ValueError(f"{path} can't be read: a table of keys and values is wanted")
    table.pop("digest", None)  # of a run's experiment.json, which people may change
    with_absolute_imports(table, path.parent)
    parent = table.pop("extends", None)
    if parent is None:
        table.setdefault("name", path.stem)
        return table
    if not isinstance(parent, str):
        raise ValueError(
            f"{path}: extends must be the name of an experiment or of a .toml file, got {parent!r}"
        )
    beside = path.parent / (parent if parent.endswith((".toml", ".json")) else f"{parent}.toml")
    inherited: dict[str, Any] = read(
        beside if beside.is_file() and beside != path else find(parent), files
    )
    for key in ("name", "summary", "expects"):
        inherited.pop(key, None)
    imports = [*imports_of(inherited), *imports_of(table)]
    merged = merge(inherited, {"name": path.stem, **table})
    if imports:
        merged["plugins"]["imports"] = list(dict.fromkeys(imports))
    return merged


def imports_of(table: dict[str, Any]) -> list[str]:
    """What `[plugins] imports` lists; nothing where it is no list, which the loader refuses."""
    plugins = table.get("plugins")
    imports = plugins.get("imports") if isinstance(plugins, dict) else None
    return [str(name) for name in imports] if isinstance(imports, list) else []


def with_absolute_imports(table: dict[str, Any], folder: Path) -> None:
    """Change the paths of .py files among the imports, which are relative to `folder`."""
    imports = imports_of(table)
    if imports:
        absolute = [
            str((folder / name).resolve()) if name.endswith(".py") else name for name in imports
        ]
        table["plugins"] = {**table["plugins"], "imports": absolute}


def merge(base: dict[str, Any], change: dict[str, Any], where: str = "") -> dict[str, Any]:
    """`change` over `base`, both of what is at `where`. Another component replaces the old one with
    its options; the same one keeps them, by a table or by its name alone."""
    merged = dict(base)
    for key, value in change.items():
        path = f"{where}{key}"
        if path in default_components():
            merged[key] = merge_component(merged.get(key, {}), value, path)
        elif isinstance(merged.get(key), dict) and isinstance(value, dict):
            merged[key] = merge(merged[key], value, f"{path}.")
        else:
            merged[key] = value
    return merged


def merge_component(old: Any, value: Any, path: str) -> Any:
    """A component's name or table over that which the parent has."""
    table = {"name": value} if isinstance(value, str) else value
    before = {"name": old} if isinstance(old, str) else old
    if not isinstance(table, dict) or not isinstance(before, dict):
        return value
    name = before.get("name", default_components()[path])
    return merge(before, table, f"{path}.") if table.get("name", name) == name else value


@cache
def default_components() -> dict[str, str | None]:
    """Where an experiment has components, such as `model.head`, each with the name of that which
    stands there by default."""
    return dict(components_by_default(Experiment, ""))


def components_by_default(section: type[Any], where: str) -> Iterator[tuple[str, str | None]]:
    """The same of one section."""
    hints = hints_of(section)  # type: ignore[arg-type] # a type can be hashed
    for part in fields(section):
        if "registry" in part.metadata:
            yield f"{where}{part.name}", part.metadata["default"]
        for kind in (hints[part.name], *get_args(hints[part.name])):
            if isinstance(kind, type) and is_dataclass(kind):
                yield from components_by_default(kind, f"{where}{part.name}.")


def apply_profile(table: dict[str, Any], name: str) -> None:
    """Change `table` in place by `profiles/NAME.toml`: set values, swap one value for another,
    scale numbers, keep them small, and set more where the experiment has certain values.

    A factor that is a key stands for the ratio in which the profile changes the value of that key.
    A factor or limit that is a table gives it by the name of a component of the experiment: sgd and
    adam, or losses of another scale, want different learning rates.
    """
    rules = read_profile(name)
    if table.get("profile"):
        raise ValueError(
            f"{table['name']} is already the {table['profile']} profile's: leave out --{name}"
        )
    before = load(table)  # sizes in pixels fit together before, and again when all are changed
    if before.train.epochs == 0:
        rules = without_steps(rules)
    assign_all(table, rules["set"])
    for key, swaps in rules["swap"].items():
        current = value_at(before, key)
        if current in swaps:
            assign(table, key, swaps[current])
    for key, factors in rules["scale"].items():
        by = in_step(factors, rules, before)
        change_numbers(table, before, key, by, lambda current, factor: current * factor)
    scaled = load(table)
    for key, limits in rules["at_most"].items():
        change_numbers(table, scaled, key, limits, min)
    for rule in rules.get("where", []):
        if all(value_at(before, key) == value for key, value in rule["is"].items()):
            assign_all(table, rule["set"])
    table["profile"] = name


def why_untested(experiment: Experiment) -> str:
    """Why nothing is concluded from an experiment of these settings under its profile: its claims
    are not tested, and nothing is compared with it. Empty where there is no such reason."""
    try:
        rules = read_profile(experiment.profile) if experiment.profile else {}
    except UnknownName:  # of another version
        return ""
    for rule in rules.get("untested", []):
        if all(value_at(experiment, key) == value for key, value in rule["is"].items()):
            return str(rule["because"])
    return ""


def in_step(factors: Any, rules: dict[str, Any], before: Experiment) -> Any:
    """The factors themselves, or the ratio in which a profile changes the key that they name."""
    if not isinstance(factors, str):
        return factors
    return rules["set"][factors] / value_at(before, factors)


OF_STEPS = ("train.epochs", "schedule", "schedule.name")
"""What a profile leaves as it is in an experiment that trains nothing in steps."""


def without_steps(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules of a profile, less those on how long and at which rates is trained."""

    def kept(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in OF_STEPS}

    where = [rule | {"set": kept(rule["set"])} for rule in rules.get("where", [])]
    return rules | {"set": kept(rules["set"]), "swap": kept(rules["swap"]), "where": where}


def change_numbers(
    table: dict[str, Any],
    experiment: Experiment,
    key: str,
    by: Any,
    change: Callable[[float, float], float],
) -> None:
    """Change in `table` the number that `experiment` has at `key`, or each of a list, if it has
    any: by a number, or by those of the components that it names."""
    current = value_at(experiment, key)
    if current is None:
        return
    named = {component.name for _, component in components_of(experiment)}
    factors = [by[name] for name in by if name in named] if isinstance(by, dict) else [by]

    def changed(number: float) -> float:
        result = reduce(change, factors, number)
        return round(result) if isinstance(number, int) else result

    assign(
        table,
        key,
        [changed(number) for number in current] if isinstance(current, tuple) else changed(current),
    )


def read_profile(name: str) -> dict[str, Any]:
    profiles = {path.stem: path for path in sorted((EXPERIMENTS / "profiles").glob("*.toml"))}
    if name not in profiles:
        raise UnknownName(f"unknown profile {name!r}; there are: {', '.join(profiles)}")
    return tomllib.loads(profiles[name].read_text(encoding="utf-8"))


def describe_profile(name: str) -> tuple[str, ...]:
    """What a profile changes of an experiment, one plain sentence for each key, for pages and
    reports."""
    rules = read_profile(name)
    sentences = []
    for key, value in rules["set"].items():
        sentences.append(f"{key} is {describe_value(value)}.")
    for key, swaps in rules["swap"].items():
        for before, after in swaps.items():
            sentences.append(f"{key} is {after} where it was {before}.")
    for key, factors in rules["scale"].items():
        if isinstance(factors, str):
            sentences.append(f"{key} changes in the ratio of {factors}.")
        else:
            sentences.append(f"{key} is multiplied by {describe_value(factors, 'with')}.")
    for key, limits in rules["at_most"].items():
        reason = rules.get("because", {}).get(key)
        limit = describe_value(limits, "with")
        sentences.append(f"{key} is at most {limit}{f': {reason}' if reason else ''}.")
    for rule in rules.get("where", []):
        settings = rule["set"].items()
        values = [f"{key} is {describe_value(value)}" for key, value in settings]
        sentences.append(f"Where {described(rule['is'])}: {' and '.join(values)}.")
    for rule in rules.get("untested", []):
        condition = described(rule["is"])
        sentences.append(f"Where {condition}, claims are not tested: {rule['because']}.")
    return tuple(sentences)


def described(condition: dict[str, Any]) -> str:
    """`start.name is simclr`"""
    return " and ".join(f"{key} is {value}" for key, value in condition.items())


def describe_value(value: Any, relation: str = "") -> str:
    """`0.5`, `200 with sgd, 1 with adam`, or a component: `demo (classes 40, seed 7)`."""
    if not isinstance(value, dict):
        return str(value)
    if relation:
        return ", ".join(f"{number} {relation} {part}" for part, number in value.items())
    options = [f"{option} {chosen}" for option, chosen in value.items() if option != "name"]
    return f"{value['name']} ({', '.join(options)})"


def value_at(experiment: Experiment, key: str) -> Any:
    """The value at `a.b.c`; None for an option that the component does not have."""
    value: Any = experiment
    for part in key.split("."):
        value = getattr(value, part) if hasattr(value, part) else value.options.get(part)
    return value


def assign_all(table: dict[str, Any], values: dict[str, Any]) -> None:
    """Set each `a.b.c`."""
    for key, value in values.items():
        assign(table, key, value)


def assign(table: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.c` in nested tables; below a component given by its bare name, the name is kept."""
    *parents, last = key.split(".")
    default = default_components().get(".".join(parents))
    for part in parents:
        child = table.setdefault(part, {})
        if isinstance(child, str):
            child = {"name": child}
        if not isinstance(child, dict):
            raise ValueError(f"--set {key}: {part} is {child!r}, not a table")
        table[part] = dict(child)
        table = table[part]
    if parents and last == "name" and table.get("name", default) != value:
        table.clear()
    table[last] = value


def parse_value(text: str, *, is_text: bool = False) -> Any:
    """A TOML value (`0.01`, `true`, `[1, 5]`), or the text itself where it is none (`sgd`,
    `last:5`), or where text is wanted: a class may be called 42, or `"Owl, grey"` with a comma."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    if is_text and (not isinstance(value, str) or (text == f'"{value}"' and "," in value)):
        return text
    return value
