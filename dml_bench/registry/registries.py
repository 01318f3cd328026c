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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, reduce, wraps
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin

from dml_bench.registry import outputs
from dml_bench.registry.option_checks import Range
from dml_bench.registry.origins import (
    REFERENCE,
    Origin,
    entry_points_of,
    origin_of,
    referenced,
)

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


T = TypeVar("T")


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
            f"{where} must be one of {', '.join(map(repr, choices))}, got"
            f" {value!r}{near_miss(str(value), [str(choice) for choice in choices])}"
        )
    if type(None) in get_args(wanted):  # of an option of a plug-in, as its default
        others = tuple(kind for kind in get_args(wanted) if kind is not type(None))
        return None if value is None else checked(value, reduce(or_, others), where)
    is_union = get_origin(wanted) in (Union, UnionType)
    kind = wanted if is_union else get_origin(wanted) or wanted
    if kind in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}")
        of_items = get_args(wanted)
        return kind(checked(item, of_items[0], where) if of_items else item for item in value)
    kinds = (int, float) if wanted is float else kind
    if not isinstance(value, kinds) or (isinstance(value, bool) and wanted is not bool):
        name = getattr(wanted, "__name__", str(wanted))
        nouns = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise ValueError(f"{where} must be {nouns.get(wanted, name)}, got {value!r}")
    if wanted is float and not abs(value) <= sys.float_info.max:
        raise ValueError(f"{where} must be a finite number, got {value}")
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
        """The option that a parameter of a registered function is."""
        if get_origin(parameter.annotation) is not Annotated:
            return cls(parameter.annotation, parameter.default)
        wanted, allowed = get_args(parameter.annotation)
        return cls(wanted, parameter.default, allowed)


@cache
def options_of(build: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only parameters of a registered function, by name."""
    parameters = inspect.signature(build).parameters.values()
    return {p.name: Option.of(p) for p in parameters if p.kind is p.KEYWORD_ONLY}


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
    origin: Origin | None = None
    """Where a plug-in comes from; None for what this program brings."""
    is_stand_in: bool = False
    """Made from what a run recorded about a plug-in that is not imported: options are unchecked."""

    @property
    def options(self) -> dict[str, Option]:
        """The options by name, read off the function's signature."""
        return options_of(self.build)

    def built(self, wanted: type[T], *arguments: Any, **options: Any) -> T:
        """What its function returns. Raises ValueError where that of a plug-in returns something
        else than is `wanted`."""
        made = self.build(*arguments, **options)
        if isinstance(made, wanted):
            return made
        got = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        raise ValueError(
            f"{self.name} must return a torch {wanted.__name__}, got {got}: return one from the"
            " function that is registered"
        )

    def resolve(self, chosen: dict[str, Any], where: str) -> dict[str, Any]:
        """All options with their values: those `chosen`, defaults elsewhere. Raises ValueError
        on a wrong one."""
        options = self.options
        for key in chosen:
            if key not in options:
                takes = f"its options: {', '.join(options)}" if options else "it has no options"
                raise UnknownName(
                    f"{where}.{key}: {self.name} has no such option{near_miss(key, list(options))};"
                    f" {takes}"
                )
        values = {key: chosen.get(key, option.default) for key, option in options.items()}
        for key, value in values.items():
            if value is inspect.Parameter.empty:
                raise ValueError(f"{where}.{key} is required by {self.name} and has no default")
        resolved = {
            key: checked(value, options[key].type, f"{where}.{key}")
            for key, value in values.items()
        }
        for key, option in options.items():
            if option.range:
                option.range.check(resolved[key], resolved, where, key)
        if self.check:
            self.check(**resolved)
        return resolved


class Named(Protocol):
    """A component of a configuration."""

    @property
    def name(self) -> str: ...

    @property
    def stand_in(self) -> Entry | None: ...


class Registry:
    """A dict with manners. The module that fills it is imported at the first look-up, so `--help`
    stays instant. A look-up imports no plug-in; only `import_component` does."""

    def __init__(
        self,
        kind: str,
        module: str,
        defaults: dict[str, Any] | None = None,
        *,
        prefixes: tuple[str, ...] = (),
        passes: tuple[str, ...] = (),
        group: str = "",
        border: outputs.Border | None = None,
    ):
        """
        Args:
            defaults: the facts of its entries, with their defaults.
            prefixes: of names that stand for a family, e.g. `timm:`.
            passes: what this program itself hands to a builder, before the options.
            group: of the entry points with which packages bring plug-ins; empty: it has none.
            border: what checks that which the functions of plug-ins return.
        """
        self.kind = kind
        self.module = module
        self.defaults = defaults or {}
        self.prefixes = prefixes
        self.passes = passes
        self.group = group
        self.border = border
        self._entries: dict[str, Entry] = {}
        self._of_files: dict[tuple[str, str], Entry] = {}
        """By name and the path of their file: two files may have a plug-in under one name."""

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
        if self.is_own(name):
            raise ValueError(f"{self.kind} {name!r} is registered already")
        for fact in facts:
            if fact not in self.defaults:
                raise ValueError(
                    f"{self.kind} {name!r}: unknown fact {fact!r}; facts:"
                    f" {', '.join(self.defaults)}"
                )
        alike = {fact: self._as_fact(name, fact, value) for fact, value in facts.items()}

        def enter(build: Callable[..., Any]) -> Callable[..., Any]:
            origin = origin_of(build) if self.group else None
            self._require_free(name, origin)
            self._entries[name] = Entry(
                name=name,
                build=build if origin is None else self._taken_in(name, build),
                summary=summary,
                source=source,
                facts={**self.defaults, **alike},
                check=check,
                origin=origin,
            )
            if origin is not None and origin.file:
                self._of_files[name, origin.file] = self._entries[name]
            return build

        return enter

    def _as_fact(self, name: str, fact: str, value: Any) -> Any:
        """Raises ValueError for a fact of another type than others have it: what a run keeps of it
        could not be read back."""
        default = self.defaults[fact]
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if default is not None and type(value) is not type(default):
            raise ValueError(
                f"{self.kind} {name!r}: fact {fact} must be of the type of {default!r}, got"
                f" {value!r}"
            )
        return value

    def _taken_in(self, name: str, build: Callable[..., Any]) -> Callable[..., Any]:
        """The function of a plug-in as this program calls it, its results checked."""
        called = adapted(build, self.passes)
        return called if self.border is None else self.border(name, called)

    def _require_free(self, name: str, origin: Origin | None) -> None:
        """Raises ValueError on a second use of a name. A plug-in may be defined again, as a cell
        of a notebook or a reloaded module does, and two files may each have one of that name."""
        if name not in self._entries:
            return
        other = self._entries[name].origin
        if origin is not None and other is not None:
            is_again = (origin.module, origin.attribute) == (other.module, other.attribute)
            are_files = not origin.module and not other.module
            if is_again or (are_files and origin.file != other.file):
                return
        raise ValueError(f"{self.kind} {name!r} is registered already")

    def remove(self, name: str) -> None:
        """Take a name out again. Raises KeyError where it is not there."""
        del self._entries[name]
        self._of_files = {key: entry for key, entry in self._of_files.items() if key[0] != name}

    def take_from(self, file: str) -> None:
        """Let names that a plug-in's file registered mean those plug-ins again, whatever another
        file registered since."""
        for (name, of_file), entry in self._of_files.items():
            if of_file == file:
                self._entries[name] = entry

    def forget(self, file: str, but: str) -> None:
        """Take out what a plug-in's file registered before it was changed: all but what it has
        with the SHA-256 `but`."""
        for (name, of_file), entry in list(self._of_files.items()):
            if of_file == file and entry.origin is not None and entry.origin.sha256 != but:
                del self._of_files[name, of_file]
                if self._entries.get(name) is entry:
                    del self._entries[name]

    def require_one_of(self, files: Iterable[str], name: str) -> None:
        """Raises ValueError where several of these files have a plug-in of that name."""
        having = sorted(file for file in files if (name, file) in self._of_files)
        if len(having) > 1:
            raise ValueError(
                f"{self.kind} {name} is in {' and in '.join(having)}, and plugins.imports names"
                " both: rename one of the two, or leave a file out"
            )

    def of(self, component: Named) -> Entry:
        """The entry of a component. Where a run was read whose plug-in is not imported, what the
        run recorded of it. Raises UnknownName."""
        return component.stand_in or self[component.name]

    def registered(self, name: str) -> Entry | None:
        """The entry that is called so at this moment; nothing is imported. One from a notebook has
        the digest of what its cells hold now: some may have been run again since."""
        entry = self._entries.get(name)
        if entry is None or entry.origin is None or entry.origin.file:
            return entry
        return replace(entry, origin=origin_of(entry.build))

    def is_own(self, name: str) -> bool:
        """Whether this program itself brings what is called so."""
        entry = self._entries.get(self._family(name) or name)
        return entry is not None and entry.origin is None

    def import_component(self, name: str) -> None:
        """Import the plug-in that a person named: `package.module:function`, or the entry point of
        an installed package. Other names change nothing. Raises ValueError where it fails."""
        if not self.group or self._family(name):
            return
        importlib.import_module(self.module)
        point = entry_points_of(self.group).get(name)
        if point is not None and self.is_own(name):
            raise ValueError(
                f"{self.kind} {name} is also a plug-in of {point.dist.name if point.dist else '?'}:"
                " uninstall that package, or rename its entry point"
            )
        if self.is_own(name) or name in self._entries:
            return
        reference = point.value if point is not None else name
        if REFERENCE.fullmatch(reference):
            build = referenced(reference)
            if name not in self._entries:
                self.adopt(name, build)

    def adopt(self, name: str, build: Callable[..., Any]) -> None:
        """Enter a function under `name`: with the facts with which it is registered already, or,
        where it is not, with its docstring and the usual facts."""
        for entry in self._entries.values():
            if inspect.unwrap(entry.build) is inspect.unwrap(build):
                self._entries[name] = replace(entry, name=name)
                return
        summary = (inspect.getdoc(build) or "").partition("\n")[0]
        self.register(name, summary=summary, source="")(build)

    def _family(self, name: str) -> str:
        """The entry of a family that a name belongs to, e.g. `timm:*`; empty where it is none."""
        prefix = re.match(r"[^:]+:", name)
        return f"{prefix[0]}*" if prefix and prefix[0] in self.prefixes else ""

    def __getitem__(self, name: str) -> Entry:
        """The entry called `name`, or the entry of its prefix for `prefix:anything`. Raises
        UnknownName."""
        importlib.import_module(self.module)
        if family := self._family(name):
            return self._entries[family]
        if name not in self._entries or name.endswith("*"):
            names = [*self.names(), *self.plug_in_names()]
            if self.kind == "dataset" and Path(name).is_dir():
                raise UnknownName(
                    f"{name} is a folder and no name of a dataset: name how it is read, e.g."
                    f" folder, and add --data-dir {name}"
                )
            raise UnknownName(
                f"unknown {self.kind} {name!r}{near_miss(name, names)}; there are:"
                f" {', '.join(names)}"
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted whatever their case."""
        importlib.import_module(self.module)
        return sorted(self._entries, key=str.lower)

    def plug_in_names(self) -> list[str]:
        """The plug-ins of installed packages that are not imported so far."""
        return sorted(set(entry_points_of(self.group)) - set(self._entries)) if self.group else []

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[name] for name in self.names()])


def adapted(build: Callable[..., Any], passes: tuple[str, ...]) -> Callable[..., Any]:
    """A plug-in's function as those of this program are called: `passes` by position, then options
    by keyword. It may take those of `passes` by name that it wants; all else are its options.

    Raises ValueError for a parameter whose type can't be known.
    """
    signature = inspect.signature(build)
    options = [
        as_option(parameter, build)
        for parameter in signature.parameters.values()
        if parameter.name not in passes
    ]
    wanted = [name for name in passes if name in signature.parameters]

    @wraps(build)
    def call(*values: Any, **chosen: Any) -> Any:
        passed = dict(zip(passes, values, strict=True))
        return build(**{name: passed[name] for name in wanted}, **chosen)

    call.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return call


def is_writable(value: Any) -> bool:
    """Whether JSON has such values."""
    if isinstance(value, tuple | list):
        return all(map(is_writable, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_writable(value[key]) for key in value)
    return value is None or isinstance(value, bool | int | float | str)


def as_option(parameter: inspect.Parameter, build: Callable[..., Any]) -> inspect.Parameter:
    """A parameter as a keyword-only one with a type: its annotation, or that of its default."""
    owner, annotation, default = build.__qualname__, parameter.annotation, parameter.default
    if parameter.name == "name":
        raise ValueError(
            f"{owner}: an option can't be called name, by which files name the component: give it"
            " another name"
        )
    if default is not parameter.empty and not is_writable(default):
        raise ValueError(
            f"{owner}: the default of option {parameter.name} must be a number, text, truth value"
            f" or list, as a run's file keeps them, got {default!r}"
        )
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise ValueError(
            f"{owner} takes *{parameter.name}, which can't be checked: write its options one by one"
        )
    if isinstance(annotation, str):  # of a module with `from __future__ import annotations`
        annotation = eval(annotation, vars(sys.modules[build.__module__]))
    if annotation is parameter.empty:
        if default is parameter.empty or default is None:
            raise ValueError(
                f"{owner}: option {parameter.name} has no type; write it as"
                f" {parameter.name}: float = 1.0"
            )
        annotation = type(default)
    return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation)


datasets = Registry(
    "dataset",
    "dml_bench.data.datasets",
    {"needs_data_dir": True, "obtain": "", "has_coarse_classes": False},
    passes=("where",),
    group="dml_bench.datasets",
)
backbones = Registry(
    "backbone",
    "dml_bench.models.backbones",
    {"weights": "", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    prefixes=("timm:", "hf:", "openclip:", "st:"),
    passes=("name",),
    group="dml_bench.backbones",
    border=outputs.backbone,
)
heads = Registry(
    "head",
    "dml_bench.models.heads",
    {"takes_map": False},
    passes=("num_features",),
    group="dml_bench.heads",
    border=outputs.module,
)
poolings = Registry("pooling", "dml_bench.models.poolings")
losses = Registry(
    "loss",
    "dml_bench.losses",
    {
        "takes_miner": False,
        "adds_tuples": False,
        "trains_proxies": False,
        "classifies": False,
        "one_number": False,
        "interpolates": False,
        "remembers": False,
        "label_sets": False,
        "unit_vectors": True,
        "logit_range": None,
    },
    passes=("num_classes", "dim"),
    group="dml_bench.losses",
    border=outputs.loss,
)
miners = Registry(
    "miner", "dml_bench.losses.miners", group="dml_bench.miners", border=outputs.miner
)
optimizers = Registry(
    "optimizer",
    "dml_bench.training.optimizers",
    {"at_once": False, "no_drop_because": ""},
    passes=("parameters",),
    group="dml_bench.optimizers",
    border=outputs.optimizer,
)
schedules = Registry(
    "schedule",
    "dml_bench.training.schedules",
    {"needs_validation": False},
    group="dml_bench.schedules",
    border=outputs.schedule,
)
mixings = Registry("mixing", "dml_bench.data.mixing", {"where": "pixels", "two_labels": True})
labellings = Registry("labelling", "dml_bench.data.label_strategies", {"classifies": False})
samplers = Registry(
    "sampler",
    "dml_bench.data.samplers",
    {"balances_classes": False},
    passes=("images", "labels", "batch_size", "key"),
    group="dml_bench.samplers",
    border=outputs.sampler,
)
protocols = Registry(
    "protocol",
    "dml_bench.protocols",
    {
        "splits": (),
        "takes_folds": False,
        "clusters": False,
        "validates_by_class": False,
        "label_sets": False,
        "has_drop": False,
    },
)
starts = Registry("start", "dml_bench.training.pretraining_tasks")
indexes = Registry("index", "dml_bench.gallery.indexes", {"exact": False, "compresses": False})
