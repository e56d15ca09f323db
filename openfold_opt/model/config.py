"""ModelConfig: the sizes of the model; the defaults are those of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from openfold_opt.kernels.interface import KernelShapes
from openfold_opt.model.auxiliary_heads import AuxiliaryHeadsConfig
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.input_embedder import InputEmbedderConfig
from openfold_opt.model.recycling_embedder import RecyclingEmbedderConfig
from openfold_opt.model.structure_module import StructureModuleConfig
from openfold_opt.model.template_pair_embedder import TemplatePairEmbedderConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttentionConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Widths of the shared representations, and the configuration of each module."""

    category: ClassVar[str] = "mathematical"

    c_m: int = 256
    """Channels of the MSA representation."""
    c_z: int = 128
    """Channels of the pair representation."""
    c_s: int = 384
    """Channels of the single representation."""
    c_e: int = 64
    """Channels of the extra MSA representation."""
    c_t: int = 64
    """Channels of the template pair representation."""
    has_templates: bool = True
    """Whether the model uses templates. AlphaFold's models 3, 4 and 5 have no modules for them."""
    input_embedder: InputEmbedderConfig = InputEmbedderConfig()
    recycling_embedder: RecyclingEmbedderConfig = RecyclingEmbedderConfig()
    template_pair_embedder: TemplatePairEmbedderConfig = TemplatePairEmbedderConfig()
    template_pair_stack: TemplatePairStackConfig = TemplatePairStackConfig()
    template_pointwise_attention: TemplatePointwiseAttentionConfig = (
        TemplatePointwiseAttentionConfig()
    )
    extra_msa_stack: ExtraMSAStackConfig = ExtraMSAStackConfig()
    evoformer_stack: EvoformerStackConfig = EvoformerStackConfig()
    structure_module: StructureModuleConfig = StructureModuleConfig()
    auxiliary_heads: AuxiliaryHeadsConfig = AuxiliaryHeadsConfig()

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.startswith("c_") and value < 1:
                raise ValueError(
                    f"model config: {item.name} is {value}; expected at least 1 channel"
                )

    def kernel_shapes(self) -> KernelShapes:
        """Return the largest sizes that the kernels have to support."""
        msa_stacks = (self.extra_msa_stack, self.evoformer_stack)
        pair_stacks = (*((self.template_pair_stack,) if self.has_templates else ()), *msa_stacks)
        hidden = [stack.c_hidden_triangle_multiplication for stack in pair_stacks]
        head_sizes = [stack.c_hidden_triangle_attention for stack in pair_stacks] + [
            stack.c_hidden_msa_attention for stack in msa_stacks
        ]
        # The columns of the extra MSA have global attention, those of the MSA have no bias.
        pair_channels = [self.c_z, *([self.c_t] if self.has_templates else [])]
        return KernelShapes(
            max_norm_channels=max(self.c_m, self.c_z, self.c_s, self.c_e, self.c_t, *hidden),
            max_head_size=max(head_sizes),
            max_transition_channels=max(self.c_m, self.c_z, self.c_e, self.c_t),
            max_outer_product_channels=max(stack.c_hidden_outer_product for stack in msa_stacks),
            max_pair_channels=self.c_z,
            biased_head_sizes=tuple(sorted(set(head_sizes))),
            triangle_channels=tuple(sorted({*pair_channels, *hidden})),
        )
