"""Names that configurations may use: one small class, one instance per kind of component.

An entry is one decorated function. Its keyword-only parameters *are* the options of the component:
their names, types, ranges and defaults are checked, listed and documented from the signature, and
written nowhere else.
"""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from dml_bench.registry.option_checks import Range

__all__ = [
    "Entry",
    "Option",
    "Registry",
    "UnknownName",
    "backbones",
    "datasets",
    "heads",
    "indexes",
    "labellings",
    "losses",
    "miners",
    "mixings",
    "near_miss",
    "optimizers",
    "poolings",
    "protocols",
    "samplers",
    "schedules",
    "starts",
]


class UnknownName(ValueError):
    """A name that no registry, experiment or configuration key answers to."""


def near_miss(wrong: str, known: list[str]) -> str:
    """' (did you mean X?)', or nothing when no known name is close."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), folded, n=1, cutoff=0.5)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def checked(value: Any, wanted: Any, where: str) -> Any:
    """`value` if it has the type `wanted` (int widens to float) and is finite, else a ValueError
    that names `where`."""
    if get_origin(wanted) is Literal:
        choices = get_args(wanted)
        if value in choices:
            return value
        raise ValueError(
            f"{where} is {value!r}; choose one of"
            f" {', '.join(map(repr, choices))}{near_miss(str(value), [str(c) for c in choices])}"
        )
    if get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} is {value!r}; a list is wanted")
        return tuple(checked(item, get_args(wanted)[0], where) for item in value)
    kinds = (int, float) if wanted is float else wanted
    if not isinstance(value, kinds) or (isinstance(value, bool) and wanted is not bool):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise ValueError(f"{where} is {value!r}; {words.get(wanted, wanted.__name__)} is wanted")
    if wanted is float and not abs(value) <= sys.float_info.max:
        raise ValueError(f"{where} is {value}; a finite number is wanted")
    return float(value) if wanted is float else value


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only parameter of an entry's function."""

    type: Any
    default: Any
    range: Range | None = None
    """What it may be, where its annotation is Annotated[type, Range]."""

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> "Option":
        if get_origin(parameter.annotation) is not Annotated:
            return cls(parameter.annotation, parameter.default)
        wanted, allowed = get_args(parameter.annotation)
        return cls(wanted, parameter.default, allowed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A registered component: how to build it, and what people should know about it."""

    name: str
    build: Callable[..., Any]
    summary: str
    source: str
    """Paper or project and year."""
    facts: dict[str, Any]
    """What the component needs or is, e.g. `takes_miner`, `image_size`; one set of keys per
    registry."""
    check: Callable[..., None] | None = None
    """Raises ValueError for options, each within its range, that don't go together."""

    @property
    def options(self) -> dict[str, Option]:
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: Option.of(p) for p in parameters if p.kind is p.KEYWORD_ONLY}

    def resolve(self, given: dict[str, Any], where: str) -> dict[str, Any]:
        """All options with their values: `given` where given, defaults elsewhere. Raises ValueError
        on a wrong one."""
        options = self.options
        for key in given:
            if key not in options:
                takes = f"its options: {', '.join(options)}" if options else "it has no options"
                raise UnknownName(
                    f"{where}.{key}: {self.name} has no such option{near_miss(key, list(options))};"
                    f" {takes}"
                )
        values = {key: given.get(key, option.default) for key, option in options.items()}
        for key, value in values.items():
            if value is inspect.Parameter.empty:
                raise ValueError(f"{where}.{key} is required by {self.name} and has no default")
        found = {
            key: checked(value, options[key].type, f"{where}.{key}")
            for key, value in values.items()
        }
        for key, option in options.items():
            if option.range:
                option.range.check(found[key], found, where, key)
        if self.check:
            self.check(**found)
        return found


class Registry:
    """A dict with manners. The module that fills it is imported at the first look-up, so `--help`
    stays instant."""

    def __init__(
        self,
        kind: str,
        module: str,
        defaults: dict[str, Any] | None = None,
        prefixes: tuple[str, ...] = (),
    ):
        self.kind = kind
        self.module = module
        self.defaults = defaults or {}
        self.prefixes = prefixes
        self._entries: dict[str, Entry] = {}

    def register(
        self,
        name: str,
        *,
        summary: str,
        source: str,
        check: Callable[..., None] | None = None,
        **facts: Any,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: enter a function under `name`. Raises ValueError on a second use of a name or
        an unknown fact."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        for fact in facts:
            if fact not in self.defaults:
                raise ValueError(
                    f"{self.kind} {name!r}: unknown fact {fact!r}; facts:"
                    f" {', '.join(self.defaults)}"
                )

        def enter(build: Callable[..., Any]) -> Callable[..., Any]:
            known = {**self.defaults, **facts}
            self._entries[name] = Entry(
                name=name, build=build, summary=summary, source=source, facts=known, check=check
            )
            return build

        return enter

    def remove(self, name: str) -> None:
        del self._entries[name]

    def __getitem__(self, name: str) -> Entry:
        """The entry called `name`, or the entry of its prefix for `prefix:anything`. Raises
        UnknownName."""
        names = self.names()
        prefix = re.match(r"[^:]+:", name)
        if prefix and prefix[0] in self.prefixes:
            return self._entries[prefix[0] + "*"]
        if name not in self._entries or name.endswith("*"):
            raise UnknownName(
                f"unknown {self.kind} {name!r}{near_miss(name, names)}; there are:"
                f" {', '.join(names)}"
            )
        return self._entries[name]

    def names(self) -> list[str]:
        importlib.import_module(self.module)
        return sorted(self._entries, key=str.lower)

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[name] for name in self.names()])


datasets = Registry("dataset", "dml_bench.data.datasets", {"needs_data_dir": True, "obtain": ""})
backbones = Registry(
    "backbone",
    "dml_bench.models.backbones",
    {"weights": "", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    prefixes=("timm:",),
)
heads = Registry("head", "dml_bench.models.heads", {"takes_map": False})
poolings = Registry("pooling", "dml_bench.models.poolings")
losses = Registry(
    "loss",
    "dml_bench.losses",
    {
        "takes_miner": False,
        "trains_proxies": False,
        "classifies": False,
        "one_number": False,
        "interpolates": False,
        "unit_vectors": True,
        "logit_range": None,
    },
)
miners = Registry("miner", "dml_bench.losses.miners")
optimizers = Registry("optimizer", "dml_bench.training.optimizers")
schedules = Registry("schedule", "dml_bench.training.schedules")
mixings = Registry("mixing", "dml_bench.data.mixing", {"where": "pixels", "two_labels": True})
labellings = Registry("labelling", "dml_bench.data.label_strategies", {"classifies": False})
samplers = Registry("sampler", "dml_bench.data.samplers", {"balances_classes": False})
protocols = Registry(
    "protocol",
    "dml_bench.protocols",
    {
        "splits": (),
        "takes_folds": False,
        "clusters": False,
        "validates_by_class": False,
        "has_drop": False,
    },
)
starts = Registry("start", "dml_bench.training.pretraining_tasks")
indexes = Registry("index", "dml_bench.gallery.indexes", {"exact": False, "compresses": False})
