"""Selection of an implementation for every operation, once at the start of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Literal, get_args

import torch

from openfold_opt.kernels.cpu import invariant_point_attention as cpu_invariant_point_attention
from openfold_opt.kernels.cpu import layer_norm as cpu_layer_norm
from openfold_opt.kernels.cpu import outer_product_mean as cpu_outer_product_mean
from openfold_opt.kernels.cpu import projected_norm as cpu_projected_norm
from openfold_opt.kernels.cpu import self_attention as cpu_self_attention
from openfold_opt.kernels.cpu import transition as cpu_transition
from openfold_opt.kernels.cpu import triangle_edges as cpu_triangle_edges
from openfold_opt.kernels.cpu import triangle_update as cpu_triangle_update
from openfold_opt.kernels.cpu import weight_update as cpu_weight_update
from openfold_opt.kernels.cpu.library import unsupported_reason as cpu_unsupported_reason
from openfold_opt.kernels.interface import KernelSet, KernelShapes
from openfold_opt.kernels.reference.dropout_masks import dropout_masks
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.global_attention import global_attention
from openfold_opt.kernels.reference.invariant_point_attention import invariant_point_attention
from openfold_opt.kernels.reference.layer_norm import layer_norm
from openfold_opt.kernels.reference.outer_product_mean import outer_product_mean
from openfold_opt.kernels.reference.projected_norm import projected_norm
from openfold_opt.kernels.reference.self_attention import self_attention
from openfold_opt.kernels.reference.transition import transition
from openfold_opt.kernels.reference.triangle_edges import triangle_edges
from openfold_opt.kernels.reference.triangle_update import triangle_update
from openfold_opt.kernels.reference.weight_update import weight_update

REFERENCE: dict[str, Callable] = {
    "layer_norm": layer_norm,
    "projected_norm": projected_norm,
    "self_attention": self_attention,
    "global_attention": global_attention,
    "triangle_edges": triangle_edges,
    "triangle_update": triangle_update,
    "outer_product_mean": outer_product_mean,
    "transition": transition,
    "dropout_residual": dropout_residual,
    "invariant_point_attention": invariant_point_attention,
    "dropout_masks": dropout_masks,
    "weight_update": weight_update,
}
"""Operation -> its reference version."""

CPU: dict[str, Callable] = REFERENCE | {
    "layer_norm": cpu_layer_norm.layer_norm,
    "projected_norm": cpu_projected_norm.projected_norm,
    "self_attention": cpu_self_attention.self_attention,
    "triangle_edges": cpu_triangle_edges.triangle_edges,
    "triangle_update": cpu_triangle_update.triangle_update,
    "outer_product_mean": cpu_outer_product_mean.outer_product_mean,
    "transition": cpu_transition.transition,
    "invariant_point_attention": cpu_invariant_point_attention.invariant_point_attention,
    "weight_update": cpu_weight_update.weight_update,
}
"""Operation -> its CPU kernel. Operations that gain nothing from one use the reference version."""

Implementation = Literal["auto", "reference", "cpu", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
"""Values of the fields of KernelConfig.

"auto" is "triton" on a GPU, and on the CPU "cpu", or "reference" without a C++ compiler."""


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Implementation of each operation, without fallback."""

    category: ClassVar[str] = "implementation"

    layer_norm: Implementation = "reference"
    projected_norm: Implementation = "reference"
    self_attention: Implementation = "reference"
    global_attention: Implementation = "reference"
    triangle_edges: Implementation = "reference"
    triangle_update: Implementation = "reference"
    outer_product_mean: Implementation = "reference"
    transition: Implementation = "reference"
    dropout_residual: Implementation = "reference"
    invariant_point_attention: Implementation = "reference"
    dropout_masks: Implementation = "reference"
    weight_update: Implementation = "reference"

    @classmethod
    def all(cls, name: Implementation) -> KernelConfig:
        """Return a configuration with the same implementation of every operation."""
        return cls(**{field.name: name for field in fields(cls)})

    def resolved(self, device: torch.device) -> KernelConfig:
        """Return the configuration with "auto" replaced by the implementation for a device."""
        if "auto" not in asdict(self).values():
            return self
        if device.type != "cpu":
            return self.instead_of_auto("triton")
        return self.instead_of_auto("cpu" if cpu_unsupported_reason() is None else "reference")

    def instead_of_auto(self, name: Implementation) -> KernelConfig:
        """Return the configuration with "auto" replaced by another name."""
        return KernelConfig(
            **{
                operation: name if current == "auto" else current
                for operation, current in asdict(self).items()
            }
        )

    def uses_triton(self, device: torch.device) -> bool:
        """Return whether any operation on the device uses Triton."""
        return "triton" in asdict(self.resolved(device)).values()


def describe_tuning(device: torch.device) -> str:
    """Return a line for the log about the launch options of the Triton kernels on a device."""
    from openfold_opt.kernels.triton.tuning.tuned_options import describe

    return describe(device)


def build_kernel_set(
    config: KernelConfig,
    device: torch.device | str,
    shapes: KernelShapes | None = None,
    *,
    precision: str = "fp32",
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
    names = asdict(config.resolved(device))
    return KernelSet(
        **{
            operation: _find(operation, name, device, shapes, precision)
            for operation, name in names.items()
        }
    )


def _find(
    operation: str, name: str, device: torch.device, shapes: KernelShapes, precision: str
) -> Callable:
    if name == "reference":
        return REFERENCE[operation]
    if name == "cpu":
        return _find_cpu(operation, device)
    if name != "triton":
        raise ValueError(
            f"kernel {operation}: found implementation {name!r}, expected one of "
            f"{list(IMPLEMENTATIONS)}; change that field of KernelConfig"
        )
    try:
        from openfold_opt.kernels.triton.operations import OPERATIONS, unsupported_reason
    except ImportError as error:
        raise ValueError(
            f"kernel {operation}: Triton cannot be imported ({error}); install the extra `gpu` of "
            'pyproject.toml, or set that field of KernelConfig to "reference"'
        ) from error
    reason = unsupported_reason(operation, shapes, device, precision)
    if reason is not None:
        raise ValueError(
            f'kernel {operation}: {reason}; set that field of KernelConfig to "reference"'
        )
    return OPERATIONS[operation]


def _find_cpu(operation: str, device: torch.device) -> Callable:
    if device.type not in ("cpu", "meta"):
        raise ValueError(
            f'kernel {operation}: found implementation "cpu" for a model on {device}, but it '
            'runs on the CPU only; set that field of KernelConfig to "triton" or "reference"'
        )
    reason = cpu_unsupported_reason() if device.type == "cpu" else None
    if reason is not None:
        raise ValueError(
            f'kernel {operation}: implementation "cpu" requested, but {reason}; fix this or use '
            '"reference" (field of KernelConfig, or --kernels)'
        )
    return CPU[operation]
