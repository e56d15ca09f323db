"""An observer that records all events, and a run in this process with it."""

from __future__ import annotations

from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.trainer import Trainer
from tests.support.synthetic_samples import MemorySource


class Recorder:
    """Records the names of all events in order, and their reports."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.steps: list = []
        self.evaluations: list = []
        self.warnings: list[str] = []
        self.infos: list = []
        self.statuses: list[str] = []
        self.phases: list = []
        """Reports of phase_start and phase_stop."""

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
            elif name in ("phase_start", "phase_stop"):
                self.phases.append(args[0])
            elif name == "run_stop":
                self.statuses.append(kwargs["status"])

        return receive


def train(
    config,
    folder,
    *,
    seed=3,
    source=None,
    launch=None,
    init_checkpoint=None,
    phase=None,
    recorder=None,
    stop_request=None,
):
    """Run a configuration in this process. Return the summary and the recorded events."""
    recorder = recorder or Recorder()
    trainer = Trainer(
        config,
        data=source or MemorySource(),
        paths=RunPaths(output_dir=folder, init_checkpoint=init_checkpoint),
        seed=seed,
        observer=recorder,
        launch=launch or LaunchInfo(),
        phase=phase,
        stop_request=stop_request,
    )
    summary = trainer.run()
    return summary, recorder
