"""Losses over pairs and triplets of a batch."""

import warnings
from typing import TYPE_CHECKING, Annotated, Literal

from dml_bench.losses.distances import as_threshold, clamped_cosine, distance_named
from dml_bench.registry import losses
from dml_bench.registry.option_checks import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    at_least,
    between,
)

if TYPE_CHECKING:
    from torch import nn


@losses.register(
    "NTXent",
    summary=(
        "normalised temperature-scaled cross-entropy of each positive pair against its negatives"
    ),
    source="Sohn 2016; Chen et al. 2020, SimCLR",
    takes_miner=True,
    adds_tuples=True,
)
def nt_xent(
    num_classes: int,
    dim: int,
    *,
    temperature: Positive = 0.1,
    distance: Literal["cosine", "euclidean"] = "cosine",
) -> "nn.Module":
    from pytorch_metric_learning.losses import NTXentLoss

    return NTXentLoss(temperature=temperature, distance=distance_named(distance))


@losses.register(
    "SupCon",
    summary="each positive against all others of the batch, averaged over an anchor's positives",
    source="Khosla et al. 2020, Supervised contrastive learning",
    takes_miner=True,
)
def sup_con(num_classes: int, dim: int, *, temperature: Positive = 0.1) -> "nn.Module":
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=temperature)


@losses.register(
    "Contrastive",
    summary="positive pairs closer than one margin, negative pairs farther than another",
    source=(
        "Hadsell, Chopra and LeCun 2006, Dimensionality reduction by learning an invariant mapping"
    ),
    takes_miner=True,
    adds_tuples=True,
    interpolates=True,
)
def contrastive(
    num_classes: int,
    dim: int,
    *,
    pos_margin: NotNegative = 0.0,
    neg_margin: Annotated[float, between("pos_margin", 2)] = 1.0,
    distance: Literal["cosine", "euclidean"] = "euclidean",
) -> "nn.Module":
    """Margins are distances: Euclidean, or 1 - cosine. The hinges are linear, where the paper
    squares them."""
    from pytorch_metric_learning.losses import ContrastiveLoss

    return ContrastiveLoss(
        pos_margin=as_threshold(pos_margin, distance),
        neg_margin=as_threshold(neg_margin, distance),
        distance=distance_named(distance),
    )


@losses.register(
    "SignalToNoiseRatio",
    summary=(
        "contrastive loss on the variance of a pair's difference over the variance of the anchor"
    ),
    source="Yuan et al. 2019, Signal-to-noise ratio: a robust distance metric",
    takes_miner=True,
    adds_tuples=True,
)
def signal_to_noise_ratio(
    num_classes: int,
    dim: int,
    *,
    pos_margin: NotNegative = 0.0,
    neg_margin: Annotated[float, at_least("pos_margin")] = 1.0,
) -> "nn.Module":
    """Without the paper's regulariser for embeddings of mean zero."""
    from pytorch_metric_learning.losses import SignalToNoiseRatioContrastiveLoss

    return SignalToNoiseRatioContrastiveLoss(pos_margin=pos_margin, neg_margin=neg_margin)


@losses.register(
    "Margin",
    summary="pairs on their side of a learned boundary, by a margin",
    source="Wu et al. 2017, Sampling matters in deep embedding learning",
    takes_miner=True,
    adds_tuples=True,
    trains_proxies=True,
)
def margin_based(
    num_classes: int,
    dim: int,
    *,
    margin: NotNegative = 0.2,
    beta: Annotated[float, between(0, 2)] = 1.2,
    nu: NotNegative = 0.0,
    per_class: bool = True,
) -> "nn.Module":
    """`beta` is where the boundary starts, a Euclidean distance; it is learned, for each class or
    once for all.

    `nu` is the price of a wide boundary. With a boundary that stays, the loss is Contrastive with
    margins beta -+ margin.
    """
    from pytorch_metric_learning.losses import MarginLoss

    return MarginLoss(
        margin=margin,
        nu=nu,
        beta=beta,
        learn_beta=True,
        num_classes=num_classes if per_class else None,
    )


@losses.register(
    "TripletMargin",
    summary="each positive closer to its anchor than each negative, by a margin",
    source="Schroff et al. 2015, FaceNet",
    takes_miner=True,
    adds_tuples=True,
)
def triplet_margin(
    num_classes: int,
    dim: int,
    *,
    margin: NotNegative = 0.2,
    swap: bool = False,
    smooth_loss: bool = False,
    distance: Literal["cosine", "euclidean"] = "euclidean",
) -> "nn.Module":
    """The mean over the triplets that violate the margin. The paper's distances are squared, and
    these are not.

    `swap` takes the distance from positive to negative where it is the smaller; `smooth_loss` is
    softplus instead of the hinge.
    """
    from pytorch_metric_learning.losses import TripletMarginLoss

    return TripletMarginLoss(
        margin=margin, swap=swap, smooth_loss=smooth_loss, distance=distance_named(distance)
    )


@losses.register(
    "CentroidTriplet",
    summary=(
        "each embedding closer to the centroid of its class than to those of other classes, by a"
        " margin"
    ),
    source=(
        "Wieczorek et al. 2021, On the unreasonable effectiveness of centroids in image retrieval"
    ),
    one_number=True,
)
def centroid_triplet(num_classes: int, dim: int, *, margin: NotNegative = 0.5) -> "nn.Module":
    """`margin` is one of squared Euclidean distances; its default is that of the authors' code."""
    from dml_bench.losses.reimplemented import CentroidTriplet

    return CentroidTriplet(margin)


@losses.register(
    "TupletMargin",
    summary="softmax of each positive's angle, less a slack, against the anchor's negatives",
    source="Yu and Tao 2019, Deep metric learning with tuplet margin loss",
    takes_miner=True,
    adds_tuples=True,
)
def tuplet_margin(
    num_classes: int,
    dim: int,
    *,
    margin: Annotated[float, between(0, 90)] = 5.73,
    scale: Positive = 64.0,
) -> "nn.Module":
    """`margin` is the slack in degrees."""
    from pytorch_metric_learning.losses import TupletMarginLoss

    return TupletMarginLoss(margin=margin, scale=scale, distance=clamped_cosine())


@losses.register(
    "Angular",
    summary=(
        "angle at the negative of the triangle with each positive pair below a bound, over all"
        " negatives"
    ),
    source="Wang et al. 2017, Deep metric learning with angular loss",
)
def angular(
    num_classes: int, dim: int, *, alpha: Annotated[float, between(1, 89)] = 40.0
) -> "nn.Module":
    """`alpha` is the bound in degrees. A miner would have a say in positives only, so none is
    taken."""
    from pytorch_metric_learning.losses import AngularLoss

    return AngularLoss(alpha=alpha)


@losses.register(
    "MultiSimilarity",
    summary="pairs weighted by their own and their relative similarities",
    source="Wang et al. 2019, Multi-similarity loss with general pair weighting",
    takes_miner=True,
    interpolates=True,
)
def multi_similarity(
    num_classes: int,
    dim: int,
    *,
    alpha: Positive = 2.0,
    beta: Positive = 50.0,
    base: Annotated[float, between(-1, 1)] = 0.5,
) -> "nn.Module":
    """`alpha` and `beta` sharpen positives and negatives; `base` is the cosine that parts them: .5
    as in the authors' code, where their paper says 1."""
    from pytorch_metric_learning.losses import MultiSimilarityLoss

    return MultiSimilarityLoss(alpha=alpha, beta=beta, base=base)


@losses.register(
    "LiftedStructure",
    summary=(
        "smooth maximum of an anchor's positive distances against the smooth minimum of its"
        " negative ones"
    ),
    source="Song et al. 2016; generalised by Hermans et al. 2017, In defense of the triplet loss",
    takes_miner=True,
)
def lifted_structure(num_classes: int, dim: int, *, margin: NotNegative = 1.0) -> "nn.Module":
    """`margin` is a Euclidean distance. An anchor without positives in the batch is only pushed
    from its negatives."""
    from pytorch_metric_learning.losses import GeneralizedLiftedStructureLoss

    return GeneralizedLiftedStructureLoss(neg_margin=margin, pos_margin=0)


@losses.register(
    "Circle",
    summary="pairs weighted by how far their cosine is from its optimum",
    source="Sun et al. 2020, Circle loss",
    takes_miner=True,
)
def circle(num_classes: int, dim: int, *, m: Fraction = 0.4, gamma: Positive = 80.0) -> "nn.Module":
    """`m` is the relaxation and `gamma` the scale; the defaults are the paper's for fine-grained
    retrieval."""
    from pytorch_metric_learning.losses import CircleLoss

    return CircleLoss(m=m, gamma=gamma)


@losses.register(
    "NPairs",
    summary=(
        "softmax of a positive pair's dot product against the positives of all other classes in the"
        " batch"
    ),
    source="Sohn 2016, Improved deep metric learning with multi-class N-pair loss objective",
    unit_vectors=False,
    one_number=True,
)
def n_pairs(num_classes: int, dim: int, *, l2_weight: NotNegative = 0.002) -> "nn.Module":
    """Takes the first pair of each class in the batch. Embeddings keep their length, as in the
    paper; `l2_weight` is the price of the mean squared length."""
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import NPairsLoss
    from pytorch_metric_learning.regularizers import LpRegularizer

    return NPairsLoss(
        distance=DotProductSimilarity(normalize_embeddings=False),
        embedding_regularizer=LpRegularizer(p=2, power=2),
        embedding_reg_weight=l2_weight,
    )


@losses.register(
    "RankedList",
    summary=(
        "positives within one ball around each anchor, negatives beyond a wider one, the nearer the"
        " heavier"
    ),
    source="Wang et al. 2019, Ranked list loss for deep metric learning (RLL-Simpler)",
)
def ranked_list(
    num_classes: int,
    dim: int,
    *,
    margin: Annotated[float, between(0, "alpha")] = 0.4,
    alpha: Positive = 1.2,
    imbalance: Fraction = 0.5,
    neg_temperature: Annotated[float, between(0, 40)] = 10.0,
    pos_temperature: Annotated[float, between(0, 40)] = 0.0,
) -> "nn.Module":
    """Negatives lie beyond the Euclidean distance `alpha`, positives within alpha - margin;
    `imbalance` is the negatives' weight, 0 .. 1."""
    from pytorch_metric_learning.losses import RankedListLoss

    with warnings.catch_warnings():
        # It warns of overflow above 5; e^(40 * 2) still is a float32.
        warnings.simplefilter("ignore")
        return RankedListLoss(
            margin=margin, Tn=neg_temperature, imbalance=imbalance, alpha=alpha, Tp=pos_temperature
        )


@losses.register(
    "XBM",
    summary="contrastive loss of cosines, also against the embeddings of earlier batches",
    source="Wang et al. 2020, Cross-batch memory for embedding learning",
    one_number=True,
    remembers=True,
)
def cross_batch_memory(
    num_classes: int,
    dim: int,
    *,
    size: Count = 8192,
    weight: Positive = 1.0,
    start: Annotated[int, at_least(0)] = 1000,
    neg_margin: Annotated[float, between(-1, 1)] = 0.5,
) -> "nn.Module":
    """`size` embeddings are remembered, after `start` steps; `weight` is that of the memory's part.
    A negative counts where its cosine is above `neg_margin`. The paper has memories as large as
    the training set or a part of it, and starts after 1,000 steps."""
    from dml_bench.losses.cross_batch_memory import CrossBatchMemory

    return CrossBatchMemory(dim, size=size, weight=weight, start=start, neg_margin=neg_margin)
