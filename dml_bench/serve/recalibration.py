"""The threshold of a gallery that changes: chosen anew in a thread of its own, when changes have
stopped for a moment, so that no change waits for it."""

import threading
import time
from collections.abc import Callable

from dml_bench.gallery.store import Gallery
from dml_bench.serve.served_gallery import Calibration

__all__ = ["Recalibration"]

QUIET_SECONDS = 0.5
"""Without a change, after which the threshold is chosen."""
LONGEST_SECONDS = 10.0
"""After the first change, after which it is chosen although others follow."""


class Recalibration:
    """Calls `choose` with the gallery of the last change, and `publish` with the result."""

    def __init__(
        self, choose: Callable[[Gallery], Calibration], publish: Callable[[Calibration], None]
    ):
        self.choose = choose
        self.publish = publish
        self._gallery: Gallery | None = None
        self._changed = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="recalibration", daemon=True)
        self._thread.start()

    def changed(self, gallery: Gallery) -> None:
        """There is another gallery."""
        self._gallery = gallery
        self._changed.set()

    def close(self) -> None:
        """Finish what has begun, and end."""
        self._ends = True
        self._changed.set()
        self._thread.join()

    def _work(self) -> None:
        while self._changed.wait() and not self._ends:
            latest = time.monotonic() + LONGEST_SECONDS
            self._changed.clear()
            while self._changed.wait(QUIET_SECONDS) and time.monotonic() < latest:
                if self._ends:
                    return
                self._changed.clear()
            self._changed.clear()
            if self._gallery is not None:
                self.publish(self.choose(self._gallery))
