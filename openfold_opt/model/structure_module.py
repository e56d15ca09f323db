"""The structure module, which predicts atom positions from single and pair representations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from openfold_opt.geometry.frames import (
    frames_and_literature_positions_to_atom14,
    torsion_angles_to_frames,
)
from openfold_opt.geometry.quaternion import quaternion_to_matrix
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

BlockMasks = tuple[Tensor | None, Tensor | None]
"""Dropout masks [batch, N_res, c_s] after attention and transition; None: no dropout."""


class BlockState(NamedTuple):
    """Single representation and backbone frames before or after a block."""

    s: Tensor
    """[batch, N_res, c_s]"""
    quaternion: Tensor
    """[batch, N_res, 4], unit quaternion"""
    rotation: Tensor
    """[batch, N_res, 3, 3], the matrix of the quaternion, without gradient"""
    translation: Tensor
    """[batch, N_res, 3], in the length unit of the module"""


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
        """
        aatype, seq_mask = residues
        s_initial, blocks = self._run_all(s, z, seq_mask, dropout, plan)
        return plan.compiled("structure_module", self._place_atoms)(blocks, s_initial, aatype)

    def predict_backbone(
        self,
        s: Tensor,
        z: Callable[[], Tensor],
        seq_mask: Tensor,
        dropout: PassDropout | None,
        plan: ExecutionPlan,
    ) -> Rigid:
        """Predict the backbone frames [batch, N_res] of the last block only, in angstrom.

        This is what recycling needs. Arguments as in `forward`.
        """
        state = self._run_all(s, z, seq_mask, dropout, plan)[1][-1]
        return Rigid(state.rotation, state.translation * self.config.position_scale_angstrom)

    def _run_all(
        self,
        s: Tensor,
        z: Callable[[], Tensor],
        seq_mask: Tensor,
        dropout: PassDropout | None,
        plan: ExecutionPlan,
    ) -> tuple[Tensor, list[BlockState]]:
        """Run lines 1-10. Return the normalized s, and the states after each block."""
        s_initial = self.layer_norm_s(s, plan)
        s_first, masks = self.linear_in(s_initial), self._draw_dropout(s, dropout, plan)
        # The pairs are needed from here on.
        z_normalized = self.layer_norm_z(z(), plan)
        # Blocks are compiled one at a time: they share their weights, and so the compiled code.
        compiled = plan.compiled("structure_module", self._run_block)

        def run_block(state: BlockState, block_masks: BlockMasks) -> BlockState:
            return compiled(state, z_normalized, seq_mask, block_masks, plan)

        return s_initial, self._run_blocks(s_first, run_block, masks)

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
        frames = Rigid.identity(s.shape[:-1], dtype=s.dtype, device=s.device)
        quaternion = torch.zeros((*s.shape[:-1], 4), dtype=s.dtype, device=s.device)
        quaternion[..., 0] = 1.0
        state = BlockState(s, quaternion, frames.rotation.contiguous(), frames.translation)
        blocks = []
        for block_masks in masks:
            state = run_block(state, block_masks)
            blocks.append(state)
        return blocks

    def _run_block(
        self,
        state: BlockState,
        z: Tensor,
        seq_mask: Tensor,
        masks: BlockMasks,
        plan: ExecutionPlan,
    ) -> BlockState:
        """Update the state from the normalized pairs, and return it."""

        def attend(s: Tensor, frames: Rigid) -> Tensor:
            return self.ipa(s, z, frames, seq_mask, plan)

        return self._update(state, attend, masks, plan)

    def _update(
        self, state: BlockState, attend: PointAttention, masks: BlockMasks, plan: ExecutionPlan
    ) -> BlockState:
        """Run lines 6-10."""
        attention_mask, transition_mask = masks
        s = state.s + attend(state.s, Rigid(state.rotation, state.translation))
        s = self.layer_norm_ipa(s if attention_mask is None else s * attention_mask, plan)
        s = self.transition(s, transition_mask, plan)
        return BlockState(s, *plan.kernels.backbone_update(self.bb_update(s), *state[1:]))

    def _place_atoms(
        self, blocks: list[BlockState], s_initial: Tensor, aatype: Tensor
    ) -> Structure:
        """Predict torsion angles, frames and atoms of all blocks from the results of the blocks."""
        states, quaternions, translations = (
            torch.stack([getattr(block, name) for block in blocks], dim=1)
            for name in ("s", "quaternion", "translation")
        )
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
