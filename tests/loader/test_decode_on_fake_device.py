"""A batch is copied to the device once, from page-locked memory, and decoded only there."""

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.sample import choose_for_training, encode_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.features import FEATURES, check_features
from tests.support.fake_device import FakeDeviceProcess
from tests.support.host_crossings import find_host_crossings
from tests.support.raw_samples import make_raw

CONFIG = DataConfig(crop_size=12, max_msa_clusters=6, max_extra_msa=9, max_templates=4)


def wire_batch(num_samples):
    raw = make_raw()
    choices = [choose_for_training(raw, seed=seed, config=CONFIG) for seed in range(num_samples)]
    return stack_samples([encode_sample(raw, choice) for choice in choices])


def crossings_of_decoding(device, arrays):
    # The first decoding on a device copies the tables of openfold_opt.geometry to it.
    first, second = (
        find_host_crossings(lambda: decode_batch(arrays, device=device)) for _ in range(2)
    )
    assert {"geometry/residue_tables.py" in crossing.where for crossing in first} == {True}
    return list(map(str, second))


def shapes_and_dtypes(device, arrays):
    features = decode_batch(arrays, device=device)
    assert {tensor.device for tensor in features.values()} == {device}
    return {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in features.items()}


def test_decoding_does_not_synchronize_with_the_host():
    arrays = wire_batch(2)
    with FakeDeviceProcess() as process:
        assert process.run(crossings_of_decoding, arrays) == []
        found = process.run(shapes_and_dtypes, arrays)
    on_cpu = decode_batch(arrays)
    check_features(on_cpu, batched=True)
    expected = {name: (tuple(on_cpu[name].shape), str(on_cpu[name].dtype)) for name in FEATURES}
    assert found == expected
