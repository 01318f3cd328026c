"""A callback that remembers how far each step was at last."""

import dml_bench as db


class Steps(db.Callback):
    def __init__(self) -> None:
        self.last: dict[str, tuple[int, int]] = {}

    def progress(self, message: str, done: int, total: int) -> None:
        self.last[message] = (done, total)
