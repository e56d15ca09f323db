"""The table of GPUs: lookup by command-line name and by reported name, rates, unknown names."""

import pytest

from openfold_opt.kernels.chips import CHIPS, chip_named, find_chip


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown GPU 'v100'; expected one of a100-40, .*h200"):
        chip_named("v100")
    assert find_chip("Tesla V100") is None and find_chip("") is None


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A40", "a40"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", "h200"),
        ("NVIDIA B200", "b200"),
    ],
)
def test_reported_names(reported, name):
    assert find_chip(reported) is chip_named(name)


def test_another_model_with_a_similar_name_is_not_found():
    assert find_chip("NVIDIA RTX A4000") is None


def test_sustained_rates_are_below_the_peaks():
    h200 = chip_named("h200").sustained
    assert h200.bytes_per_second == pytest.approx(4.0e12)
    assert h200.matmul_flops_per_second == pytest.approx(600e12)
    assert h200.launch_seconds == 1.2e-6
    for chip in CHIPS:
        assert chip.sustained.bytes_per_second < chip.bytes_per_second
        assert chip.sustained.matmul_flops_per_second < chip.peak.bf16
        assert chip.peak.fp32 < chip.peak.tf32 < chip.peak.bf16
