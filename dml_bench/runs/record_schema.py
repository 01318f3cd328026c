"""What the JSON of a record says, field by field: `Record`. It is what `dml-bench submit` hands in
and `dml-bench verify` checks.

Whatever can be recomputed from the answers beside it is there to be read, and is refused where it
is not what the answers give.
"""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dml_bench.config import as_table, load
from dml_bench.runs.folder import decisive
from dml_bench.system.printable import obeyed_character

__all__ = ["LARGEST_BYTES", "MOST_CLASSES", "Record", "read"]

LARGEST_BYTES = 50_000
"""Of the JSON of one run."""
MOST_CLASSES = 100
"""With more classes the JSON leaves out single ones, which would weigh more than all else and are
in the answers beside it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=300)]


class Section(BaseModel):
    """Unknown keys and other types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetRecord(Section):
    """The images and labels."""

    name: Name
    fingerprint: Sha256
    """Over paths, classes, boxes and contents: the revision of the data."""
    num_images: Annotated[int, Field(ge=2)]
    num_classes: Annotated[int, Field(ge=2)]


class SplitRecord(Section):
    """How the images are divided."""

    kind: Name
    """`data.split` with its rule for groups or times: stratified, given, grouped, time."""
    fingerprint: Sha256
    train_images: Count
    valid_images: Count
    test_images: Count
    gallery_images: Count | None = None
    """Where the gallery holds neither training images nor queries."""


class ClassesRecord(Section):
    """P@1 of single classes, as counts."""

    columns: tuple[str, ...]
    """`queries`, and the phases."""
    rows: dict[Name, tuple[Count, ...]]
    """By class, the number of its queries, and how many of them each phase's model got right; none
    where there are more than `MOST_CLASSES`."""

    @field_validator("rows")
    @classmethod
    def few(cls, rows: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Raises ValueError where there are too many."""
        if len(rows) > MOST_CLASSES:
            raise ValueError(
                f"at most {MOST_CLASSES} classes are listed, got {len(rows)}: `dml-bench submit"
                " FILE` writes it anew"
            )
        return rows


class CostRecord(Section):
    """What the run took, over all phases."""

    total_seconds: Annotated[float, Field(ge=0)]
    train_seconds: Annotated[float, Field(ge=0)]
    train_cpu_seconds: Annotated[float, Field(ge=0)] | None = None
    """Of all cores; None where it is not known."""
    peak_memory_bytes: Count


class SessionRecord(Section):
    """What pages show of the process that made it, the last one where a run was gone on with; other
    keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    started_at: str = "-"
    dml_bench: str = "-"
    commit: str | None = None
    processor: str = "-"
    device: str = "-"
    cores: Count | None = None
    threads: Count = 1
    processes: Count = 1
    packages: dict[str, str | None] = {}
    sessions: Count = 1
    """How many processes worked on the run, one after another."""
    earlier: tuple[dict[str, Any], ...] = ()
    """In what earlier ones differed from the last: device, versions, code; each difference once."""


class Record(Section):
    """One seed of one experiment on one data set."""

    record_version: Literal[5]
    experiment: Name
    protocol: Name
    profile: str
    seed: int
    submitted_by: Annotated[str, Field(max_length=100, pattern=r"^(\S(.*\S)?)?$")]
    """Who answers for it, without blanks around the name; empty for a record that nobody handed
    in."""
    trained: bool
    """Whether features were trained: without that, all seeds give the same features."""
    configuration_sha256: Sha256
    code_sha256: Sha256 | None
    """Of the package's source; None where it is not known."""
    weights: dict[str, Sha256]
    """Of the weights, by phase; empty for a record of an earlier version."""
    dataset: DatasetRecord
    split: SplitRecord
    unseen: str
    """The rule that holds classes out."""
    held_out: dict[str, Count]
    """By phase, the number of classes that it never trained on."""
    queries_sha256: Sha256
    """Over the paths of the queries: only rows with the same are compared query by query."""
    copies_in_gallery: Count | None
    """Queries whose pixels are also those of a gallery image; None where nobody looked."""
    session: SessionRecord
    """Where and by which versions it was made."""
    numbers: dict[str, float | None]
    """Each metric by its name."""
    intervals: dict[str, tuple[float, float]]
    """95% intervals of this run alone, over classes. The board has others, which know all seeds of
    a table."""
    classes: ClassesRecord
    cost: CostRecord
    configuration: dict[str, Any]
    """The resolved experiment, which `dml-bench run FILE` would run again."""
    nearest_sha256: Sha256
    """Over what was answered to each query, so that equal answers are seen."""
    answers_sha256: Sha256
    """Of the file beside this one."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the answers, under whatever name; later settings at their defaults.
        Raises ValueError or OverflowError where it is no experiment."""
        settings = decisive(as_table(load(self.configuration)))
        del settings["name"]
        return settings


def read(values: dict[str, Any]) -> Record:
    """Raises ValueError that names the first key that is wrong."""
    for key, value in values.items():
        require_printable(key, value)
    try:
        return Record.model_validate_json(dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the record"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"{place}: {first['msg']}{more}") from None


def require_printable(place: str, value: Any) -> None:
    """Raises ValueError for a text, of a key too, that a terminal would not show but obey."""
    if isinstance(value, str):
        if character := obeyed_character(value):
            raise ValueError(f"{place}: a text must be printable, got {character} in it")
        if "\n" in value and not place.startswith("configuration."):
            raise ValueError(f"{place}: a text must be one line")
    elif isinstance(value, dict):
        for key, part in value.items():
            require_printable(place, key)
            require_printable(f"{place}.{key}", part)
    elif isinstance(value, list):
        for part in value:
            require_printable(place, part)


def dumps(values: dict[str, Any]) -> str:
    import json

    return json.dumps(values)
