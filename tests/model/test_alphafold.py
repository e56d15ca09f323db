"""The whole model."""

import csv
import dataclasses

import pytest
import torch

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan

PLAN = ExecutionPlan.reference()


def dropout(slots=(5, 2), *, seed=1, step=1):
    return DropoutState(seed=seed, step=step, slots=torch.tensor(slots))


def randomized(config, *, seed=0):
    """A model none of whose layers is zero, as "final" ones are at first."""
    model = AlphaFold(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


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
    found = [
        (name, "x".join(map(str, tensor.shape))) for name, tensor in model.state_dict().items()
    ]
    assert found == expected
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
    for plain, *recomputed in zip(*gradients):
        for gradient in recomputed:
            torch.testing.assert_close(gradient, plain)


def test_dropout_of_a_sample_depends_on_its_slot_and_not_on_its_batch(small_config, random_batch):
    model = randomized(small_config)
    second = dataclasses.replace(
        random_batch,
        **{
            item.name: getattr(random_batch, item.name)[1:]
            for item in dataclasses.fields(random_batch)
        },
    )
    with torch.no_grad():
        together = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout((5, 2)))
        alone = model(second, PLAN, num_recycling_iterations=1, dropout=dropout((2,)))
        elsewhere = model(second, PLAN, num_recycling_iterations=1, dropout=dropout((5,)))
    torch.testing.assert_close(alone.pair[0], together.pair[1])
    assert not torch.allclose(elsewhere.pair[0], together.pair[1], rtol=1e-3)


def test_passes_without_gradient_have_dropout_too(small_config, random_batch, without_dropout):
    """With dropout in the first pass alone, the second still sees it through recycling."""
    model = randomized(small_config)
    plain = AlphaFold(without_dropout(small_config))
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        none = model(random_batch, PLAN, num_recycling_iterations=1)
        zero_rate = plain(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout())
        some = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout())
        again = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout())
        next_step = model(random_batch, PLAN, num_recycling_iterations=1, dropout=dropout(step=2))
    assert torch.equal(none.pair, zero_rate.pair)
    assert torch.equal(some.pair, again.pair)
    assert not torch.allclose(some.pair, none.pair, rtol=1e-3)
    assert not torch.allclose(some.pair, next_step.pair, rtol=1e-3)


def test_first_pass_draws_dropout(small_config, random_batch):
    model = randomized(small_config)
    state = dropout()
    with torch.no_grad():
        runs = [
            model._run_pass(random_batch.at_pass(0), None, (state, index), PLAN, is_last=False)[
                0
            ].pair()
            for index in (0, 0, 1)
        ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2], rtol=1e-3)


def test_each_pass_uses_its_own_slice(small_config, random_batch):
    model = randomized(small_config)
    msa_feat = random_batch.msa_feat.clone()
    msa_feat[:, 2] += 1.0
    changed = dataclasses.replace(random_batch, msa_feat=msa_feat)
    with torch.no_grad():
        for num_passes, is_seen in ((0, False), (1, False), (2, True)):
            first = model(random_batch, PLAN, num_recycling_iterations=num_passes)
            second = model(changed, PLAN, num_recycling_iterations=num_passes)
            assert torch.equal(first.pair, second.pair) is not is_seen


def test_too_few_slices_are_an_error(small_config, random_batch):
    with pytest.raises(ValueError, match="recycling pass 3 asked for"):
        AlphaFold(small_config)(random_batch, PLAN, num_recycling_iterations=3)


def test_padding_does_not_reach_real_residues(small_config, random_batch):
    """What stands at padded places, whatever it is, changes nothing elsewhere."""
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


def test_a_width_of_zero_is_an_error():
    with pytest.raises(ValueError, match="c_z is 0"):
        ModelConfig(c_z=0)
