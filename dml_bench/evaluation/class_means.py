"""The nearest class mean: no training, and one vector for each class (Mensink et al. 2013)."""

from typing import Annotated

import numpy as np

from dml_bench.evaluation.few_shot import sums, unit
from dml_bench.system.shapes import Float, Int, shaped

__all__ = ["nearest_class_mean"]


@shaped
def nearest_class_mean(
    gallery: Annotated[np.ndarray, Float("gallery dim")],
    query: Annotated[np.ndarray, Float("query dim")],
    gallery_labels: Annotated[np.ndarray, Int("gallery")],
) -> Annotated[np.ndarray, Int("query")]:
    """(query) class id of the nearest normalised mean of a class's gallery images, by inner
    product of unit vectors; of equally near ones the lower id."""
    classes, rows = np.unique(gallery_labels, return_inverse=True)
    means = unit(sums(gallery, rows.ravel(), len(classes)))
    return classes[(query @ means.T).argmax(1)]
