"""Keeps the state of the output directory, and the resolved configuration beside every log."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark.machine import describe_machine, describe_versions
from benchmark.output_directory import OutputDirectory
from openfold_opt.train.config import config_as_dict
from openfold_opt.train.observer import NullObserver, RunInfo, RunSummary


class RunRecord(NullObserver):
    """Writes config.json (config_continued_<n>.json when resumed) and moves the directory from state to state."""

    def __init__(self, directory: OutputDirectory, *, preset: str, division: str) -> None:
        self._directory = directory
        self._preset = preset
        self._division = division

    def init_stop(self, info: RunInfo) -> None:
        """Everything that decides what the run does, with the machine and the versions it runs on."""
        content = {
            "preset": self._preset,
            "division": self._division,
            "seed": info.seed,
            "continued": self._directory.continued,
            "resumed_from_step": info.resumed_from_step,
            "device": info.device,
            "number_of_ranks": info.number_of_ranks,
            "number_of_nodes": info.number_of_nodes,
            "global_batch_size": info.global_batch_size,
            "data_checksum": info.data_checksum,
            "init_checkpoint_sha256": info.init_checkpoint_sha256,
            "config": config_as_dict(info.config),
            "versions": describe_versions(),
            "machine": describe_machine(),
        }
        path = self._directory.log_path
        target = path.with_name(path.name.replace("mlperf", "config", 1)).with_suffix(".json")
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def data_ready(self, *, train_samples: int, eval_samples: int) -> None:
        """A continued run was not refused: from here on it counts as one."""
        if self._directory.continued:
            self._directory.mark_running()

    def checkpoint_written(self, *, step: int) -> None:
        """A death from here on leaves something to continue."""
        self._directory.mark_running()

    def run_end(self, summary: RunSummary) -> None:
        """The run is over and its directory closed to others."""
        self._directory.mark_finished(outcome=summary.status)
