"""The whole model: checkpoint layout, gradients, dropout, recycling and padding."""

import csv
import dataclasses

import pytest
import torch

from openfold_opt.model.alphafold import AlphaFold, pseudo_beta_positions
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.protein.features import FEATURES
from tests.support.tiny_model import randomized

PLAN = ExecutionPlan.reference()


def dropout(slots=(5, 2), *, seed=1, step=1):
    return DropoutState(seed=seed, step=step, slots=torch.tensor(slots))


def total(outputs):
    names = (
        "masked_msa_logits",
        "sm_positions",
        "sm_angles",
        "distogram_logits",
        "lddt_logits",
        "tm_logits",
    )
    names += ("experimentally_resolved_logits", "sm_sidechain_frames", "sm_frames")
    return sum(getattr(outputs, name).square().mean() for name in names)


def test_names_shapes_and_order_are_those_of_the_published_checkpoint(shared):
    with (shared / "golden" / "model_full" / "state_dict.tsv").open() as file:
        expected = [tuple(row) for row in csv.reader(file, delimiter="\t")]
    with torch.device("meta"):
        model = AlphaFold(ModelConfig(), seed=None)
    actual = [
        (name, "x".join(map(str, tensor.shape))) for name, tensor in model.state_dict().items()
    ]
    assert actual == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == 93_229_082


def test_every_parameter_has_a_gradient(small_config, random_batch):
    model = randomized(small_config)
    total(model(random_batch, PLAN, num_recycling_iterations=1)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_recomputation_gives_the_same_gradients_under_dropout(small_config, random_batch):
    gradients = []
    for number in (0, 1, ALL_BLOCKS):
        model = randomized(small_config)
        outputs = model(
            random_batch,
            ExecutionPlan.reference(num_recomputed_blocks=number),
            num_recycling_iterations=1,
            dropout=dropout(),
        )
        total(outputs).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for expected, *recomputed in zip(*gradients):
        for gradient in recomputed:
            torch.testing.assert_close(gradient, expected)


def test_dropout_of_a_sample_depends_on_its_slot_and_not_on_the_batch(small_config, random_batch):
    model = randomized(small_config)
    second = dataclasses.replace(
        random_batch,
        **{
            item.name: getattr(random_batch, item.name)[1:]
            for item in dataclasses.fields(random_batch)
        },
    )
    with torch.no_grad():
        both = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout((5, 2)))
        same_slot = model(second, PLAN, num_recycling_iterations=1, dropout=dropout((2,)))
        other_slot = model(second, PLAN, num_recycling_iterations=1, dropout=dropout((5,)))
    torch.testing.assert_close(same_slot.pair[0], both.pair[1])
    assert not torch.allclose(other_slot.pair[0], both.pair[1], rtol=1e-3)


def test_recycling_iterations_use_dropout(small_config, random_batch, without_dropout):
    """Outputs depend on the dropout rate and the step, and are reproducible."""
    model = randomized(small_config)
    zero_rate_model = AlphaFold(without_dropout(small_config))
    zero_rate_model.load_state_dict(model.state_dict())
    with torch.no_grad():
        without = model(random_batch, PLAN, num_recycling_iterations=1)
        zero_rate = zero_rate_model(
            random_batch, PLAN, num_recycling_iterations=1, dropout=dropout()
        )
        first = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout())
        second = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout())
        next_step = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout(step=2))
    assert torch.equal(without.pair, zero_rate.pair)
    assert torch.equal(first.pair, second.pair)
    assert not torch.allclose(first.pair, without.pair, rtol=1e-3)
    assert not torch.allclose(first.pair, next_step.pair, rtol=1e-3)


def test_the_first_recycling_iteration_uses_dropout(small_config, random_batch):
    model = randomized(small_config)
    state = dropout()
    with torch.no_grad():
        runs = []
        for index in (0, 0, 1):
            recycled = model._recycle(random_batch.at_pass(0), None, state.at_pass(index), PLAN)
            runs.append(recycled.z)
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2], rtol=1e-3)


def test_recycled_atoms_are_those_of_the_whole_structure(small_config, random_batch):
    model = randomized(small_config)
    with torch.no_grad():
        features, state = random_batch.at_pass(0), dropout()
        recycled = model._recycle(features, None, state.at_pass(0), PLAN)
        whole = model(random_batch, PLAN, num_recycling_iterations=0, dropout=state)
    expected = pseudo_beta_positions(features.aatype, whole.final_atom_positions)
    torch.testing.assert_close(recycled.pseudo_beta, expected, rtol=1e-6, atol=1e-6)
    assert expected.abs().amax() > 0.0


def test_each_pass_uses_its_own_slice(small_config, random_batch):
    model = randomized(small_config)
    msa_feat = random_batch.msa_feat.clone()
    msa_feat[:, 2] += 1.0
    changed = dataclasses.replace(random_batch, msa_feat=msa_feat)
    with torch.no_grad():
        for num_iterations, is_used in ((0, False), (1, False), (2, True)):
            first = model(random_batch, PLAN, num_recycling_iterations=num_iterations)
            second = model(changed, PLAN, num_recycling_iterations=num_iterations)
            assert torch.equal(first.pair, second.pair) is not is_used


def test_too_few_slices_are_an_error(small_config, random_batch):
    with pytest.raises(ValueError, match="pass 3 requested"):
        AlphaFold(small_config)(random_batch, PLAN, num_recycling_iterations=3)


def test_padding_does_not_affect_other_residues(small_config, random_batch):
    """The features of padded residues do not change the outputs of the other residues."""
    model = randomized(small_config)
    masks = {
        name: getattr(random_batch, name).clone()
        for name in ("seq_mask", "msa_mask", "extra_msa_mask", "template_torsion_angles_mask")
    }
    masks["seq_mask"][:, 6:] = 0.0
    masks["msa_mask"][..., 6:] = 0.0
    masks["extra_msa_mask"][..., 6:] = 0.0
    masks["template_torsion_angles_mask"][:, :, 6:] = 0.0
    batch = dataclasses.replace(random_batch, **masks)
    msa_feat, target_feat = batch.msa_feat.clone(), batch.target_feat.clone()
    msa_feat[:, :, :, 6:] = 5.0
    target_feat[:, 6:] = -3.0
    other = dataclasses.replace(batch, msa_feat=msa_feat, target_feat=target_feat)
    with torch.no_grad():
        first = model(batch, PLAN, num_recycling_iterations=1)
        second = model(other, PLAN, num_recycling_iterations=1)
    torch.testing.assert_close(
        first.final_atom_positions[:, :6], second.final_atom_positions[:, :6], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(first.pair[:, :6, :6], second.pair[:, :6, :6], rtol=1e-4, atol=1e-4)


def residues(name, first, last):
    """Return the index of these residues in every dim of a feature that counts residues."""
    dims = FEATURES[name].leading_dims(batched=True) + FEATURES[name].shape
    return tuple(slice(first, last) if dim == "N_res" else slice(None) for dim in dims)


def test_padding_is_not_part_of_the_tm_score(small_config, random_batch):
    """A sample of six residues has the same score alone and padded to eight."""
    model = randomized(small_config)
    alone = {
        name: getattr(random_batch, name)[residues(name, 0, 6)].contiguous() for name in FEATURES
    }
    padded = {}
    for name in ("seq_mask", "msa_mask", "extra_msa_mask", "template_torsion_angles_mask"):
        padded[name] = getattr(random_batch, name).clone()
        padded[name][residues(name, 6, 8)] = 0.0
    with torch.no_grad():
        scores = [
            model(
                dataclasses.replace(random_batch, **changes), PLAN, num_recycling_iterations=1
            ).predicted_tm_score
            for changes in (alone, padded, {})
        ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(scores[2], scores[0], rtol=1e-3)


def test_without_templates_the_model_has_no_modules_for_them_and_ignores_them(
    small_config, random_batch
):
    config = dataclasses.replace(small_config, has_templates=False)
    model = randomized(config)
    assert not [name for name in model.state_dict() if "template" in name]
    with_templates = AlphaFold(small_config).state_dict()
    kept = [name for name in with_templates if not name.startswith("template")]
    assert list(model.state_dict()) == kept
    changed = dataclasses.replace(
        random_batch,
        template_aatype=(random_batch.template_aatype + 1) % 20,
        template_torsion_angles_mask=torch.zeros_like(random_batch.template_torsion_angles_mask),
    )
    outputs = [
        model(each, PLAN, num_recycling_iterations=1, dropout=dropout())
        for each in (random_batch, changed)
    ]
    assert torch.equal(outputs[0].pair, outputs[1].pair)
    total(outputs[0]).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bfloat16_trunk_stays_close_and_the_structure_is_float32(small_config, random_batch):
    model = randomized(small_config)
    with torch.no_grad():
        exact = model(random_batch, PLAN, num_recycling_iterations=1)
        parameters = dict(model.named_parameters())
        for name in model.trunk_linear_names():
            parameters[name].data = parameters[name].data.bfloat16()
        low = model(random_batch, PLAN, num_recycling_iterations=1)
    assert {
        name for name, p in parameters.items() if "layer_norm" in name and p.dtype != torch.float32
    } == set()
    assert low.sm_positions.dtype == low.pair.dtype == torch.float32
    assert ((low.pair - exact.pair).norm() / exact.pair.norm()).item() < 0.05
    assert not torch.equal(low.pair, exact.pair)
