"""Synthetic MLPerf logs for the tests of `summarize`."""

import json
import pathlib

CLOSED = {
    "target_avg_lddt_ca_value": 0.8,
    "model_parameters_count": 93_229_082,
    "train_sequence_crop_size": 256,
    "num_recycling_iters": 3,
    "max_msa_clusters": 124,
    "max_extra_msa": 1024,
    "max_templates": 4,
}


class MadeLog:
    """A log with a simulated clock in seconds; settings replace or add keys of the header."""

    def __init__(self, *, start: float = 0.0, **settings) -> None:
        self.lines: list[str] = []
        self.now = start
        header = {
            "submission_benchmark": "openfold",
            "submission_org": "org",
            "submission_division": "closed",
        }
        header |= {
            "submission_platform": "4xNVIDIA DGX H100",
            "number_of_ranks": 32,
            "number_of_nodes": 4,
        }
        header |= {
            "accelerators_per_node": 8,
            "global_batch_size": 32,
            "gradient_accumulation_steps": 1,
            "precision": "bf16",
        }
        self.header = header | CLOSED | settings
        self.event("init_start")
        for key, value in self.header.items():
            self.event(key, value)

    def event(self, key, value=None, **metadata) -> None:
        fields = {
            "namespace": "",
            "time_ms": round(1e12 + 1e3 * self.now),
            "event_type": "POINT_IN_TIME",
            "key": key,
            "value": value,
        }
        self.lines.append(":::MLLOG " + json.dumps(fields | {"metadata": metadata}))

    def train(self, *, seconds: float, samples: int) -> None:
        """Add a training interval that ends at `samples`."""
        self.event("epoch_start", epoch_num=samples)
        self.now += seconds
        self.event("epoch_stop", epoch_num=samples)

    def evaluate(self, value: float, *, seconds: float, samples: int) -> None:
        self.event("eval_start", epoch_num=samples)
        self.now += seconds
        self.event("eval_accuracy", value, epoch_num=samples)
        self.event("eval_stop", epoch_num=samples)

    def write(self, path: pathlib.Path) -> pathlib.Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(self.lines) + "\n")
        return path


def whole_run(
    *, cycles: int = 3, status: str = "success", start: float = 0.0, **settings
) -> MadeLog:
    """Return the log of a complete run.

    It has 20 s of initialization. Every cycle has 40 steps of 2 s (3 s in the first cycle) and 10 s
    of evaluation.
    """
    log = MadeLog(start=start, **settings)
    log.now += 20
    log.event("run_start")
    for i in range(1, cycles + 1):
        samples = i * 40 * log.header["global_batch_size"]
        log.train(seconds=120 if i == 1 else 80, samples=samples)
        log.event("tracked_stats", {"avg_perf_next_batch": 0.5 if i == 1 else 0.1}, step=i)
        log.evaluate(
            0.81 if i == cycles and status == "success" else 0.7, seconds=10, samples=samples
        )
    log.event("run_stop", status=status)
    return log
