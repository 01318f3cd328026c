"""Callbacks that keep what they hear: how far each step was at last, notes and warnings."""

import dml_bench as db


class Steps(db.Callback):
    def __init__(self) -> None:
        self.last: dict[str, tuple[int, int]] = {}

    def progress(self, message: str, done: int, total: int) -> None:
        self.last[message] = (done, total)


class Heard(db.Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
