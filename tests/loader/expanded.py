"""One sample as model features, by way of the wire."""

from openfold_opt.loader.compact import stack_samples
from openfold_opt.loader.expand import expand_batch
from openfold_opt.loader.sample import choose_for_evaluation, choose_for_training, compact_sample


def features_of(wire):
    """Model features of one sample of wire features, as numpy arrays without the batch dim."""
    return {name: tensor[0].numpy() for name, tensor in expand_batch(stack_samples([wire])).items()}


def training_sample(raw, *, seed, config):
    return features_of(compact_sample(raw, choose_for_training(raw, seed=seed, config=config)))


def evaluation_sample(raw, *, seed, config):
    return features_of(compact_sample(raw, choose_for_evaluation(raw, seed=seed, config=config)))
