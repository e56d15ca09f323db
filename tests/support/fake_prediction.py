"""Chains and models that need no weights, for tests of the command that predicts structures.

The structure of a chain depends on its sequence and on the name of the weights alone. Some names
of chains fail in a certain way, see `FakeModels.predict_features` and `prepare`. As a program it is
the command itself with these parts:

    python -m tests.support.fake_prediction INPUT --weights W --out DIR ...

INPUT is a FASTA file with one line per sequence. Weights are any paths: a file name that contains
`ptm` has a TM-score head.
"""

import dataclasses
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import barrier
from openfold_opt.parallel.process_exit import run_program
from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.command import Parts, run_command
from openfold_opt.predict.file_names import weights_names
from openfold_opt.predict.forward import RowSinks
from openfold_opt.predict.models import TimedPrediction
from openfold_opt.predict.option_parser import build_parser
from openfold_opt.predict.options import read_options
from openfold_opt.predict.run_settings import RunSetting, WeightsFacts

ALA_ATOMS = [0, 1, 2, 3, 4]
"""N, CA, C, CB, O in atom37."""
LONGEST = 100
"""Longer chains do not fit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeChain:
    """A chain."""

    name: str
    sequence: str
    origin: str = "test"
    warnings: tuple[str, ...] = ()
    alignment: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeFailure:
    """A chain that cannot be used."""

    name: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeSettings:
    """Settings of features."""

    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FakePrepared:
    """Prepared features."""

    name: str
    wire: dict
    num_alignment_rows: int = 7
    alignment_depth: tuple[int, ...] = ()
    templates: tuple[str, ...] = ("1abc_A",)
    warnings: tuple[str, ...] = ("from the features",)
    input_hash: str = ""

    def features(self) -> torch.Tensor:
        """Return the residue types."""
        return torch.from_numpy(self.wire["aatype"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakePlan:
    """A plan: chains of at most LONGEST residues fit."""

    num_residues: int

    @property
    def fits(self) -> bool:
        """Whether the chain fits."""
        return self.num_residues <= LONGEST

    peak_bytes: int = 2**30
    seconds: float = 1.0

    def as_json(self) -> dict:
        """Return the entry of the record."""
        return {"peak_bytes": self.peak_bytes}

    def summary(self) -> list[str]:
        """Return lines."""
        return ["peak 1.00 GiB"]

    def refusal(self) -> str:
        """Say why the chain does not fit."""
        return f"{self.num_residues} residues do not fit on 1 GPU; 4 GPUs would do"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakePrediction:
    """A prediction (forward.py)."""

    positions: np.ndarray
    atom_mask: np.ndarray
    plddt: np.ndarray
    ptm: float | None
    max_pae: float | None
    num_recycling_iterations: int = 3
    recycling_changes: tuple[float, ...] = (3.0, 1.0, 0.25)


def fake_prediction(sequence: str, weights: str = "w") -> FakePrediction:
    """Return positions, pLDDT and pTM that depend on sequence and weights."""
    digest = hashlib.sha256(f"{sequence} {weights}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    num_residues = len(sequence)
    mask = np.zeros((num_residues, 37), bool)
    mask[np.ix_([letter != "X" for letter in sequence], ALA_ATOMS)] = True
    has_ptm = "ptm" in weights
    return FakePrediction(
        positions=random.uniform(-900, 900, (num_residues, 37, 3)).astype(np.float32),
        atom_mask=mask,
        plddt=random.uniform(0, 100, num_residues).astype(np.float32),
        ptm=float(random.uniform()) if has_ptm else None,
        max_pae=31.75 if has_ptm else None,
    )


def fake_structure(name: str, sequence: str) -> ChainStructure:
    """Return the structure of a prediction."""
    prediction = fake_prediction(sequence)
    return ChainStructure(
        name=name,
        sequence=sequence,
        positions=prediction.positions,
        atom_mask=prediction.atom_mask,
        plddt=prediction.plddt,
    )


def prepare(chain: FakeChain, settings: FakeSettings) -> FakePrepared:
    """Prepare features; fail or die for some names."""
    if chain.name.startswith("broken"):
        raise ValueError(f"the alignment of {chain.name} is cut short")
    if chain.name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    letters = np.frombuffer(chain.sequence.encode(), np.uint8).copy()
    return FakePrepared(
        name=chain.name,
        wire={"aatype": letters},
        alignment_depth=(7,) * len(letters),
        input_hash=hash_inputs(chain),
    )


def hash_inputs(chain: FakeChain) -> str:
    """Return the alignment, which a test may change."""
    return f"hash of {chain.alignment}"


class FakeModels:
    """Implements `Models` without weights."""

    device = torch.device("cpu")
    device_name = "cpu"
    dtype = "fp32"
    notes = ("a note on the weights",)
    prepare = staticmethod(prepare)

    def __init__(self, options, device=device, dap=AxisGroup.single("dap")) -> None:
        self.paths = options.weights.paths
        self.names = weights_names(self.paths)
        self.dap = dap
        self.seed = options.value("seed")

    def weights_facts(self) -> tuple[WeightsFacts, ...]:
        """Return facts; the SHA-256 is that of the path."""
        return tuple(
            WeightsFacts(
                name=name,
                path=str(path),
                kind="fake",
                sha256=hashlib.sha256(str(path).encode()).hexdigest(),
                settings={"max_extra_msa": RunSetting(value=1024, origin="default")},
            )
            for name, path in zip(self.names, self.paths)
        )

    def has_pae(self, index: int) -> bool:
        """Whether the weights have a TM-score head."""
        return "ptm" in self.names[index]

    def feature_settings(self, index: int) -> FakeSettings:
        """Return the same settings for all weights."""
        return FakeSettings(seed=self.seed)

    def num_passes(self, index: int) -> int:
        """Three recycling iterations and the last pass."""
        return 4

    def plan(self, chain: FakeChain, index: int) -> FakePlan:
        """Return a plan."""
        return FakePlan(num_residues=len(chain.sequence))

    def cost(self, chain: FakeChain) -> float:
        """Return the squared length."""
        return float(len(chain.sequence) ** 2)

    def predict_features(
        self, batch, index, *, plan, sinks=RowSinks(), on_pass=None
    ) -> TimedPrediction:
        """Return the prediction of the sequence; some sequences fail.

        A sequence that starts with WWNAN is not finite, WWOOM is out of memory, WWERR is another
        error, WWSLEEP takes a minute, WWKILL kills this process, WWKILLONE the last rank.
        """
        barrier(self.dap)
        sequence = bytes(batch.numpy()).decode()
        num_residues = len(sequence)
        for start in reversed(range(0, num_residues, 5)):
            rows = np.empty((min(5, num_residues - start), num_residues))
            for sink, row_shape in (
                (sinks.pae, ()),
                (sinks.distogram, (64,)),
                (sinks.pair, (8,)),
            ):
                if sink is not None:
                    barrier(self.dap)  # All ranks send their rows to the first one.
                if sink is not None and self.dap.rank == 0:
                    sink(start, np.full((*rows.shape, *row_shape), 12.25))
        if sinks.single is not None and self.dap.rank == 0:
            sinks.single(0, np.ones((num_residues, 6)))
        if sequence.startswith("WWNAN"):
            raise FloatingPointError("positions are not finite")
        if sequence.startswith("WWOOM"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if sequence.startswith("WWERR"):
            raise RuntimeError("an unexpected error")
        if sequence.startswith("WWSLEEP"):
            print("sleeping", flush=True)
            time.sleep(60)
        if sequence.startswith("WWKILL"):
            if not sequence.startswith("WWKILLLAST") or self.dap.rank == self.dap.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
        if on_pass is not None:
            on_pass(3, 0.25)
        barrier(self.dap)
        return TimedPrediction(
            prediction=fake_prediction(sequence, self.names[index]), seconds=0.5, peak_bytes=2**20
        )


def read_inputs(options) -> tuple[list[FakeChain], list[FakeFailure]]:
    """Read FASTA files. A sequence with a colon is a failure."""
    chains, failures = [], []
    for path in options.inputs.paths:
        for record in path.read_text().split(">")[1:]:
            name, sequence, *alignment = record.split()
            if ":" in sequence:
                failures.append(FakeFailure(name=name, message="the sequence has a colon"))
            else:
                chains.append(
                    FakeChain(
                        name=name,
                        sequence=sequence,
                        warnings=("from input",),
                        alignment="".join(alignment),
                    )
                )
    return chains, failures


def print_plan(options) -> int:
    """Print the lengths."""
    print(f"plan of {options.lengths}")
    return 0


PARTS = Parts(
    read_inputs=read_inputs,
    load_models=FakeModels,
    hash_inputs=hash_inputs,
    print_plan=print_plan,
)


def predict(*arguments: object) -> int:
    """Run the command in this process and return its exit code.

    Pictures and the report are made only with --pictures and --report, because each takes longer
    than everything else.
    """
    given = ["--no-pictures", "--no-report", *(str(x) for x in arguments)]
    options = read_options(build_parser("predict").parse_args(given))
    return run_command(options, prog="predict", parts=PARTS)


def write_fasta(path: Path, sequences: dict[str, str]) -> Path:
    """Write a FASTA file and return its path."""
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    return path


LETTERS = "ARNDCQEGHILKMFPSTWYV"


def sequence(number: int, length: int = 20) -> str:
    """Return a sequence that depends on a number."""
    return "".join(LETTERS[(number + i * i) % 20] for i in range(length))


def ten_chains(bad: str = "WWNAN" + "A" * 15) -> dict[str, str]:
    """Return ten sequences by name; that of chain4 is `bad`."""
    chains = {f"chain{number}": sequence(number, 16 + number) for number in range(10)}
    return chains | {"chain4": bad}


def times_of(folder: Path) -> dict[str, int]:
    """Return the modification times of the structures in a folder."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.cif")}


if __name__ == "__main__":
    run_program(lambda: predict(*sys.argv[1:]))
