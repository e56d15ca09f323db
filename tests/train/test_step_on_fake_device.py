"""The training step and evaluation make no host crossing, so that a CUDA graph can capture them.

Checked on the fake device, without a GPU.
"""

import dataclasses
import functools

import pytest
import torch
import torch.nn.functional as F

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.template_pair_embedder import TemplatePairEmbedder
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.protein.residue_constants import atom_order
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.optim.adam import OptimizerConfig
from openfold_opt.train.precision import low_precision_names
from openfold_opt.train.step import MicroBatch, StepConfig, StepNumbers, TrainStep
from openfold_opt.train.synthetic_features import synthetic_batch
from tests.support.fake_device import FakeDeviceProcess, fake_axis
from tests.support.host_crossings import find_host_crossings
from tests.support.synthetic_samples import tiny_config

ACCUMULATION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One way to run a step or an evaluation."""

    kernels: str
    precision: str
    dap_size: int = 1
    num_recomputed_blocks: int = 0
    clip_per: str = "batch"

    def __str__(self) -> str:
        return "-".join(map(str, dataclasses.astuple(self)))


CASES = [
    Case(kernels="reference", precision="fp32"),
    Case(kernels="reference", precision="bf16"),
    Case(kernels="triton", precision="fp32"),
    Case(kernels="triton", precision="bf16"),
    Case(kernels="triton", precision="bf16", dap_size=2, num_recomputed_blocks=1),
    Case(kernels="triton", precision="bf16", dap_size=2, clip_per="sample"),
]


@pytest.fixture(scope="module")
def process():
    with FakeDeviceProcess() as process:
        yield process


def plan_of(device, case):
    is_single = case.dap_size == 1
    return ExecutionPlan(
        kernels=build_kernel_set(KernelConfig.all(case.kernels), device),
        dap=AxisGroup.single("dap") if is_single else fake_axis("dap", size=case.dap_size),
        num_recomputed_blocks=case.num_recomputed_blocks,
    )


def train_step_of(device, case, plan=None):
    config, plan = tiny_config(), plan or plan_of(device, case)
    ranks = {"dap": plan.dap, "training_ranks": dataclasses.replace(plan.dap, name="training")}
    with device:
        model = AlphaFold(config.model, seed=None)
    return TrainStep(
        model,
        loss=plan.compiled("losses", AlphaFoldLoss(config.loss).__call__),
        plan=plan,
        config=StepConfig(
            optimizer=OptimizerConfig(clip_per=case.clip_per), accumulation=ACCUMULATION
        ),
        context=dataclasses.replace(ParallelContext.alone(), **ranks),
        dropout_seed=1,
        low_precision=low_precision_names(model, case.precision),
    )


def features_on(device):
    features = synthetic_batch(tiny_config().data, batch_size=1, num_passes=2)
    return FeatureBatch.from_features(features).to(device)


def compute_step(device, case, num_recycling_iterations, *, plan=None):
    """Return a function that runs a complete step, as a graph captures it.

    plan: None means the plan of the case.
    """
    train_step = train_step_of(device, case, plan)
    slots = torch.zeros(1, dtype=torch.int64, device=device)
    batch = MicroBatch(features=features_on(device), slots=slots, sample_ids=("none",))
    integer = torch.zeros((), dtype=torch.int64, device=device)
    rate = torch.zeros((), dtype=torch.float64, device=device)
    numbers = StepNumbers(step=integer, learning_rate=rate, dropout_seed=integer)
    return lambda: train_step.compute(
        [batch] * ACCUMULATION, numbers, num_recycling_iterations=num_recycling_iterations
    )


@functools.cache
def load_tables(device):
    """Copy the tables of openfold_opt.geometry to the device, once per process.

    A run does this in its warm-up. A host crossing that ends this step also ends the checked one,
    where it is reported.
    """
    # A recycling iteration uses tables that a step without one does not use.
    find_host_crossings(compute_step(device, CASES[0], 1))


def crossings_of_step(device, case, num_recycling_iterations):
    load_tables(device)
    return list(map(str, find_host_crossings(compute_step(device, case, num_recycling_iterations))))


def crossings_of_evaluation(device, case):
    load_tables(device)
    train_step, features = train_step_of(device, case), features_on(device)
    averaged = train_step.weight_average.parameters()
    evaluator = Evaluator(train_step.model, averaged, plan=plan_of(device, case))
    return list(map(str, find_host_crossings(lambda: evaluator.compute(features))))


def crossings_with_list_index(device):
    """Return the crossings of a step whose template embedder indexes atoms with a list."""

    def forward(self, aatype, pseudo_beta, masks, plan):
        backbone = masks[1][..., [atom_order[name] for name in ("N", "CA", "C")]].prod(-1)
        mask = F.pad(backbone[..., None], (0, 36))
        return original(self, aatype, pseudo_beta, (masks[0], mask), plan)

    load_tables(device)
    original = TemplatePairEmbedder.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TemplatePairEmbedder, "forward", forward)
        return list(map(str, find_host_crossings(compute_step(device, CASES[0], 0))))


@pytest.mark.parametrize("num_recycling_iterations", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_step_needs_no_host(process, case, num_recycling_iterations):
    assert process.run(crossings_of_step, case, num_recycling_iterations) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_evaluation_needs_no_host(process, case):
    assert process.run(crossings_of_evaluation, case) == []


def test_list_index_in_the_model_is_found(process):
    (crossing,) = process.run(crossings_with_list_index)
    assert "__getitem__ of Python data at tests/train/test_step_on_fake_device.py:" in crossing
