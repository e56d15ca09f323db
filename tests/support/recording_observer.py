"""An observer that records all events."""

from __future__ import annotations


class Recorder:
    """Records the names of all events in order, and their reports."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.steps: list = []
        self.evaluations: list = []
        self.warnings: list[str] = []
        self.infos: list = []
        self.statuses: list[str] = []

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)

        def receive(*args, **kwargs) -> None:
            self.names.append(name)
            if name == "step":
                self.steps.append(args[0])
            elif name == "evaluation":
                self.evaluations.append(args[0])
            elif name == "warning":
                self.warnings.append(args[0])
            elif name == "init_stop":
                self.infos.append(args[0])
            elif name == "run_stop":
                self.statuses.append(kwargs["status"])

        return receive
