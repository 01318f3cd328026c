"""Losses that learn vectors for classes: proxies, class weights, centres. All of them also
classify."""

from typing import TYPE_CHECKING, Annotated, Literal

from dml_bench.registry import losses
from dml_bench.registry.option_checks import Count, Fraction, NotNegative, Positive, between

if TYPE_CHECKING:
    from torch import nn


@losses.register(
    "crossentropy",
    summary="softmax classifier: a linear layer on the embedding, cross-entropy on its logits",
    source="the usual classifier",
    trains_proxies=True,
    classifies=True,
    unit_vectors=False,
)
def crossentropy(num_classes: int, dim: int, *, label_smoothing: Fraction = 0.0) -> "nn.Module":
    from dml_bench.losses.reimplemented import SoftmaxClassifier

    return SoftmaxClassifier(num_classes, dim, label_smoothing)


@losses.register(
    "BCE",
    summary="binary cross-entropy of each class by itself, on the logits of a linear layer",
    source="the usual classifier of images with several labels",
    trains_proxies=True,
    classifies=True,
    unit_vectors=False,
    label_sets=True,
)
def binary_cross_entropy(num_classes: int, dim: int) -> "nn.Module":
    """The mean over classes and images; of images with one class, one classifier against all others
    for each."""
    from dml_bench.losses.reimplemented import BinaryClassifier

    return BinaryClassifier(num_classes, dim)


@losses.register(
    "NormalizedSoftmax",
    summary="softmax over cosines with class weights, divided by a temperature",
    source="Zhai and Wu 2019, Classification is a strong baseline for deep metric learning",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda temperature, **_: 2 / temperature,
)
def normalized_softmax(
    num_classes: int, dim: int, *, temperature: Positive = 0.05, label_smoothing: Fraction = 0.0
) -> "nn.Module":
    from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

    from dml_bench.losses.reimplemented import WithLogits

    loss = NormalizedSoftmaxLoss(num_classes, dim, temperature=temperature)
    loss.cross_entropy.label_smoothing = label_smoothing
    return WithLogits(loss)


@losses.register(
    "CosFace",
    summary=(
        "softmax over scaled cosines with class weights, a margin taken off the true class's cosine"
    ),
    source="Wang et al. 2018, CosFace: large margin cosine loss",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda scale, **_: 2 * scale,
)
def cos_face(
    num_classes: int,
    dim: int,
    *,
    margin: Fraction = 0.35,
    scale: Positive = 64.0,
    label_smoothing: Fraction = 0.0,
) -> "nn.Module":
    from pytorch_metric_learning.losses import CosFaceLoss

    return _margin_softmax(
        CosFaceLoss(num_classes, dim, margin=margin, scale=scale), label_smoothing
    )


@losses.register(
    "ArcFace",
    summary=(
        "softmax over scaled cosines with class weights, a margin added to the true class's angle"
    ),
    source="Deng et al. 2019, ArcFace: additive angular margin loss",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda scale, **_: 2 * scale,
)
def arc_face(
    num_classes: int,
    dim: int,
    *,
    margin: Annotated[float, between(0, 90)] = 28.6,
    scale: Positive = 64.0,
    label_smoothing: Fraction = 0.0,
) -> "nn.Module":
    """`margin` is in degrees; 28.6 is the paper's .5 radians."""
    from pytorch_metric_learning.losses import ArcFaceLoss

    return _margin_softmax(
        ArcFaceLoss(num_classes, dim, margin=margin, scale=scale), label_smoothing
    )


@losses.register(
    "SubCenterArcFace",
    summary="ArcFace with several centres per class, the nearest of which counts",
    source="Deng et al. 2020, Sub-center ArcFace",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda scale, **_: 2 * scale,
)
def sub_center_arc_face(
    num_classes: int,
    dim: int,
    *,
    margin: Annotated[float, between(0, 90)] = 28.6,
    scale: Positive = 64.0,
    sub_centers: Count = 3,
    label_smoothing: Fraction = 0.0,
) -> "nn.Module":
    """`margin` is in degrees."""
    from pytorch_metric_learning.losses import SubCenterArcFaceLoss

    loss = SubCenterArcFaceLoss(
        num_classes=num_classes,
        embedding_size=dim,
        margin=margin,
        scale=scale,
        sub_centers=sub_centers,
    )
    return _margin_softmax(loss, label_smoothing)


@losses.register(
    "P2SGrad",
    summary=(
        "half the squared distance of the cosines with class weights from 1 for the true class and"
        " 0 for others"
    ),
    source="Zhang et al. 2019, P2SGrad: refined gradients for optimizing deep face models",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda **_: 2.0,
)
def p2s_grad(num_classes: int, dim: int) -> "nn.Module":
    from dml_bench.losses.reimplemented import P2SGrad

    return P2SGrad(num_classes, dim)


@losses.register(
    "ProxyNCA",
    summary="softmax over squared distances to one proxy per class",
    source="Movshovitz-Attias et al. 2017, No fuss distance metric learning using proxies",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda softmax_scale, **_: 4 * softmax_scale,
)
def proxy_nca(
    num_classes: int,
    dim: int,
    *,
    softmax_scale: Positive = 1.0,
    denominator: Literal["all", "negatives"] = "all",
    proxy_std: Positive = 1.0,
) -> "nn.Module":
    """The paper's denominator holds the proxies of the `negatives` only; that of `all` is the usual
    one, and the study's. Proxies start as normal numbers of deviation `proxy_std`: a proxy k times
    as short turns k^2 times as fast by SGD."""
    from dml_bench.losses.reimplemented import ProxyNCA

    return ProxyNCA(
        num_classes,
        dim,
        softmax_scale,
        positive_in_denominator=denominator == "all",
        proxy_std=proxy_std,
    )


@losses.register(
    "ProxyNCA++",
    summary="probability of the true class's proxy among all proxies, sharpened by a temperature",
    source="Teh, DeVries and Taylor 2020, ProxyNCA++",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda temperature, **_: 4 / temperature,
)
def proxy_nca_plus_plus(
    num_classes: int,
    dim: int,
    *,
    temperature: Positive = 1 / 9,
    label_smoothing: Fraction = 0.0,
    proxy_std: Positive = 1.0,
) -> "nn.Module":
    """Only the loss; the paper's other changes are faster proxies (`train.proxy_lr_factor`),
    balanced batches, max pooling and LayerNorm (`model.head=layer_norm`). Proxies start as normal
    numbers of deviation `proxy_std`, in the authors' code 1/8."""
    from dml_bench.losses.reimplemented import ProxyNCA

    return ProxyNCA(
        num_classes,
        dim,
        1 / temperature,
        label_smoothing=label_smoothing,
        proxy_std=proxy_std,
    )


@losses.register(
    "ProxyAnchor",
    summary="each proxy against the batch: its positives and its negatives, the hard ones heavier",
    source="Kim et al. 2020, Proxy anchor loss for deep metric learning",
    trains_proxies=True,
    classifies=True,
    one_number=True,
    interpolates=True,
    logit_range=lambda alpha, **_: 2 * alpha,
)
def proxy_anchor(
    num_classes: int, dim: int, *, margin: NotNegative = 0.1, alpha: Positive = 32.0
) -> "nn.Module":
    from pytorch_metric_learning.losses import ProxyAnchorLoss

    from dml_bench.losses.reimplemented import ProxyAnchor

    return ProxyAnchor(ProxyAnchorLoss(num_classes, dim, margin=margin, alpha=alpha), scale=alpha)


@losses.register(
    "HIST",
    summary=(
        "softmax over distances to distributions of classes, and a graph network over the batch"
    ),
    source="Lim et al. 2022, Hypergraph-induced semantic tuplet loss for deep metric learning",
    trains_proxies=True,
    classifies=True,
    one_number=True,
    unit_vectors=False,
    logit_range=lambda tau, **_: 4 * tau,
)
def hypergraph_induced(
    num_classes: int,
    dim: int,
    *,
    tau: Positive = 32.0,
    alpha: Positive = 0.9,
    hidden: Count = 512,
    graph_weight: NotNegative = 1.0,
    graph_lr_factor: Positive = 1.0,
) -> "nn.Module":
    """`tau` sharpens the softmax, `alpha` says how fast other classes fade with distance. The graph
    network has `hidden` units and learns at `graph_lr_factor` times the rate of the distributions
    (`train.proxy_lr_factor`)."""
    from dml_bench.losses.hist import HIST

    return HIST(
        num_classes,
        dim,
        tau=tau,
        alpha=alpha,
        hidden=hidden,
        graph_weight=graph_weight,
        graph_lr_factor=graph_lr_factor,
    )


@losses.register(
    "PFML",
    summary="potential energy of images and proxies, which attract their class and repel others",
    source="Bhatnagar and Ahuja 2025, Potential field based deep metric learning",
    trains_proxies=True,
    classifies=True,
    one_number=True,
)
def potential_field(
    num_classes: int,
    dim: int,
    *,
    alpha: Positive = 3.0,
    delta: Annotated[float, between(0.01, 2)] = 0.2,
    proxies_per_class: Count = 15,
) -> "nn.Module":
    """Forces fade with `alpha`; `delta` is the distance within which a class no longer attracts,
    and beyond which others no longer repel. The paper tries an alpha of 0 to 6 and a delta of .1 to
    .3."""
    from dml_bench.losses.potential_field import PotentialField

    return PotentialField(
        num_classes, dim, alpha=alpha, delta=delta, proxies_per_class=proxies_per_class
    )


@losses.register(
    "SoftTriple",
    summary=(
        "softmax over similarities to classes of several centres each, which are drawn together"
    ),
    source="Qian et al. 2019, SoftTriple loss: deep metric learning without triplet sampling",
    trains_proxies=True,
    classifies=True,
    logit_range=lambda la, **_: 2 * la,
)
def soft_triple(
    num_classes: int,
    dim: int,
    *,
    centers_per_class: Count = 10,
    la: Positive = 20.0,
    gamma: Positive = 0.1,
    margin: NotNegative = 0.01,
    tau: NotNegative = 0.2,
) -> "nn.Module":
    """`la` scales the similarities, `gamma` is the temperature among the centres of a class, `tau`
    the price of their distances."""
    from pytorch_metric_learning.losses import SoftTripleLoss

    from dml_bench.losses.reimplemented import SoftTriple, SpreadOfCenters

    spread = SpreadOfCenters(num_classes, centers_per_class) if centers_per_class > 1 else None
    loss = SoftTripleLoss(
        num_classes,
        dim,
        centers_per_class,
        la=la,
        gamma=gamma,
        margin=margin,
        weight_regularizer=spread,
        weight_reg_weight=tau,
    )
    return SoftTriple(loss, scale=la)


def _margin_softmax(loss: "nn.Module", label_smoothing: float) -> "nn.Module":
    """One with a margin, with `logits` and label smoothing."""
    from dml_bench.losses.reimplemented import MarginSoftmax

    loss.cross_entropy.label_smoothing = label_smoothing  # type: ignore[union-attr]
    return MarginSoftmax(loss)
