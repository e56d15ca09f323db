"""Resolution of "auto" in the configuration that observers get, and its description."""

import dataclasses
import io

import pytest
import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import resolve_auto
from openfold_opt.model.plan import ALL_BLOCKS
from openfold_opt.train import build_run
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.console_observer import ConsoleObserver
from openfold_opt.train.resolved import count_recomputed_blocks, describe_resolved, resolve_config
from openfold_opt.train.trainer import Trainer
from tests.support.recording_observer import Recorder
from tests.support.synthetic_samples import MemorySource, tiny_config

STACKS = ("template_pair_stack", "extra_msa_stack", "evoformer_stack")


def with_blocks(config, *numbers):
    """Return the configuration with these numbers of blocks in STACKS."""
    changes = {
        name: dataclasses.replace(getattr(config.model, name), num_blocks=number)
        for name, number in zip(STACKS, numbers, strict=True)
    }
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def test_auto_is_resolved_for_the_device():
    config = tiny_config(device="auto", kernels=KernelConfig.all("auto"))
    on_gpu = resolve_config(config, torch.device("cuda", 3))
    assert on_gpu.device == "cuda" and on_gpu.kernels == KernelConfig.all("triton")
    assert on_gpu.loader.prefetch == "pinned"
    on_cpu = resolve_config(config, torch.device("cpu"))
    assert on_cpu.device == "cpu" and on_cpu.loader.prefetch == "direct"
    assert on_cpu.kernels == resolve_auto(config.kernels, torch.device("cpu")) != config.kernels


def test_explicit_choices_do_not_change():
    kernels = dataclasses.replace(KernelConfig(), layer_norm="cpu")
    config = tiny_config(kernels=kernels)
    loader = dataclasses.replace(config.loader, prefetch="direct")
    config = dataclasses.replace(config, loader=loader)
    assert resolve_config(config, torch.device("cpu")) == config


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, (0, 0, 0)), (1, (1, 1, 1)), (3, (2, 3, 3)), (ALL_BLOCKS, (2, 4, 48))],
)
def test_recomputed_blocks_are_counted_per_stack(number, expected):
    """The plan has one number, which may be larger than the number of blocks of a stack."""
    config = with_blocks(tiny_config(), 2, 4, 48)
    assert tuple(count_recomputed_blocks(config, number).values()) == expected


def test_the_description_names_every_resolved_value():
    kernels = dataclasses.replace(KernelConfig.all("triton"), dropout_masks="reference")
    config = tiny_config(kernels=kernels, device="cuda", local_batch_size=2, accumulation=3)
    parallel = dataclasses.replace(config.parallel, dap_size=2, num_evaluation_ranks=4)
    config = dataclasses.replace(config, parallel=parallel, compiled_parts=("losses", "heads"))
    line = describe_resolved(
        config, recomputed_blocks={"evoformer_stack": 12}, number_of_ranks=12, global_batch_size=24
    )
    assert line == (
        "resolved: device cuda, precision fp32, kernels triton (but reference for dropout_masks), "
        "recomputed blocks 12 of evoformer_stack, compiled parts losses, heads, global batch 24 = "
        "4 data-parallel x 2 local x 3 accumulated, DAP 2, world size 12"
    )


def test_the_description_names_separate_launches_for_attention():
    kernels = dataclasses.replace(KernelConfig.all("triton"), fused_attention=False)
    line = describe_resolved(
        tiny_config(kernels=kernels), recomputed_blocks={}, number_of_ranks=1, global_batch_size=1
    )
    assert "kernels triton (but separate launches for attention), " in line


def test_observers_get_the_resolved_configuration(tmp_path, monkeypatch):
    """recompute="auto" becomes a number of blocks, which depends on the free memory."""
    monkeypatch.setattr(build_run, "plan_recomputation", lambda config, device: 1)
    stream = io.StringIO()
    recorder, console = Recorder(), ConsoleObserver(stream=stream)

    class Both:
        def __getattr__(self, name):
            def send(*args, **keywords):
                getattr(recorder, name)(*args, **keywords)
                getattr(console, name)(*args, **keywords)

            return send

    kernels = KernelConfig.all("auto")
    config = tiny_config(recompute="auto", device="auto", kernels=kernels, max_steps=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    paths = RunPaths(output_dir=tmp_path)
    Trainer(config, data=MemorySource(), paths=paths, seed=1, observer=Both()).run()
    (info,) = recorder.infos
    assert info.recomputed_blocks == dict.fromkeys(STACKS, 1)
    assert info.config.device == "cpu"
    assert "auto" not in info.config.kernels.implementations.values()
    printed = stream.getvalue()
    assert "resolved: device cpu" in printed and "1 of evoformer_stack" in printed
