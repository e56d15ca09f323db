"""Convert between our parameters and the arrays of AlphaFold's parameter files.

AlphaFold stores the weight of a linear layer as [in, out], with separate dims for the heads of an
attention, and all blocks of a stack in one array. Ours are [out, in], one tensor for each block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights import alphafold_names as names

Shape = tuple[int, ...]

_IN_BLOCK = re.compile(r"^(\w+_stack)\.blocks\.(\d+)\.(?:core\.)?(.+)\.(weight|bias)$")
_ANGLE_LAYER = re.compile(r"^structure_module\.angle_resnet\.layers\.(\d+)\.linear_([12])$")
_LINEAR_ARRAYS = {"weight": "weights", "bias": "bias"}
_NORM_ARRAYS = {"weight": "scale", "bias": "offset"}
_ATTENTION_ARRAYS = {
    "linear_q.weight": "query_w",
    "linear_k.weight": "key_w",
    "linear_v.weight": "value_w",
    "linear_g.weight": "gating_w",
    "linear_g.bias": "gating_b",
    "linear_o.weight": "output_w",
    "linear_o.bias": "output_b",
}
_OUTER_PRODUCT = {"weight": "output_w", "bias": "output_b"}


@dataclass(frozen=True, kw_only=True)
class ParameterArray:
    """Where a parameter is in a parameter file."""

    key: str
    """Name of the array."""
    shape: Shape
    """Shape of the parameter in the array: without the dim of the blocks, [in, out] and, in an
    attention, with a dim of its heads."""
    block: int | None = None
    """Index along the first dim of the array; None: the array holds only this parameter."""

    def read(self, array: Tensor, shape: Shape) -> Tensor:
        """Return the parameter with our shape: [out, in] for a weight."""
        value = array if self.block is None else array[self.block]
        if len(shape) == 2:
            return value.reshape(shape[1], shape[0]).t().contiguous()
        return value.reshape(shape).contiguous()

    def write(self, parameter: Tensor) -> Tensor:
        """Return a parameter with the shape that it has in the array."""
        return (parameter.t() if parameter.ndim == 2 else parameter).reshape(self.shape)


def parameter_arrays(
    parameters: Mapping[str, Shape], config: ModelConfig
) -> dict[str, ParameterArray]:
    """Return where each parameter is in a parameter file.

    Args:
        parameters: shape of each parameter of the model by our name.
        config: the model; the heads of its attentions cannot be seen from the shapes.
    """
    return {name: _parameter_array(name, shape, config) for name, shape in parameters.items()}


def array_shapes(arrays: Mapping[str, ParameterArray]) -> dict[str, Shape]:
    """Return the shape of each array of a parameter file, blocks included."""
    num_blocks: dict[str, int] = {}
    for array in arrays.values():
        if array.block is not None:
            num_blocks[array.key] = max(num_blocks.get(array.key, 0), array.block + 1)
    return {
        array.key: (num_blocks[array.key], *array.shape) if array.key in num_blocks else array.shape
        for array in arrays.values()
    }


def from_arrays(
    arrays: Mapping[str, Tensor], parameters: Mapping[str, Shape], config: ModelConfig
) -> dict[str, Tensor]:
    """Return the parameters of our model from arrays that have the shapes of `array_shapes`."""
    places = parameter_arrays(parameters, config)
    return {name: place.read(arrays[place.key], parameters[name]) for name, place in places.items()}


def to_arrays(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the arrays of a parameter file for the parameters of our model."""
    places = parameter_arrays({name: tuple(x.shape) for name, x in state.items()}, config)
    blocks: dict[str, list[Tensor]] = {}
    for name, place in places.items():
        blocks.setdefault(place.key, []).append(place.write(state[name]))
    # The model has the blocks of a stack in their order.
    is_stacked = {place.key for place in places.values() if place.block is not None}
    return {
        key: torch.stack(parts) if key in is_stacked else parts[0].contiguous()
        for key, parts in blocks.items()
    }


def _parameter_array(name: str, shape: Shape, config: ModelConfig) -> ParameterArray:
    in_block = _IN_BLOCK.match(name)
    if in_block is None:
        key, num_heads = _array_outside_stacks(name, config)
        return ParameterArray(key=names.PREFIX + key, shape=_array_shape(key, shape, num_heads))
    stack, block, layer, kind = in_block.groups()
    key, num_heads = _array_in_block(layer, kind, stack, config)
    return ParameterArray(
        key=f"{names.PREFIX}{names.STACKS[stack]}/{key}",
        shape=_array_shape(key, shape, num_heads),
        block=int(block),
    )


def _array_outside_stacks(name: str, config: ModelConfig) -> tuple[str, int | None]:
    """Return the array without the prefix, and its number of heads; None: it has no such dim."""
    layer, _, kind = name.rpartition(".")
    angle_layer = _ANGLE_LAYER.match(layer)
    if name == "structure_module.ipa.head_weights":
        return names.HEAD_WEIGHTS, None
    if angle_layer is not None:
        block, number = angle_layer.groups()
        suffix = "" if block == "0" else f"_{block}"
        return f"{names.ANGLE_BLOCK}{number}{suffix}//{_LINEAR_ARRAYS[kind]}", None
    if layer in names.NORMS:
        return f"{names.NORMS[layer]}//{_NORM_ARRAYS[kind]}", None
    attention = "template_pointwise_attention.mha."
    if name.startswith(attention):
        array = _ATTENTION_ARRAYS[name.removeprefix(attention)]
        num_heads = config.template_pointwise_attention.num_heads
        return f"{names.TEMPLATE_ATTENTION}//{array}", num_heads
    return f"{names.LINEARS[layer]}//{_LINEAR_ARRAYS[kind]}", None


def _array_in_block(
    layer: str, kind: str, stack: str, config: ModelConfig
) -> tuple[str, int | None]:
    """Return the array without the name of the stack, and its number of heads as above."""
    if layer in names.BLOCK_NORMS:
        return f"{names.BLOCK_NORMS[layer]}//{_NORM_ARRAYS[kind]}", None
    if layer in names.BLOCK_LINEARS:
        return f"{names.BLOCK_LINEARS[layer]}//{_LINEAR_ARRAYS[kind]}", None
    if layer in names.BLOCK_PAIR_BIASES:
        return names.BLOCK_PAIR_BIASES[layer], None
    if layer == "outer_product_mean.linear_out":
        return f"outer_product_mean//{_OUTER_PRODUCT[kind]}", None
    if layer == "msa_att_col.layer_norm_m":
        return f"{names.COLUMN_ATTENTIONS[stack]}/query_norm//{_NORM_ARRAYS[kind]}", None
    attention, _, linear = layer.rpartition(".")
    array = _ATTENTION_ARRAYS[f"{linear}.{kind}"]
    stack_config = getattr(config, stack)
    if attention.startswith("tri_att"):
        return f"{names.BLOCK_ATTENTIONS[attention]}//{array}", stack_config.num_heads_triangle
    num_heads = stack_config.num_heads_msa
    if attention == "msa_att_row.mha":
        return f"{names.BLOCK_ATTENTIONS[attention]}//{array}", num_heads
    module = names.COLUMN_ATTENTIONS[stack]
    # All heads of the global attention share one key and one value.
    is_shared = attention.endswith("global_attention") and array in ("key_w", "value_w")
    return f"{module}/attention//{array}", None if is_shared else num_heads


def _array_shape(key: str, shape: Shape, num_heads: int | None) -> Shape:
    """Return the shape of a parameter in its array.

    Args:
        key: name of the array.
        shape: our shape, [out, in] for a weight.
        num_heads: size of the dim of the heads; None: the array has no such dim.
    """
    array = key.rpartition("//")[2]
    if array == "output_w" and num_heads is None:
        # The outer product of two vectors of this size.
        size = math.isqrt(shape[1])
        return size, size, shape[0]
    if num_heads is None or array == "output_b":
        return tuple(reversed(shape))
    if array == "output_w":
        return num_heads, shape[1] // num_heads, shape[0]
    if array == "gating_b":
        return num_heads, shape[0] // num_heads
    return shape[1], num_heads, shape[0] // num_heads
