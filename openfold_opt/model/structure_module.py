"""The structure module, which predicts atom positions from single and pair representations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from openfold_opt.geometry.frames import (
    frames_and_literature_positions_to_atom14,
    torsion_angles_to_frames,
)
from openfold_opt.geometry.quaternion import quaternion_multiply_by_vector, quaternion_to_matrix
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.model.angle_resnet import AngleResnet
from openfold_opt.model.backbone_update import BackboneUpdate
from openfold_opt.model.dropout import (
    POINT_ATTENTION,
    STRUCTURE_MODULE,
    STRUCTURE_TRANSITION,
    PassDropout,
)
from openfold_opt.model.invariant_point_attention import InvariantPointAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.single_transition import SingleTransition

PointAttention = Callable[[Tensor, Rigid], Tensor]
"""(s [batch, N_res, c_s], frames [batch, N_res]) -> update of s."""

BlockState = tuple[Tensor, Tensor, Tensor]
"""s [batch, N_res, c_s], unit quaternion [batch, N_res, 4] and translation [batch, N_res, 3]."""

BlockMasks = tuple[Tensor | None, Tensor | None]
"""Dropout masks [batch, N_res, c_s] after attention and transition; None: no dropout."""


@dataclass(frozen=True, kw_only=True)
class StructureModuleConfig:
    """Configuration of StructureModule."""

    category: ClassVar[str] = "mathematical"

    num_blocks: int = 8
    """Blocks share their weights."""
    c_hidden_point_attention: int = 16
    num_heads: int = 12
    num_qk_points: int = 4
    num_v_points: int = 8
    c_hidden_angles: int = 128
    num_angle_blocks: int = 2
    dropout_rate: float = 0.1
    position_scale_angstrom: float = 10.0
    """Length unit inside the module, in angstrom."""
    mask_inf: float = 1e5
    """Subtracted from the attention logits of masked residues."""
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """Predictions of the structure module, one slice per block; fields as in ModelOutputs."""

    frames: Tensor
    """[batch, num_blocks, N_res, 7]"""
    sidechain_frames: Tensor
    """[batch, num_blocks, N_res, 8, 4, 4]"""
    unnormalized_angles: Tensor
    """[batch, num_blocks, N_res, 7, 2]"""
    angles: Tensor
    """[batch, num_blocks, N_res, 7, 2]"""
    positions: Tensor
    """[batch, num_blocks, N_res, 14, 3] angstrom"""
    states: Tensor
    """[batch, num_blocks, N_res, c_s]"""


class StructureModule(nn.Module):
    """Algorithm 20 (StructureModule)."""

    def __init__(self, config: StructureModuleConfig, *, c_s: int, c_z: int) -> None:
        super().__init__()
        self.config = config
        self.layer_norm_s = LayerNorm(c_s)
        self.layer_norm_z = LayerNorm(c_z)
        self.linear_in = Linear(c_s, c_s)
        self.ipa = InvariantPointAttention(
            c_s=c_s,
            c_z=c_z,
            c_hidden=config.c_hidden_point_attention,
            num_heads=config.num_heads,
            num_points=(config.num_qk_points, config.num_v_points),
            mask_inf=config.mask_inf,
            eps=config.eps,
        )
        self.layer_norm_ipa = LayerNorm(c_s)
        self.transition = SingleTransition(c_s=c_s)
        self.bb_update = BackboneUpdate(c_s=c_s)
        self.angle_resnet = AngleResnet(
            c_s=c_s,
            c_hidden=config.c_hidden_angles,
            num_blocks=config.num_angle_blocks,
            eps=config.eps,
        )

    def forward(
        self,
        s: Tensor,
        z: Callable[[], Tensor],
        residues: tuple[Tensor, Tensor],
        dropout: PassDropout | None,
        plan: ExecutionPlan,
        *,
        last_block_only: bool = False,
    ) -> Structure:
        """Predict the structure in float32.

        Torsion angles and atoms are not inputs of the blocks, so they are computed for all blocks
        together.

        Args:
            s: [batch, N_res, c_s]
            z: called when the pairs [batch, N_res, N_res, c_z] are needed.
            residues: aatype [batch, N_res] int64 and seq_mask [batch, N_res].
            dropout: None disables dropout.
            plan: kernels.
            last_block_only: return the last block only (num_blocks 1), which is what recycling
                needs.
        """
        aatype, seq_mask = residues
        s_initial = self.layer_norm_s(s, plan)
        s_first, masks = self.linear_in(s_initial), self._draw_dropout(s, dropout, plan)
        # The pairs are needed from here on.
        z_normalized = self.layer_norm_z(z(), plan)
        # Blocks are compiled one at a time: they share their weights, and so the compiled code.
        compiled = plan.compiled("structure_module", self._run_block)

        def run_block(state: BlockState, block_masks: BlockMasks) -> BlockState:
            return compiled(state, z_normalized, seq_mask, block_masks, plan)

        blocks = self._run_blocks(s_first, run_block, masks)
        if last_block_only:
            blocks = blocks[-1:]
        return plan.compiled("structure_module", self._place_atoms)(blocks, s_initial, aatype)

    def predict(
        self, s: Tensor, attend: PointAttention, aatype: Tensor, plan: ExecutionPlan
    ) -> Structure:
        """Predict the structure of the last block only, without dropout.

        Args:
            s: [batch, N_res, c_s]
            attend: computes invariant point attention from the pairs, which are sharded
                (predict/schedule/structure.py).
            aatype: [batch, N_res] int64
            plan: kernels.
        """
        s_initial = self.layer_norm_s(s, plan)

        def run_block(state: BlockState, masks: BlockMasks) -> BlockState:
            return self._update(state, attend, masks, plan)

        no_dropout = [(None, None)] * self.config.num_blocks
        blocks = self._run_blocks(self.linear_in(s_initial), run_block, no_dropout)
        return self._place_atoms(blocks[-1:], s_initial, aatype)

    def _run_blocks(
        self,
        s: Tensor,
        run_block: Callable[[BlockState, BlockMasks], BlockState],
        masks: list[BlockMasks],
    ) -> list[BlockState]:
        """Run lines 4-10 of all blocks, with the dropout masks of each, and return their states."""
        quaternion = torch.zeros((*s.shape[:-1], 4), dtype=s.dtype, device=s.device)
        quaternion[..., 0] = 1.0
        translation = torch.zeros((*s.shape[:-1], 3), dtype=s.dtype, device=s.device)
        blocks = []
        for block_masks in masks:
            block = run_block((s, quaternion, translation), block_masks)
            s, quaternion, translation = block
            blocks.append(block)
            # Line 20: no gradient flows through the rotations between blocks.
            quaternion = quaternion.detach()
        return blocks

    def _run_block(
        self,
        state: BlockState,
        z: Tensor,
        seq_mask: Tensor,
        masks: BlockMasks,
        plan: ExecutionPlan,
    ) -> BlockState:
        """Update s, quaternion and translation from the normalized pairs, and return them."""

        def attend(s: Tensor, frames: Rigid) -> Tensor:
            return self.ipa(s, z, frames, seq_mask, plan)

        return self._update(state, attend, masks, plan)

    def _update(
        self, state: BlockState, attend: PointAttention, masks: BlockMasks, plan: ExecutionPlan
    ) -> BlockState:
        """Run lines 6-10."""
        s, quaternion, translation = state
        attention_mask, transition_mask = masks
        rotation = quaternion_to_matrix(quaternion)
        frames = Rigid(rotation=rotation, translation=translation)
        s = s + attend(s, frames)
        s = self.layer_norm_ipa(s if attention_mask is None else s * attention_mask, plan)
        s = self.transition(s, transition_mask, plan)
        update = self.bb_update(s)
        translation = frames.apply(update[..., 3:])
        quaternion = quaternion + quaternion_multiply_by_vector(quaternion, update[..., :3])
        quaternion = quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
        return s, quaternion, translation

    def _place_atoms(
        self, blocks: list[BlockState], s_initial: Tensor, aatype: Tensor
    ) -> Structure:
        """Predict torsion angles, frames and atoms of all blocks from the results of the blocks."""
        states, quaternions, translations = (torch.stack(parts, dim=1) for parts in zip(*blocks))
        unnormalized_angles, angles = self.angle_resnet(states, s_initial[:, None])
        translations = translations * self.config.position_scale_angstrom
        backbone = Rigid(rotation=quaternion_to_matrix(quaternions), translation=translations)
        aatype = aatype[:, None].expand(states.shape[:-1])
        frames = torsion_angles_to_frames(backbone, angles, aatype)
        return Structure(
            frames=torch.cat([quaternions, translations], dim=-1),
            sidechain_frames=frames.to_matrix4x4(),
            unnormalized_angles=unnormalized_angles,
            angles=angles,
            positions=frames_and_literature_positions_to_atom14(frames, aatype),
            states=states,
        )

    def _draw_dropout(
        self, s: Tensor, dropout: PassDropout | None, plan: ExecutionPlan
    ) -> list[BlockMasks]:
        """Draw the masks [batch, N_res, c_s] after attention and transition of each block."""
        num_blocks, rate = self.config.num_blocks, self.config.dropout_rate
        if dropout is None or rate == 0.0:
            return [(None, None)] * num_blocks
        attention, transition = (
            dropout.masks(
                plan,
                part=STRUCTURE_MODULE,
                site=site,
                num_blocks=num_blocks,
                shape=tuple(s.shape[1:]),
                rate=rate,
            ).unbind(0)
            for site in (POINT_ATTENTION, STRUCTURE_TRANSITION)
        )
        return list(zip(attention, transition))
