"""AlphaFold2: embedders, stacks, structure module and heads, with recycling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openfold_opt.geometry.atoms import atom14_to_atom37
from openfold_opt.geometry.frames import pseudo_beta_of_backbone
from openfold_opt.model.auxiliary_heads import AuxiliaryHeads
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.dropout import DropoutState, PassDropout
from openfold_opt.model.evoformer_stack import EvoformerStack
from openfold_opt.model.extra_msa_embedder import ExtraMSAEmbedder
from openfold_opt.model.extra_msa_stack import ExtraMSAStack
from openfold_opt.model.input_embedder import InputEmbedder
from openfold_opt.model.linear import Linear, initialize_parameters
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.recycling_embedder import RecyclingEmbedder
from openfold_opt.model.structure_module import Structure, StructureModule
from openfold_opt.model.template_angle_embedder import TemplateAngleEmbedder
from openfold_opt.model.template_pair_embedder import TemplatePairEmbedder
from openfold_opt.model.template_pair_stack import TemplatePairStack
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttention
from openfold_opt.parallel.async_collective import AsyncCollective, SharedResult
from openfold_opt.parallel.collectives import scatter, start_gather
from openfold_opt.protein.residue_constants import atom_order, restype_order


@dataclass(frozen=True, kw_only=True, eq=False)
class Recycled:
    """Outputs of a recycling iteration that are inputs of the next one; they have no gradient."""

    first_row: Tensor
    """[batch, N_res, c_m]: first row of the MSA representation"""
    z: Tensor
    """[batch, N_res, N_res/dap, c_z]"""
    pseudo_beta: Tensor
    """[batch, N_res, 3] angstrom: predicted CB, or CA of glycine"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trunk:
    """Outputs of the Evoformer in one recycling iteration."""

    msa: AsyncCollective | None
    """[batch, N_clust + N_templ, N_res, c_m] in the dtype of the trunk; None except in the last
    iteration, because nothing reads the MSA in the others."""
    pair: SharedResult
    """[batch, N_res, N_res, c_z] float32"""
    first_row: Tensor
    """[batch, N_res, c_m] float32: first row of the MSA representation"""
    s: Tensor
    """[batch, N_res, c_s] float32"""


class AlphaFold(nn.Module):
    """Algorithm 2 (Inference) without ensembling; in training, Algorithm 31 (RecyclingTraining)."""

    def __init__(self, config: ModelConfig, *, seed: int | None = 0) -> None:
        """Build the modules and initialize their weights.

        Initial weights depend on the seed and the parameter names only. The random state of torch
        is neither read nor changed.

        Args:
            config: sizes of the model.
            seed: seed of the initial weights; None leaves linear layers uninitialized, for weights
                that are loaded afterward.
        """
        super().__init__()
        c_m, c_z, c_s = config.c_m, config.c_z, config.c_s
        self.config = config
        # Keep the order of the modules: it is the order of the tensors in checkpoints, and Adam's
        # state refers to them by position.
        self.input_embedder = InputEmbedder(config.input_embedder, c_m=c_m, c_z=c_z)
        self.recycling_embedder = RecyclingEmbedder(config.recycling_embedder, c_m=c_m, c_z=c_z)
        if config.has_templates:
            self.template_angle_embedder = TemplateAngleEmbedder(c_m=c_m)
            self.template_pair_embedder = TemplatePairEmbedder(
                config.template_pair_embedder, c_t=config.c_t
            )
            self.template_pair_stack = TemplatePairStack(config.template_pair_stack, c_t=config.c_t)
            self.template_pointwise_attention = TemplatePointwiseAttention(
                config.template_pointwise_attention, c_t=config.c_t, c_z=c_z
            )
        self.extra_msa_embedder = ExtraMSAEmbedder(c_e=config.c_e)
        self.extra_msa_stack = ExtraMSAStack(config.extra_msa_stack, c_e=config.c_e, c_z=c_z)
        self.evoformer_stack = EvoformerStack(config.evoformer_stack, c_m=c_m, c_z=c_z, c_s=c_s)
        self.structure_module = StructureModule(config.structure_module, c_s=c_s, c_z=c_z)
        self.auxiliary_heads = AuxiliaryHeads(config.auxiliary_heads, c_m=c_m, c_z=c_z, c_s=c_s)
        if seed is not None:
            initialize_parameters(self, seed=seed)

    def trunk_linear_names(self) -> tuple[str, ...]:
        """Return the names of the parameters of the linear layers before the structure module.

        These parameters may be bfloat16, which makes the representations bfloat16. All other
        parameters (normalizations, structure module, heads) stay float32, as do masks, recycled
        representations and everything that is computed from coordinates.
        """
        linears = {name for name, module in self.named_modules() if isinstance(module, Linear)}
        beyond_trunk = ("structure_module.", "auxiliary_heads.")
        names = [name for name, _ in self.named_parameters() if name.rpartition(".")[0] in linears]
        return tuple(name for name in names if not name.startswith(beyond_trunk))

    def forward(
        self,
        batch: FeatureBatch,
        plan: ExecutionPlan,
        *,
        num_recycling_iterations: int,
        dropout: DropoutState | None = None,
    ) -> ModelOutputs:
        """Run num_recycling_iterations iterations without gradient and a last pass with gradient.

        Pass i uses slice i of the per-pass features. The last pass uses slice
        num_recycling_iterations, and the losses need batch.at_pass(num_recycling_iterations).
        Dropout acts in every pass, as in the benchmark.

        Args:
            batch: features with at least num_recycling_iterations + 1 slices.
            plan: kernels, DAP axis and recomputation.
            num_recycling_iterations: number of passes before the last one.
            dropout: None disables dropout, as in evaluation.

        Returns:
            The outputs of the last pass.

        Raises:
            ValueError: the batch has too few slices.
        """
        recycled = None
        for pass_index in range(num_recycling_iterations):
            with torch.no_grad():
                features = batch.at_pass(pass_index)
                pass_dropout = None if dropout is None else dropout.at_pass(pass_index)
                recycled = self._recycle(features, recycled, pass_dropout, plan)
        features = batch.at_pass(num_recycling_iterations)
        pass_dropout = None if dropout is None else dropout.at_pass(num_recycling_iterations)
        trunk = self._run_trunk(features, recycled, pass_dropout, plan, is_last=True)
        residues = (features.aatype, features.seq_mask)
        structure = self.structure_module(trunk.s, trunk.pair, residues, pass_dropout, plan)
        return self._outputs(features, trunk, structure, plan)

    def _recycle(
        self,
        features: FeatureBatch,
        recycled: Recycled | None,
        dropout: PassDropout | None,
        plan: ExecutionPlan,
    ) -> Recycled:
        """Run a recycling iteration, and return the inputs of the next one."""
        trunk = self._run_trunk(features, recycled, dropout, plan, is_last=False)
        backbone = self.structure_module.predict_backbone(
            trunk.s, trunk.pair, features.seq_mask, dropout, plan
        )
        return Recycled(
            first_row=trunk.first_row,
            z=scatter(trunk.pair(), plan.dap, dim=2),
            pseudo_beta=pseudo_beta_of_backbone(
                backbone, features.aatype, features.atom37_atom_exists
            ),
        )

    def _run_trunk(
        self,
        features: FeatureBatch,
        recycled: Recycled | None,
        dropout: PassDropout | None,
        plan: ExecutionPlan,
        *,
        is_last: bool,
    ) -> Trunk:
        """Run Algorithm 2, lines 5-18."""
        pair_mask = features.seq_mask[:, :, None] * features.seq_mask[:, None, :]
        m, z = self.input_embedder(
            features.target_feat, features.residue_index, features.msa_feat, plan
        )
        if recycled is None:
            positions = features.pseudo_beta.new_zeros(features.pseudo_beta.shape)
            recycled = Recycled(
                first_row=torch.zeros_like(m[:, 0]).float(),
                z=torch.zeros_like(z).float(),
                pseudo_beta=positions,
            )
        row_update, z_update = self.recycling_embedder(
            recycled.first_row, recycled.z, recycled.pseudo_beta, plan
        )
        first_row = (m[:, :1] + row_update[:, None]).to(m.dtype)
        m = torch.cat([first_row, m[:, 1:], *self._template_rows(features, plan)], dim=1)
        z = (z + z_update).to(z.dtype)
        if self.config.has_templates:
            z = z + self._template_pairs(features, z, pair_mask, dropout, plan)
        extra = (features.extra_msa, features.extra_has_deletion, features.extra_deletion_value)
        embed_extra = plan.compiled("embedders", self.extra_msa_embedder.forward)
        e = embed_extra(*(scatter(x, plan.dap, dim=1) for x in extra))
        z = self.extra_msa_stack(e, z, (features.extra_msa_mask, pair_mask), dropout, plan)[1]
        msa_mask = torch.cat([features.msa_mask, *self._template_row_masks(features)], dim=1)
        m, z = self.evoformer_stack(
            scatter(m, plan.dap, dim=1), z, (msa_mask, pair_mask), dropout, plan
        )
        # Start the collectives in the order in which their results are needed. The first gathers
        # one row per rank, much less than all rows; the row of rank 0 is the first row of the MSA.
        # The transfer of the pairs overlaps with the computation of the single representation, and
        # that of the MSA overlaps with the structure module.
        first_rows = start_gather(m[:, :1], plan.dap, dim=1, length=plan.dap.size, what="first row")
        pair = start_gather(z, plan.dap, dim=2, length=z.shape[1], what="pairs")
        msa = (
            start_gather(m, plan.dap, dim=1, length=msa_mask.shape[1], what="MSA")
            if is_last
            else None
        )
        first_row = first_rows.wait()[:, 0]
        s = self.evoformer_stack.single(first_row)
        return Trunk(
            msa=msa, pair=SharedResult(pair, Tensor.float), first_row=first_row.float(), s=s.float()
        )

    def _template_rows(self, features: FeatureBatch, plan: ExecutionPlan) -> tuple[Tensor, ...]:
        """Embed the torsion angles of the templates as MSA rows: [batch, N_templ, N_res, c_m].

        The tuple is empty if the model has no templates.
        """
        if not self.config.has_templates:
            return ()
        rows = plan.compiled("embedders", self.template_angle_embedder.forward)(
            features.template_aatype,
            features.template_torsion_angles_sin_cos,
            features.template_alt_torsion_angles_sin_cos,
            features.template_torsion_angles_mask,
        )
        return (rows,)

    def _template_row_masks(self, features: FeatureBatch) -> tuple[Tensor, ...]:
        """Return the mask of the template rows: [batch, N_templ, N_res], or an empty tuple.

        The row of a template exists at residues whose psi, the third torsion angle, exists.
        """
        if not self.config.has_templates:
            return ()
        return (features.template_torsion_angles_mask[..., 2],)

    def _template_pairs(
        self,
        features: FeatureBatch,
        z: Tensor,
        pair_mask: Tensor,
        dropout: PassDropout | None,
        plan: ExecutionPlan,
    ) -> Tensor:
        """Compute the update of z from the templates (Algorithm 2, lines 9-13)."""
        t = self.template_pair_embedder(
            features.template_aatype,
            features.template_pseudo_beta,
            (features.template_pseudo_beta_mask, features.template_all_atom_mask),
            plan,
        )
        t = self.template_pair_stack(t, pair_mask, dropout, plan)
        return self.template_pointwise_attention(t, z, features.template_mask)

    def _outputs(
        self, features: FeatureBatch, trunk: Trunk, structure: Structure, plan: ExecutionPlan
    ) -> ModelOutputs:
        """Apply the heads to the last pass and return all outputs."""
        # Drop the rows of the templates, which are the last ones.
        msa = trunk.msa.wait()[:, : features.msa_feat.shape[1]].float()
        pair, sm_single = trunk.pair(), structure.states[:, -1]
        return ModelOutputs(
            msa=msa,
            pair=pair,
            single=trunk.s,
            sm_frames=structure.frames,
            sm_sidechain_frames=structure.sidechain_frames,
            sm_unnormalized_angles=structure.unnormalized_angles,
            sm_angles=structure.angles,
            sm_positions=structure.positions,
            sm_states=structure.states,
            sm_single=sm_single,
            final_atom_positions=final_positions(features, structure),
            final_atom_mask=features.atom37_atom_exists,
            final_affine_tensor=structure.frames[:, -1],
            **self.auxiliary_heads((msa, pair, trunk.s), sm_single, features.seq_mask, plan),
        )


def final_positions(features: FeatureBatch, structure: Structure) -> Tensor:
    """Return the atom37 positions of the last block: [batch, N_res, 37, 3] angstrom.

    Atoms that the residue type does not have are zero.
    """
    return atom14_to_atom37(
        structure.positions[:, -1], features.residx_atom37_to_atom14, features.atom37_atom_exists
    )


def pseudo_beta_positions(aatype: Tensor, positions: Tensor) -> Tensor:
    """Return CB, or CA of glycine, of atom37 positions [batch, N_res, 37, 3]: [batch, N_res, 3]."""
    is_glycine = (aatype == restype_order["G"]).unsqueeze(-1)
    return torch.where(
        is_glycine, positions[..., atom_order["CA"], :], positions[..., atom_order["CB"], :]
    )
