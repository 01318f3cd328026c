"""The nearest class mean: no training, and one vector for each class (Mensink et al. 2013)."""

from typing import Annotated

import numpy as np

from dml_bench.evaluation.few_shot import sums, unit
from dml_bench.system.shapes import Float, Int, shaped

__all__ = ["class_means", "nearest_class_mean"]


def class_means(gallery: np.ndarray, gallery_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, dim) the normalised mean of each class's vectors, and (classes) its id, ascending,
    of (gallery, dim) unit vectors and (gallery) class ids."""
    classes, rows = np.unique(gallery_labels, return_inverse=True)
    return unit(sums(gallery, rows.ravel(), len(classes))), classes


@shaped
def nearest_class_mean(
    gallery: Annotated[np.ndarray, Float("gallery dim")],
    query: Annotated[np.ndarray, Float("query dim")],
    gallery_labels: Annotated[np.ndarray, Int("gallery")],
) -> Annotated[np.ndarray, Int("query")]:
    """(query) class id of the nearest normalised mean of a class's gallery images, by inner
    product of unit vectors; of equally near ones the lower id."""
    means, classes = class_means(gallery, gallery_labels)
    return classes[(query @ means.T).argmax(1)]
