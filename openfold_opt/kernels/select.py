"""The choice of an implementation for every operation, made once at the start of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import torch

from openfold_opt.kernels.cpu.library import unsupported_reason as no_library_because
from openfold_opt.kernels.interface import KernelSet, KernelShapes
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.global_attention import global_attention
from openfold_opt.kernels.reference.invariant_point_attention import invariant_point_attention
from openfold_opt.kernels.reference.layer_norm import layer_norm, projected_norm
from openfold_opt.kernels.reference.outer_product_mean import outer_product_mean
from openfold_opt.kernels.reference.random_mask import dropout_masks
from openfold_opt.kernels.reference.self_attention import self_attention
from openfold_opt.kernels.reference.transition import transition
from openfold_opt.kernels.reference.triangle import triangle_edges, triangle_update
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
"""operation -> its plain version"""

IMPLEMENTATIONS = ("auto", "reference", "cpu", "compiled", "triton")
"""What a field of KernelConfig may say; "auto" is "triton" on a GPU, "cpu" elsewhere, and "reference" where there is no C++ compiler for "cpu"."""


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Name of the implementation of each operation, one of IMPLEMENTATIONS. There is no fallback from one to another."""

    category: ClassVar[str] = "implementation"

    layer_norm: str = "reference"
    projected_norm: str = "reference"
    self_attention: str = "reference"
    global_attention: str = "reference"
    triangle_edges: str = "reference"
    triangle_update: str = "reference"
    outer_product_mean: str = "reference"
    transition: str = "reference"
    dropout_residual: str = "reference"
    invariant_point_attention: str = "reference"
    dropout_masks: str = "reference"
    weight_update: str = "reference"

    @classmethod
    def all(cls, name: str) -> KernelConfig:
        """The same implementation of every operation."""
        return cls(**{field.name: name for field in fields(cls)})

    def resolved(self, device: torch.device) -> KernelConfig:
        """The same with the implementation that "auto" means on a device in its place."""
        if "auto" not in asdict(self).values():
            return self
        if device.type != "cpu":
            return self.instead_of_auto("triton")
        return self.instead_of_auto("cpu" if no_library_because() is None else "reference")

    def instead_of_auto(self, name: str) -> KernelConfig:
        """The same with another name in place of "auto"."""
        return KernelConfig(
            **{
                operation: name if found == "auto" else found
                for operation, found in asdict(self).items()
            }
        )

    def uses_triton(self, device: torch.device) -> bool:
        """Whether any operation on the device is Triton's."""
        return "triton" in asdict(self.resolved(device)).values()


def describe_tuning(device: torch.device) -> str:
    """What launch options the Triton kernels have on a device."""
    from openfold_opt.kernels.triton.tuning.tables import describe

    return describe(device)


def build_kernel_set(
    config: KernelConfig,
    device: torch.device | str,
    shapes: KernelShapes | None = None,
    *,
    precision: str = "fp32",
) -> KernelSet:
    """Pick the implementations that `config` names. Triton is imported only if it is asked for.

    shapes: largest sizes that the model asks for; precision: of the run (train/precision.py). On a
        GPU both decide whether the Triton kernels fit the chip.

    Raises:
        ValueError: there is no implementation of that name, or it cannot serve the device, the
            shapes or the precision. There is no fallback.
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
        return _find_for_cpu(operation, device)
    if name == "compiled":
        return _find_compiled(operation)
    if name != "triton":
        raise ValueError(
            f"kernel {operation}: found implementation {name!r}, expected one of {list(IMPLEMENTATIONS)}; "
            "change that field of KernelConfig"
        )
    try:
        from openfold_opt.kernels.triton.operations import OPERATIONS, unsupported_reason
    except ImportError as error:
        raise ValueError(
            f"kernel {operation}: Triton cannot be imported ({error}); install the extra `gpu` of pyproject.toml, "
            'or set that field of KernelConfig to "reference"'
        ) from error
    reason = unsupported_reason(operation, shapes, device, precision)
    if reason is not None:
        raise ValueError(
            f'kernel {operation}: {reason}; set that field of KernelConfig to "reference"'
        )
    return OPERATIONS[operation]


def _find_compiled(operation: str) -> Callable:
    from openfold_opt.kernels.compiled import NOT_COMPILED, compile_operations

    if operation in NOT_COMPILED:
        raise ValueError(
            f'kernel {operation}: there is no implementation "compiled", as {NOT_COMPILED[operation]}; '
            'set that field of KernelConfig to "auto" or "reference"'
        )
    return compile_operations(tuple(REFERENCE.items()))[operation]


def _find_for_cpu(operation: str, device: torch.device) -> Callable:
    from openfold_opt.kernels.cpu.operations import OPERATIONS

    if device.type not in ("cpu", "meta"):
        raise ValueError(
            f'kernel {operation}: found implementation "cpu" for a model on {device}, which it would slow down; '
            'set that field of KernelConfig to "triton" or "reference"'
        )
    reason = no_library_because() if device.type == "cpu" else None
    if reason is not None:
        raise ValueError(
            f'kernel {operation}: implementation "cpu" was asked for, but {reason}; mend that, or ask for "reference" (field of KernelConfig, or --kernels)'
        )
    return OPERATIONS[operation]
