"""Fine-grained birds that the package draws itself: the embedded demo data, and the source domain
for pretraining.

Species come in families. Members of a family share a body and most of their plumage: each has
changed two traits of its own, a colour and a mark. An image varies everything else (pose, place,
light, what stands in front). Every pixel follows from (species, index, seed, size): random bits
come straight from PCG64 and each shape is a polygon with whole-number corners.
"""

from dml_bench.data.synthetic.drawing import PARTS, Drawing, draw
from dml_bench.data.synthetic.families import Species, species
from dml_bench.data.synthetic.nuisance import NUISANCE, Nuisance
from dml_bench.data.synthetic.writing import EDITION, cub_counts, is_as_drawn, write

__all__ = [
    "EDITION",
    "NUISANCE",
    "PARTS",
    "Drawing",
    "Nuisance",
    "Species",
    "cub_counts",
    "draw",
    "is_as_drawn",
    "species",
    "write",
]
