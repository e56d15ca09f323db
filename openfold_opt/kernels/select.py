"""Selection of an implementation for every operation, once at the start of a run."""

from __future__ import annotations

import torch

from openfold_opt.kernels.arguments import Kernel
from openfold_opt.kernels.cpu.library import unsupported_reason as cpu_unsupported_reason
from openfold_opt.kernels.interface import (
    IMPLEMENTATIONS,
    Implementation,
    KernelConfig,
    KernelSet,
    KernelShapes,
    Precision,
)
from openfold_opt.kernels.operations import OPERATIONS, Operation

RESIDUAL_ATTENTION_PARTS = ("residual_norm", "projected_norm", "self_attention")
"""Operations that residual_attention replaces where a representation is whole."""


def resolve_auto(
    config: KernelConfig, device: torch.device, *, has_cpu_kernels: bool | None = None
) -> KernelConfig:
    """Return the configuration with "auto" replaced by the implementation for a device.

    has_cpu_kernels: whether all ranks have the CPU kernels; None: whether this machine has them.
    """
    names = config.implementations
    if "auto" not in names.values():
        return config
    chosen: Implementation = "triton"
    if device.type == "cpu":
        if has_cpu_kernels is None:
            has_cpu_kernels = cpu_unsupported_reason() is None
        chosen = "cpu" if has_cpu_kernels else "reference"
    return config.with_implementations(
        {operation: chosen for operation, name in names.items() if name == "auto"}
    )


def uses_triton(config: KernelConfig, device: torch.device) -> bool:
    """Return whether any operation on the device uses Triton, which cuEquivariance needs, too."""
    resolved = resolve_auto(config, device)
    return not {"triton", "cuequivariance"}.isdisjoint(resolved.implementations.values())


def describe_tuning(device: torch.device) -> str:
    """Return a line for the log about the launch options of the Triton kernels on a device."""
    from openfold_opt.kernels.triton.tuning.tuned_options import describe

    return describe(device)


def build_kernel_set(
    config: KernelConfig,
    device: torch.device | str,
    shapes: KernelShapes | None = None,
    *,
    precision: Precision = "fp32",
) -> KernelSet:
    """Return the implementations that `config` names. Triton is imported only if it is named.

    shapes: largest sizes of the model; precision: of the run (train/precision.py). On a GPU both
        determine whether the Triton kernels fit the chip.

    Raises:
        ValueError: an implementation does not exist or does not support the device, the shapes or
            the precision. There is no fallback.
    """
    device = torch.device(device)
    shapes = shapes if shapes is not None else KernelShapes()
    config = resolve_auto(config, device)
    names = config.implementations
    return KernelSet(
        **{
            operation: _find(OPERATIONS[operation], name, device, shapes, precision)
            for operation, name in names.items()
        },
        triangle_multiplication=_find_triangle_multiplication(names, device),
        residual_attention=_find_residual_attention(config, device),
    )


def _find(
    operation: Operation,
    name: str,
    device: torch.device,
    shapes: KernelShapes,
    precision: Precision,
) -> Kernel:
    if name == "reference":
        return operation.reference
    if name == "cpu":
        return _find_cpu(operation, device)
    if name == "cuequivariance":
        return _find_cuequivariance(operation, device, shapes, precision)
    if name != "triton":
        raise ValueError(
            f"kernel {operation.name}: found implementation {name!r}, expected one of "
            f"{list(IMPLEMENTATIONS)}; change that field of KernelConfig"
        )
    try:
        from openfold_opt.kernels.triton.launching import unsupported_reason

        kernel = operation.for_triton()
    except ImportError as error:
        raise ValueError(
            f"kernel {operation.name}: Triton cannot be imported ({error}); install the extra "
            '`gpu` of pyproject.toml, or set that field of KernelConfig to "reference"'
        ) from error
    reason = unsupported_reason(device)
    if reason is None:
        reason = operation.supports(shapes, precision, _capability(device))
    if reason is not None:
        raise ValueError(
            f'kernel {operation.name}: {reason}; set that field of KernelConfig to "reference"'
        )
    return kernel


def _capability(device: torch.device) -> int | None:
    """Return the compute capability as chips.py has it; None if the device is not a GPU."""
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _find_cpu(operation: Operation, device: torch.device) -> Kernel:
    if device.type not in ("cpu", "meta"):
        raise ValueError(
            f'kernel {operation.name}: found implementation "cpu" for a model on {device}, but it '
            'runs on the CPU only; set that field of KernelConfig to "triton" or "reference"'
        )
    reason = cpu_unsupported_reason() if device.type == "cpu" else None
    if reason is not None:
        raise ValueError(
            f'kernel {operation.name}: implementation "cpu" requested, but {reason}; fix this or '
            'use "reference" (field of KernelConfig, or --kernels)'
        )
    return operation.for_cpu()


def _find_cuequivariance(
    operation: Operation, device: torch.device, shapes: KernelShapes, precision: Precision
) -> Kernel:
    # Work on device meta is only counted, and cuEquivariance has no shapes there.
    if device.type == "meta":
        return operation.for_triton()
    capability = _capability(device)
    reason = operation.supports(shapes, precision, capability, implementation="cuequivariance")
    if reason is not None:
        raise ValueError(
            f'kernel {operation.name}: {reason}; or set that field of KernelConfig to "triton"'
        )
    if operation.name != "self_attention":
        # Evaluation groups exchange the edges of a chain.
        return _find(operation, "triton", device, shapes, precision)
    from openfold_opt.kernels.cuequivariance.self_attention import self_attention

    return self_attention


def _find_triangle_multiplication(
    names: dict[str, Implementation], device: torch.device
) -> Kernel | None:
    """Return the triangle multiplication of cuEquivariance, after a check of both its parts."""
    chosen = {name: names[name] for name in ("triangle_edges", "triangle_update")}
    if "cuequivariance" not in chosen.values():
        return None
    if len(set(chosen.values())) > 1:
        raise ValueError(
            f"cuEquivariance computes edges and update of a triangle multiplication in one "
            f'function; found {chosen}, expected "cuequivariance" for both or for none'
        )
    if device.type == "meta":
        return None
    from openfold_opt.kernels.cuequivariance.triangle_multiplication import triangle_multiplication

    return triangle_multiplication


def has_residual_attention(config: KernelConfig, *, also: tuple[Implementation, ...] = ()) -> bool:
    """Return whether residual_attention replaces three operations: if all are those of Triton.

    config: resolved, and may exclude it; also: implementations that count as Triton.
    """
    names = config.implementations
    return config.fused_attention and all(
        names[part] in ("triton", *also) for part in RESIDUAL_ATTENTION_PARTS
    )


def _find_residual_attention(config: KernelConfig, device: torch.device) -> Kernel | None:
    # On device meta, cuEquivariance is counted as Triton.
    if not has_residual_attention(
        config, also=("cuequivariance",) if device.type == "meta" else ()
    ):
        return None
    from openfold_opt.kernels.triton.residual_attention import residual_attention

    return residual_attention
