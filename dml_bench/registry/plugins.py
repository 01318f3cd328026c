"""Plug-ins: components that a person brings, and the consent without which none is imported.

A name that a person wrote, in an experiment's TOML file or after `--set`, is imported at once. What
a run folder names is only read: it becomes an entry that stands in for the plug-in, with the facts
that the run recorded. Building from such an entry imports the plug-in, if it is the very file that
this user has run on this machine, or that the user allowed by name.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from dml_bench.registry.origins import (
    Origin,
    digest_of_module,
    import_file,
    import_module,
    imported_digest,
)
from dml_bench.registry.registries import (
    Entry,
    Registry,
    backbones,
    datasets,
    heads,
    losses,
    miners,
    optimizers,
    samplers,
    schedules,
)
from dml_bench.system.cache_folder import cache_folder

__all__ = [
    "PLUGGABLE",
    "PluginRecord",
    "allow_plugin",
    "import_plugins",
    "import_recorded",
    "record_of",
    "register_backbone",
    "register_dataset",
    "register_head",
    "register_loss",
    "register_miner",
    "register_optimizer",
    "register_sampler",
    "register_schedule",
    "remember",
    "require_unchanged",
    "stand_in",
]

Builder = Callable[..., Any]
Decorator = Callable[[Builder], Builder]

PLUGGABLE: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        datasets,
        backbones,
        heads,
        losses,
        miners,
        samplers,
        optimizers,
        schedules,
    )
}
"""The registries that take plug-ins, by the kind of their entries."""

_allowed: dict[str, Path | None] = {}
"""Names that the user allowed to be imported, with the place of their file where it was moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginRecord:
    """What a run keeps of a plug-in: enough to show the run without it, and to find it again."""

    kind: str
    """`loss`, `miner` and so on."""
    name: str
    """As the experiment names it."""
    module: str = ""
    """Its importable module; empty where its file is imported by its path."""
    attribute: str = ""
    """The function's name in the module."""
    file: str = ""
    """Path of the file that defines it; empty for a cell of a notebook."""
    sha256: str
    """Of that file; where there is no file, of what was typed in."""
    distribution: str = ""
    """The installed package that brings it, if one does."""
    version: str = ""
    """The version of that package."""
    summary: str = ""
    source: str = ""
    facts: dict = field(default_factory=dict)
    """What reports and checks need to know of it."""

    @property
    def origin(self) -> Origin:
        """Where it came from when the run was made."""
        return Origin(**{part.name: getattr(self, part.name) for part in fields(Origin)})

    @property
    def place(self) -> str:
        """Where its code is: a file, or else a module."""
        return self.file or self.module


def register_loss(name: str = "", *, summary: str, source: str = "", **facts: Any) -> Decorator:
    """Decorator: make a function, or an nn.Module class, known as a loss.

    It returns a module `(embeddings (batch, dim) float32, labels (batch) int64 in
    0 .. num_classes - 1, mined indices or None) -> scalar`. It may take `num_classes` and `dim` by
    name; its other parameters, with types and defaults, are its options. `name` is how experiments
    name it, by default as the function is called. `summary` says what it does, in one sentence;
    `source` is a paper or project, and its year. `facts` are `takes_miner`, `trains_proxies`,
    `classifies`, `one_number`, `interpolates` (all False by default) and `unit_vectors` (True), see
    `dml_bench.losses`.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_loss(summary="mean squared length", source="nobody 2026", one_number=True)
    ... def SquaredLength(*, scale: float = 1.0):
    ...     import torch
    ...     class Loss(torch.nn.Module):
    ...         def forward(self, embeddings, labels, mined=None):
    ...             return scale * embeddings.square().sum(dim=1).mean()
    ...     return Loss()
    >>> own = {"loss": "SquaredLength", "loss.scale": 2.0, "miner": "none"}
    >>> db.resolve("EPSHN_cosine_resnet18_sgd_aug", own).loss.options
    {'scale': 2.0}
    """
    return registering(losses, name, summary, source, facts)


def register_miner(name: str = "", *, summary: str, source: str = "") -> Decorator:
    """Decorator: make a function known as a miner.

    It returns a module `(embeddings (batch, dim), labels (batch)) -> tuple of index tensors`, see
    `dml_bench.losses.miners`. The arguments are those of `register_loss`; there are no facts.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_miner(summary="hardest pairs", source="nobody 2026")
    ... def HardestPairs(*, per_image: int = 1): ...
    """
    return registering(miners, name, summary, source, {})


def register_backbone(name: str = "", *, summary: str, source: str = "", **facts: Any) -> Decorator:
    """Decorator: make a function known as a backbone.

    It returns a module `(batch, 3, size, size) -> (batch, num_features)` with random weights and an
    attribute `num_features`. The facts are `weights`, and `mean` and `std` per channel in 0-1, see
    `dml_bench.models.backbones`. The other arguments are those of `register_loss`.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_backbone(summary="three convolutions", source="nobody 2026")
    ... def ThreeConvolutions(*, width: int = 64): ...
    """
    for channels in ("mean", "std"):
        require_channels(channels, facts.get(channels))
    return registering(backbones, name, summary, source, facts)


def require_channels(fact: str, values: Any) -> None:
    """Raises ValueError for a mean or deviation that is not one number from 0 to 1 a channel."""
    if values is None:
        return
    are_numbers = isinstance(values, tuple | list) and len(values) == 3
    if not are_numbers or not all(isinstance(one, int | float) and 0 <= one <= 1 for one in values):
        raise ValueError(
            f"{fact} must be three numbers from 0 to 1, one for each channel, got {values!r}:"
            " divide those of 0 to 255 by 255"
        )


def register_head(name: str = "", *, summary: str, source: str = "", **facts: Any) -> Decorator:
    """Decorator: make a function known as a head.

    It may take `num_features` by name, and returns a module `(batch, num_features) -> (batch, dim)`
    with an attribute `dim`. With the fact `takes_map` it is given the backbone's map, see
    `dml_bench.models.heads`. The other arguments are those of `register_loss`.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_head(summary="two layers", source="nobody 2026")
    ... def TwoLayers(num_features: int, *, dim: int = 128): ...
    """
    return registering(heads, name, summary, source, facts)


def register_sampler(name: str = "", *, summary: str, source: str = "", **facts: Any) -> Decorator:
    """Decorator: make a function known as a sampler.

    Of `images` (ascending indices), `labels`, `batch_size` and `key` (seed, phase, epoch), which it
    may take by name, it returns the batches of an epoch as arrays of numbers out of `images`. It
    has to be a pure function. The fact is `balances_classes`. The other arguments are those of
    `register_loss`.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_sampler(summary="always the same order", source="nobody 2026")
    ... def InOrder(images, batch_size): ...
    """
    return registering(samplers, name, summary, source, facts)


def register_dataset(name: str = "", *, summary: str, source: str = "", **facts: Any) -> Decorator:
    """Decorator: make a function known as a reader of a data set.

    It takes `where`, with the folders to read from, and returns a
    `dml_bench.data.datasets.Dataset`. The facts are `needs_data_dir` (True by default), `obtain`,
    which says where to get it, and `has_coarse_classes` (False by default). The other arguments are
    those of `register_loss`.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_dataset(summary="photos of moths", source="the museum's collection")
    ... def moths(where, *, wing: str = "both"): ...
    """
    return registering(datasets, name, summary, source, facts)


def register_optimizer(name: str = "", *, summary: str, source: str = "") -> Decorator:
    """Decorator: make a function known as an optimizer.

    It takes `parameters`, as those of torch do, and options, `lr` among them. The arguments are
    those of `register_loss`; there are no facts.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_optimizer(summary="sign of the gradient", source="nobody 2026")
    ... def signs(parameters, *, lr: float = 0.001): ...
    """
    return registering(optimizers, name, summary, source, {})


def register_schedule(name: str = "", *, summary: str, source: str = "") -> Decorator:
    """Decorator: make a function known as a schedule.

    Its result takes an optimizer and the number of steps, and returns a scheduler of torch. The
    arguments are those of `register_loss`; there are no facts.

    Raises ValueError where the name is taken, a fact is unknown or an option has no type.
    Source: docs/adding_things.md.

    >>> @db.register_schedule(summary="halved in the middle", source="nobody 2026")
    ... def halved(*, warmup: float = 0.0): ...
    """
    return registering(schedules, name, summary, source, {})


def registering(
    registry: Registry, name: str, summary: str, source: str, facts: dict[str, Any]
) -> Decorator:
    def enter(build: Builder) -> Builder:
        named = name or build.__name__
        return registry.register(named, summary=summary, source=source, **facts)(build)

    return enter


def import_plugins(imports: Iterable[str]) -> None:
    """Import what an experiment names under `[plugins]`: modules, or paths of .py files. Raises
    ValueError, in one line, for one that can't be."""
    for name in imports:
        if name.endswith(".py"):
            import_plugin_file(Path(name))
        else:
            import_module(name)


def import_plugin_file(path: Path, sha256: str = "") -> ModuleType:
    """As `import_file`; the names that the file registers are those of its plug-ins from now on,
    and those that it registered before it was changed are gone."""
    file = str(path.resolve())
    try:
        module = import_file(path, sha256)
    finally:
        for registry in PLUGGABLE.values():
            registry.forget(file, but=imported_digest(path))
    for registry in PLUGGABLE.values():
        registry.take_from(file)
    return module


def record_of(registry: Registry, entry: Entry) -> PluginRecord:
    """What a run keeps of a plug-in."""
    origin = entry.origin
    assert origin is not None
    facts = {
        name: list(fact) if isinstance(fact, tuple) else fact
        for name, fact in entry.facts.items()
        if isinstance(fact, bool | str | tuple)
    }
    return PluginRecord(
        kind=registry.kind,
        name=entry.name,
        **asdict(origin),
        summary=entry.summary,
        source=entry.source,
        facts=facts,
    )


def stand_in(record: PluginRecord) -> Entry:
    """The entry of a plug-in that a run recorded. It is imported when something is built of it,
    and only with consent. Raises ValueError for a record that no run wrote."""
    registry = PLUGGABLE[record.kind]

    def build(*values: Any, **options: Any) -> Any:
        entry = import_recorded(record)
        return entry.build(*values, **entry.resolve(options, record.kind))

    return Entry(
        name=record.name,
        build=build,
        summary=record.summary,
        source=record.source,
        facts={
            name: recorded_fact(record, name, default)
            for name, default in registry.defaults.items()
        },
        origin=record.origin,
        is_stand_in=True,
    )


def recorded_fact(record: PluginRecord, name: str, default: Any) -> Any:
    """Raises ValueError where it is not of the type that such a fact has."""
    fact = record.facts.get(name, default)
    if isinstance(default, tuple) and isinstance(fact, list):
        fact = tuple(fact)
    if default is not None and type(fact) is not type(default):
        raise ValueError(f"plug-in {record.name}: fact {name} is {fact!r}, unlike {default!r}")
    return fact


def import_recorded(record: PluginRecord) -> Entry:
    """The plug-in that a run was made with. Raises ValueError where the user has not allowed it,
    or where it is not the same file any more."""
    registry = PLUGGABLE[record.kind]
    entry = registry.registered(record.name)
    if entry is None or entry.origin is None or is_of_another_file(entry.origin, record):
        require_consent(record)
        entry = imported(registry, record)
    require_unchanged(record)
    return entry


def is_of_another_file(origin: Origin, record: PluginRecord) -> bool:
    """Whether something else has the name of the recorded plug-in, which its own file brings."""
    in_file = bool(record.file and not record.module)
    return in_file and origin.file != record.file and origin.sha256 != record.sha256


def imported(registry: Registry, record: PluginRecord) -> Entry:
    moved = _allowed.get(record.name)
    file = moved or (Path(record.file) if record.file and not record.module else None)
    if file is not None:
        module = import_plugin_file(file, record.sha256)
    else:
        require_importable(record)
        digest = digest_of_module(record.module)
        if digest != record.sha256:
            raise changed(record, digest)
        module = import_module(record.module)
    if registry.registered(record.name) is None:
        build = getattr(module, record.attribute, None)
        if not callable(build):
            raise ValueError(f"{record.place} has no function {record.attribute}: restore it")
        registry.adopt(record.name, build)
    return registry[record.name]


def require_importable(record: PluginRecord) -> None:
    """Raises ValueError for a plug-in that another process can't import, as it has no file."""
    if not record.file and record.module in ("", "__main__"):
        raise ValueError(
            f"{record.kind} {record.name} was defined in a notebook, which another process can't"
            " import: put it into a file and name that in [plugins] imports"
        )


def require_unchanged(record: PluginRecord) -> None:
    """Raises ValueError where another plug-in is imported under the name of the recorded one."""
    entry = PLUGGABLE[record.kind].registered(record.name)
    if entry is not None and entry.origin is not None and entry.origin.sha256 != record.sha256:
        raise changed(record, entry.origin.sha256)


def changed(record: PluginRecord, digest: str) -> ValueError:
    brought = f" of {record.distribution} {record.version}" if record.distribution else ""
    return ValueError(
        f"{record.kind} {record.name}: {record.place}{brought} has SHA-256 {digest[:12]}, not"
        f" {record.sha256[:12]} as when the run was made: restore it, or train again with --force"
    )


def allow_plugin(name: str) -> None:
    """Let the plug-in `name` of a run from another machine be imported by this process.

    `name` is how the run's experiment names it; `NAME=FILE` says where its file lies here. A file
    with another SHA-256 than the run recorded is refused when it is needed.

    Raises ValueError for an empty name.
    Source: docs/adding_things.md.

    >>> db.allow_plugin("MyLoss=losses/my_loss.py")
    """
    plugin, equals, file = name.partition("=")
    if not plugin or (equals and not file):
        raise ValueError(f"--allow-plugin must be NAME or NAME=FILE, got {name!r}")
    _allowed[plugin] = Path(file) if equals else None


def allowed_here(records: Iterable[PluginRecord]) -> list[str]:
    """For another process of the same user: which plug-ins it may import, as `allow_plugin` takes
    them. They are those that the user allowed, and those of `records` that this process has
    imported itself."""
    texts = {}
    for record in records:
        if PLUGGABLE[record.kind].registered(record.name) is not None:
            texts[record.name] = record.name
    for name, file in _allowed.items():
        texts[name] = f"{name}={file.absolute()}" if file is not None else name
    return list(texts.values())


def require_consent(record: PluginRecord) -> None:
    if record.name in _allowed or consent_file(record).exists():
        return
    raise ValueError(
        f"{record.kind} {record.name} is a plug-in ({record.place}) of a run from another machine:"
        f" read its code, then give --allow-plugin {record.name}"
    )


def remember(records: Iterable[PluginRecord]) -> None:
    """Keep on this machine, outside of any run folder, that its user has run these plug-ins: one
    file each, named by the digest of module, file and SHA-256. Raises OSError."""
    for record in records:
        path = consent_file(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"name": record.name, "place": record.place, "sha256": record.sha256}
        path.write_text(json.dumps(kept), encoding="utf-8")  # that it is there is what counts


def consent_file(record: PluginRecord) -> Path:
    what = json.dumps([record.module, record.file, record.sha256])
    digest = sha256(what.encode()).hexdigest()
    return cache_folder() / "plugins" / f"{digest}.json"
