"""Proposed classes and how well they are discovered, as text, tables and plain values."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dml_bench.evaluation.discovery import PURE, Agreement
from dml_bench.evaluation.statistics import Interval
from dml_bench.gallery.discover import Clusterer, Discovery, LabelledPhotos, Proposal
from dml_bench.gallery.discovery_measure import WAYS, ClusteredWays, DiscoveryMeasure
from dml_bench.gallery.format import count

__all__ = [
    "describe_measure",
    "discovery_as_dict",
    "measure_as_dict",
    "measure_tables",
    "notes",
    "proposal_table",
]

SHOWN = 30
"""The number of proposals in the table on a terminal; the page has all."""


def proposal_table(discovery: Discovery) -> Table:
    """The largest proposals."""
    table = Table("", "photos", "similarity", "closest class", "its similarity", "a photo")
    for number, proposal in enumerate(discovery.proposals[:SHOWN], start=1):
        table.add_row(
            str(number),
            str(len(proposal.photos)),
            f"{proposal.similarity:.2f}",
            proposal.closest_class,
            f"{proposal.closest_similarity:.2f}",
            Path(proposal.photos[0]).name,
        )
    return table


def notes(discovery: Discovery) -> Iterator[str]:
    """What became of the photos, and by which threshold and clusters."""
    if len(discovery.proposals) > SHOWN:
        yield f"{len(discovery.proposals) - SHOWN} smaller proposals are on the page"
    unknown = len(discovery.photos)
    text = (
        f"{count(discovery.known + unknown, 'photo')}: {discovery.known:,} known, {unknown:,}"
        f" unknown (similarity below {discovery.threshold.value:.3f})"
    )
    if discovery.unreadable:
        text += f", {len(discovery.unreadable)} unreadable"
    yield text
    proposed = unknown - len(discovery.others)
    yield (
        f"{count(len(discovery.proposals), 'proposed class')} with {count(proposed, 'photo')};"
        f" {count(len(discovery.others), 'unknown photo')} in none"
    )
    yield describe_clusterer(discovery.clusterer)
    if discovery.labelled is not None:
        yield from describe_labelled(discovery.labelled)


def describe_clusterer(clusterer: Clusterer) -> str:
    """How photos are clustered."""
    text = f"clusters of at least {clusterer.fewest} photos by {WAYS[clusterer.method]}"
    if clusterer.link is not None:
        text += f", links from a similarity of {clusterer.link:.3f} on"
    return f"{text}: {clusterer.source}"


def describe_labelled(labelled: LabelledPhotos) -> Iterator[str]:
    """What the threshold and the clusters made of photos whose classes are known."""
    if labelled.new_photos:
        text = (
            f"of {count(labelled.new_photos, 'photo')} of new classes the threshold rejects"
            f" {labelled.rejected:.0%}"
        )
        if not np.isnan(labelled.new_share):
            text += f"; of what it rejects, {labelled.new_share:.0%} is of new classes"
        yield text
    if labelled.agreement is not None:
        agreement = labelled.agreement
        text = (
            f"ARI {scored(agreement.ari)}, AMI {scored(agreement.ami)} over the rejected photos;"
            f" {count(agreement.clusters, 'cluster')} of {count(agreement.classes, 'class')}"
        )
        if agreement.clusters:
            text += f", of which {agreement.pure:.0%} are at least {PURE:.0%} of one class"
        yield text


def scored(interval: Interval) -> str:
    """`.62 [.51, .73]`"""
    estimate = short(interval.estimate)
    if np.isnan(interval.low):
        return estimate
    return f"{estimate} [{short(interval.low)}, {short(interval.high)}]"


def short(value: float) -> str:
    """Two digits, without a zero before the point."""
    return f"{value:z.2f}".replace("0.", ".", 1)


def measure_tables(measure: DiscoveryMeasure) -> Iterator[Table]:
    """A table of the ways for the held-out images alone, and one for what a threshold rejects."""
    classes = count(len(measure.held_out), "class")
    images = count(measure.alone.images, "test image")
    yield ways_table(f"{images} of {classes} held out of {measure.phase}", measure.alone)
    if measure.rejected is not None:
        title = (
            f"{count(measure.rejected.images, 'test image')} that the threshold"
            f" {measure.threshold:.3f} rejects"
        )
        yield ways_table(title, measure.rejected)


def ways_table(title: str, ways: ClusteredWays) -> Table:
    """One row for each way."""
    table = Table(title=title, title_justify="left")
    table.add_column("clusters by")
    for head in (
        "ARI",
        "AMI",
        "clusters",
        "classes",
        "clustered",
        "pure",
        "classes with a pure one",
    ):
        table.add_column(head, justify="right")
    for name, agreement in ways.agreements.items():
        table.add_row(
            WAYS[name],
            scored(agreement.ari),
            scored(agreement.ami),
            str(agreement.clusters),
            str(agreement.classes),
            f"{agreement.clustered:.0%}",
            f"{agreement.pure:.0%}" if agreement.clusters else "-",
            str(agreement.covered),
        )
    return table


def describe_measure(measure: DiscoveryMeasure) -> Iterator[str]:
    """What the numbers rest on."""
    for reason in sorted(set(measure.without_link.values())):
        ways = [WAYS[way] for way, why in measure.without_link.items() if why == reason]
        yield f"without {' and '.join(ways)}: {reason}"
    if measure.links:
        links = [f"{value:.3f} ({WAYS[method]})" for method, value in measure.links.items()]
        yield f"photos are linked from a similarity of {' and '.join(links)} on"
    yield (
        f"clustered: share of the images in a cluster. pure: share of the clusters of which at"
        f" least {PURE:.0%} are of one class. Intervals: 95%, over classes"
    )
    if measure.labelled is None:
        yield "give --precision or --threshold to see what a threshold rejects, clustered too"
    else:
        yield from describe_labelled(measure.labelled)


def agreement_as_dict(agreement: Agreement) -> dict[str, Any]:
    return {
        "ari": agreement.ari.as_table(),
        "ami": agreement.ami.as_table(),
        "clusters": agreement.clusters,
        "classes": agreement.classes,
        "clustered": agreement.clustered,
        "pure": agreement.pure,
        "covered": agreement.covered,
    }


def labelled_as_dict(labelled: LabelledPhotos | None) -> dict[str, Any] | None:
    if labelled is None:
        return None
    agreement = labelled.agreement
    return {
        "new_photos": labelled.new_photos,
        "rejected": labelled.rejected,
        "new_share": labelled.new_share,
        "agreement": None if agreement is None else agreement_as_dict(agreement),
    }


def proposal_as_dict(proposal: Proposal) -> dict[str, Any]:
    return {
        "photos": [str(photo) for photo in proposal.photos],
        "similarity": proposal.similarity,
        "closest_class": proposal.closest_class,
        "closest_similarity": proposal.closest_similarity,
    }


def discovery_as_dict(discovery: Discovery) -> dict[str, Any]:
    """All proposals with their photos."""
    return {
        "known": discovery.known,
        "unknown": len(discovery.photos),
        "threshold": discovery.threshold.value,
        "clusters_by": discovery.clusterer.method,
        "link": discovery.clusterer.link,
        "proposals": [proposal_as_dict(proposal) for proposal in discovery.proposals],
        "others": [str(photo) for photo in discovery.others],
        "unreadable": [str(problem) for problem in discovery.unreadable],
        "labelled": labelled_as_dict(discovery.labelled),
    }


def ways_as_dict(ways: ClusteredWays | None) -> dict[str, Any] | None:
    if ways is None:
        return None
    agreements = {name: agreement_as_dict(value) for name, value in ways.agreements.items()}
    return {"images": ways.images, "ways": agreements}


def measure_as_dict(measure: DiscoveryMeasure) -> dict[str, Any]:
    """Of each way, ARI and AMI with their intervals."""
    return {
        "phase": measure.phase,
        "held_out": list(measure.held_out),
        "links": dict(measure.links),
        "without_link": dict(measure.without_link),
        "threshold": measure.threshold,
        "alone": ways_as_dict(measure.alone),
        "rejected": ways_as_dict(measure.rejected),
        "labelled": labelled_as_dict(measure.labelled),
    }
