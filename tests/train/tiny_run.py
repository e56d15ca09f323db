"""The tiny run as a program: python -m tests.train.tiny_run OUTPUT_DIR MAX_STEPS [LOCAL_BATCH]."""

import sys
from pathlib import Path

import torch

from openfold_opt.parallel.launch import read_launch_info
from openfold_opt.train.loop import Trainer
from openfold_opt.train.observer import EvaluationReport, NullObserver, StepReport
from openfold_opt.train.setup import RunPaths
from tests.train.synthetic import MemorySource, tiny_config


class LossPrinter(NullObserver):
    """One line per step with all digits of the loss, one per evaluation with those of the score."""

    def step(self, report: StepReport) -> None:
        print(f"step {report.step} loss {report.loss!r}", flush=True)

    def evaluation(self, report: EvaluationReport) -> None:
        scores = " ".join(repr(chain.lddt_ca) for chain in report.chains)
        print(f"evaluation {report.step} {scores}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    folder, max_steps = Path(sys.argv[1]), int(sys.argv[2])
    local_batch = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    config = tiny_config(max_steps=max_steps, local_batch_size=local_batch)
    Trainer(
        config,
        data=MemorySource(),
        paths=RunPaths(output_dir=folder),
        seed=3,
        observer=LossPrinter(),
        launch=read_launch_info(),
    ).run()


if __name__ == "__main__":
    main()
