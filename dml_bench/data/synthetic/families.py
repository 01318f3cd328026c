"""What a species is, and how families of them are made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import Any, Literal

from dml_bench.data.synthetic.rng import Dice
from dml_bench.data.synthetic.shapes import Colour

__all__ = ["AREAS", "PLUMAGE", "Body", "Domain", "Species", "contrast", "species"]

Domain = Literal["benchmark", "source"]
"""Two worlds of species that share no body, no genus and no name."""

MEMBERS_PER_FAMILY = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Proportions shared by a family, in lengths of the trunk unless said otherwise."""

    depth: float
    """Half the trunk's thickness."""
    tilt_degrees: float
    """How upright it sits."""
    head: float
    """Radius of the head."""
    neck: float
    bill_length: float
    """In head radii, as are the next two."""
    bill_depth: float
    bill_droop: float
    tail_length: float
    tail_width: float
    tail_cock_degrees: float
    legs: float
    wing_reach: float
    """How far the wing tip goes beyond the trunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Species:
    """What all images of one class share. Colours are names of `PLUMAGE`."""

    name: str
    family: int
    body: Body
    crown: str
    face: str
    throat: str
    back: str
    breast: str
    belly: str
    wing: str
    tail: str
    bill: str
    legs: str
    crest: Literal["none", "peak", "swept", "plume"] = "none"
    eye_marking: Literal["none", "stripe", "mask", "brow"] = "none"
    eye_ring: str = "none"
    cheek: str = "none"
    breast_marking: Literal["none", "streaks", "spots", "bars", "band"] = "none"
    wing_bars: int = 0
    wing_patch: bool = False
    tail_shape: Literal["square", "forked", "pointed", "fan"] = "square"
    tail_edge: bool = False
    """Pale outer tail feathers."""


PLUMAGE: dict[str, Colour] = {
    "Black": (38, 36, 42),
    "Slate": (88, 100, 118),
    "Gray": (156, 160, 164),
    "White": (244, 243, 238),
    "Cream": (240, 226, 190),
    "Buff": (216, 182, 132),
    "Yellow": (246, 208, 52),
    "Orange": (238, 136, 40),
    "Rufous": (182, 88, 44),
    "Chestnut": (120, 54, 38),
    "Brown": (126, 96, 70),
    "Olive": (132, 134, 62),
    "Green": (74, 146, 76),
    "Teal": (32, 138, 140),
    "Azure": (84, 164, 222),
    "Blue": (42, 84, 172),
    "Violet": (112, 76, 152),
    "Rose": (228, 126, 142),
    "Scarlet": (208, 44, 42),
    "Ivory": (232, 214, 168),
}
PALE = ("White", "Cream", "Buff", "Yellow", "Gray")
EARTHY = ("Black", "Slate", "Gray", "Brown", "Olive", "Chestnut", "Rufous", "Buff")
VIVID = (
    "Yellow",
    "Orange",
    "Rufous",
    "Green",
    "Teal",
    "Azure",
    "Blue",
    "Violet",
    "Rose",
    "Scarlet",
)
BILLS = ("Black", "Slate", "Orange", "Yellow", "Ivory", "Scarlet")
LEGS = ("Black", "Brown", "Orange", "Rose", "Slate")
AREAS = {
    "crown": "crowned",
    "throat": "throated",
    "back": "backed",
    "breast": "breasted",
    "belly": "bellied",
    "wing": "winged",
}
"""The larger areas of colour, and what a bird is called for them."""
REGIONS = (
    "",
    "Mountain_",
    "Reed_",
    "Wood_",
    "River_",
    "Island_",
    "Desert_",
    "Marsh_",
    "Cloud_",
    "Coast_",
    "Heath_",
    "Garden_",
)

PLANS: dict[Domain, dict[tuple[str, ...], tuple[float, ...]]] = {
    "benchmark": {
        ("Finch", "Bunting", "Grosbeak"): (
            0.34,
            24,
            0.25,
            0.02,
            0.75,
            1.30,
            0.05,
            0.52,
            0.15,
            0,
            0.24,
            0.02,
        ),
        ("Warbler", "Wagtail", "Vireo"): (
            0.29,
            18,
            0.22,
            0.02,
            0.75,
            0.55,
            0.02,
            0.56,
            0.12,
            4,
            0.28,
            0.06,
        ),
        ("Jay", "Nutcracker", "Cuckoo"): (
            0.31,
            28,
            0.24,
            0.06,
            1.05,
            0.85,
            0.10,
            0.82,
            0.16,
            -4,
            0.28,
            0.00,
        ),
        ("Swallow", "Martin", "Swift"): (
            0.27,
            30,
            0.22,
            -0.02,
            0.45,
            0.50,
            0.04,
            0.60,
            0.12,
            -3,
            0.12,
            0.32,
        ),
        ("Thrush", "Robin", "Redstart"): (
            0.35,
            34,
            0.24,
            0.03,
            0.95,
            0.60,
            0.04,
            0.54,
            0.15,
            2,
            0.36,
            0.04,
        ),
        ("Kingfisher", "Halcyon", "Motmot"): (
            0.35,
            44,
            0.29,
            0.02,
            2.00,
            0.95,
            0.02,
            0.36,
            0.12,
            -4,
            0.12,
            0.00,
        ),
        ("Wren", "Babbler", "Gnatcatcher"): (
            0.39,
            8,
            0.26,
            0.00,
            0.95,
            0.42,
            0.12,
            0.44,
            0.13,
            52,
            0.30,
            -0.06,
        ),
        ("Tit", "Chickadee", "Nuthatch"): (
            0.40,
            20,
            0.29,
            -0.02,
            0.55,
            0.62,
            0.00,
            0.44,
            0.12,
            2,
            0.20,
            0.00,
        ),
    },
    "source": {
        ("Sandpiper", "Plover", "Godwit"): (
            0.31,
            12,
            0.20,
            0.10,
            2.20,
            0.45,
            0.06,
            0.28,
            0.12,
            0,
            0.66,
            0.12,
        ),
        ("Parakeet", "Lorikeet", "Parrot"): (
            0.31,
            46,
            0.27,
            0.02,
            0.62,
            1.50,
            0.55,
            0.90,
            0.12,
            -6,
            0.14,
            0.06,
        ),
        ("Woodpecker", "Flicker", "Sapsucker"): (
            0.27,
            58,
            0.23,
            0.06,
            1.45,
            0.75,
            0.00,
            0.46,
            0.11,
            -12,
            0.12,
            0.04,
        ),
        ("Starling", "Mynah", "Oriole"): (
            0.31,
            34,
            0.22,
            0.05,
            1.25,
            0.62,
            0.00,
            0.36,
            0.13,
            -2,
            0.34,
            0.10,
        ),
        ("Quail", "Partridge", "Tinamou"): (
            0.45,
            14,
            0.21,
            0.08,
            0.55,
            0.80,
            0.25,
            0.22,
            0.14,
            -10,
            0.30,
            -0.10,
        ),
        ("Magpie", "Treepie", "Drongo"): (
            0.30,
            26,
            0.22,
            0.05,
            0.95,
            0.85,
            0.12,
            1.15,
            0.15,
            4,
            0.36,
            0.00,
        ),
        ("Honeyeater", "Sunbird", "Hummingbird"): (
            0.26,
            36,
            0.21,
            0.04,
            1.90,
            0.32,
            0.60,
            0.40,
            0.11,
            0,
            0.14,
            0.10,
        ),
        ("Dove", "Pigeon", "Turtledove"): (
            0.38,
            20,
            0.19,
            0.07,
            0.75,
            0.55,
            0.12,
            0.58,
            0.16,
            -2,
            0.20,
            0.06,
        ),
    },
}
"""Body plans by the genera that have them; no plan and no genus is in both domains."""


def contrast(one: str, other: str) -> float:
    """How different two plumage colours look, 0 .. 1."""
    red, green, blue = (a - b for a, b in zip(PLUMAGE[one], PLUMAGE[other], strict=True))
    return sqrt(0.3 * red**2 + 0.5 * green**2 + 0.2 * blue**2) / 255


def species(count: int, *, seed: int, domain: Domain = "benchmark") -> tuple[Species, ...]:
    """`count` different species; species i is of family i % families, so that first and last ids
    share families.

    Raises ValueError if `count` is not positive or `domain` is unknown.
    """
    if count < 1:
        raise ValueError(f"count must be at least one species, got {count}")
    if domain not in PLANS:
        raise ValueError(f"domain must be one of {', '.join(map(repr, PLANS))}, got {domain!r}")
    num_families = ceil(count / MEMBERS_PER_FAMILY)
    ancestors: list[Species] = []
    families = []
    for family in range(num_families):
        dice = Dice("family", domain, seed, family)
        ancestors.append(_ancestor(dice, family, _genus(dice, domain, family), ancestors))
        families.append(_members(dice, ancestors[-1]))
    return tuple(families[i % num_families][i // num_families] for i in range(count))


def _genus(dice: Dice, domain: Domain, family: int) -> tuple[str, Body]:
    """The family's name, unlike every other's, and its proportions."""
    plans = list(PLANS[domain].items())
    genera, mean = plans[family % len(plans)]
    again = family // len(plans)
    region = REGIONS[again // len(genera) % len(REGIONS)]
    era = again // (len(genera) * len(REGIONS))
    proportions = dict(zip(Body.__dataclass_fields__, mean, strict=True))
    for field in ("depth", "head", "bill_length", "bill_depth", "tail_length", "legs"):
        proportions[field] *= dice.uniform(0.88, 1.12)
    return region + genera[again % len(genera)] + (f"_{era + 1}" if era else ""), Body(
        **proportions
    )


def _ancestor(
    dice: Dice, family: int, genus: tuple[str, Body], others: Sequence[Species]
) -> Species:
    """The plumage that a family's members vary, unlike that of the families before it."""
    for _ in range(200):
        bird = _plumage(dice, family, *genus)
        if all(_unlike(bird, other) for other in others):
            return bird
    raise ValueError(
        f"only {family} families have colours of their own; ask for at most"
        f" {family * MEMBERS_PER_FAMILY} species"
    )


def _plumage(dice: Dice, family: int, genus: str, body: Body) -> Species:
    back = dice.pick(VIVID if dice.chance(0.45) else EARTHY)
    breast = dice.pick(
        [c for c in (VIVID if dice.chance(0.55) else PALE) if contrast(c, back) > 0.18]
    )
    belly = (
        dice.pick([c for c in PALE if contrast(c, breast) > 0.1]) if dice.chance(0.6) else breast
    )
    crown = (
        back
        if dice.chance(0.4)
        else dice.pick([c for c in EARTHY + VIVID if contrast(c, back) > 0.2])
    )
    wing = dice.pick(
        [c for c in ("Black", "Slate", "Brown", "Gray", "Olive", "Blue") if contrast(c, back) > 0.1]
    )
    return Species(
        name=genus,
        family=family,
        body=body,
        crown=crown,
        face=dice.pick((back, breast, crown, "White")),
        throat=dice.pick((breast, breast, "White", "Black")),
        back=back,
        breast=breast,
        belly=belly,
        wing=wing,
        tail=dice.pick((wing, back)),
        bill=dice.pick(BILLS),
        legs=dice.pick(LEGS),
        crest=dice.pick(("none", "none", "none", "peak", "swept", "plume")),
        eye_marking=dice.pick(("none", "none", "stripe", "mask", "brow")),
        breast_marking=dice.pick(("none", "none", "streaks", "spots", "bars", "band")),
        wing_bars=dice.pick((0, 0, 1, 2)),
        tail_shape=dice.pick(("square", "forked", "pointed", "fan")),
        tail_edge=dice.chance(0.25),
    )


def _unlike(one: Species, other: Species) -> bool:
    """Whether two families could not be taken for each other: at least two areas differ."""
    return sum(contrast(getattr(one, area), getattr(other, area)) > 0.15 for area in AREAS) >= 2


def _members(dice: Dice, ancestor: Species) -> list[Species]:
    """The family in random order: the ancestor, and others that each changed two traits of their
    own, the first of them a colour."""
    changes = _changes(dice, ancestor)
    colours, marks = dice.shuffled(changes[: len(AREAS)]), dice.shuffled(changes[len(AREAS) :])
    members = [replace(ancestor, name=f"{ancestor.breast}_breasted_{ancestor.name}")]
    for (colour, colour_change), (mark, mark_change) in zip(
        colours[: MEMBERS_PER_FAMILY - 1], marks, strict=False
    ):
        name = f"{_epithet(colour, mark)}_{ancestor.name}"
        members.append(replace(ancestor, name=name, **colour_change, **mark_change))
    return dice.shuffled(members)


def _epithet(colour: str, mark: str) -> str:
    """Both in one, without a part of the bird said twice: Green_winged and Mirror_winged make
    Green_mirror_winged."""
    area = colour.partition("_")[2]
    return f"{colour.removesuffix(f'_{area}') if mark.endswith(area) else colour}_{mark.lower()}"


def _changes(dice: Dice, bird: Species) -> list[tuple[str, dict[str, Any]]]:
    """For every trait that can change visibly, one change and the epithet that a bird gets for
    it."""
    changes: list[tuple[str, dict[str, Any]]] = []
    for area, epithet in AREAS.items():
        other = dice.pick(
            [c for c in (*VIVID, *EARTHY, "White") if contrast(c, getattr(bird, area)) > 0.22]
        )
        changes.append((f"{other}_{epithet}", {area: other}))
    if bird.eye_marking != "mask":
        changes.append(("Masked", {"eye_marking": "mask"}))
    if bird.eye_marking == "none":
        changes.append(("Browed", {"eye_marking": "brow"}))
    if bird.breast_marking == "none":
        marking, epithet = dice.pick(
            (
                ("streaks", "Streaked"),
                ("spots", "Spotted"),
                ("bars", "Barred"),
                ("band", "Collared"),
            )
        )
        changes.append((epithet, {"breast_marking": marking}))
    else:
        changes.append(("Plain", {"breast_marking": "none"}))
    if bird.crest == "none":
        changes.append(("Crested", {"crest": dice.pick(("peak", "swept", "plume"))}))
    else:
        changes.append(("Smooth_headed", {"crest": "none"}))
    changes.append(
        ("Bar_winged", {"wing_bars": 2})
        if bird.wing_bars == 0
        else ("Plain_winged", {"wing_bars": 0})
    )
    if not bird.wing_patch:
        changes.append(("Mirror_winged", {"wing_patch": True}))
    cheek = dice.pick(
        [
            c
            for c in ("White", "Orange", "Yellow", "Scarlet", "Black")
            if contrast(c, bird.face) > 0.25
        ]
    )
    changes.append((f"{cheek}_cheeked", {"cheek": cheek}))
    ring = dice.pick([c for c in ("White", "Yellow", "Scarlet") if contrast(c, bird.face) > 0.25])
    changes.append(("Spectacled", {"eye_ring": ring}))
    if bird.body.bill_length > 0.7:
        bill = dice.pick([c for c in BILLS if contrast(c, bird.bill) > 0.3])
        changes.append((f"{bill}_billed", {"bill": bill}))
    changes.append(
        ("Long_billed", {"body": replace(bird.body, bill_length=bird.body.bill_length * 1.6)})
    )
    changes.append(
        ("Long_tailed", {"body": replace(bird.body, tail_length=bird.body.tail_length * 1.6)})
    )
    return changes
