"""What a server counts and times, for Prometheus."""

from collections.abc import Sequence

from dml_bench.gallery.predict import Prediction
from dml_bench.serve.served_gallery import ServedGallery

__all__ = ["Measurements"]

SIMILARITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Measurements:
    """The counts and times of one server."""

    def __init__(self, served: ServedGallery):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"dml_bench_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"dml_bench_{name}", text, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(
                f"dml_bench_{name}", text, labels, buckets=buckets, registry=self.registry
            )

        self.requests = counter("requests", "Requests.", "route", "method", "status")
        self.seconds = histogram("request_seconds", "Time of a request.", SECONDS, "route")
        self.answers = counter("answers", "Photos by answer.", "answer")
        self.similarity = histogram("similarity", "Of the closest image.", SIMILARITIES)
        self.batches = histogram("batch_images", "Images that were embedded together.", SIZES)
        self.images = gauge("gallery_images", "Images of the gallery.")
        self.classes = gauge("gallery_classes", "Classes of the gallery.")
        self.calibrated = gauge(
            "threshold_images", "Images of the gallery when the threshold was chosen."
        )
        self.threshold = gauge("threshold", "Similarity below which a photo is unknown.")
        for answer in ("class", "unknown"):
            self.answers.labels(answer)
        self.gallery_changed(served)

    def gallery_changed(self, served: ServedGallery) -> None:
        """There is another gallery."""
        self.images.set(len(served.gallery.entries))
        self.classes.set(len(served.gallery.class_names))
        self.threshold.set(served.applied.value)
        self.calibrated.set(len(served.calibration.gallery.entries))

    def batch_embedded(self, size: int) -> None:
        """A batch went through the network."""
        self.batches.observe(size)

    def answered(self, predictions: Sequence[Prediction]) -> None:
        """Photos were looked up."""
        for prediction in predictions:
            self.answers.labels("class" if prediction.known else "unknown").inc()
            self.similarity.observe(prediction.similarity)

    def request_ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def as_text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
