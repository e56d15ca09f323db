"""The page has the classes of confidence of the other files."""

import re
from pathlib import Path

import openfold_opt.predict.report as report
from openfold_opt.predict.confidence_classes import CLASSES


def test_limits_and_colors_of_the_page():
    text = (Path(report.__file__).parent / "chain_table.js").read_text(encoding="utf-8")
    found = re.findall(r'lowest: (\d+), name: ".*", limits: ".*", color: "(#\w{6})"', text)
    expected = [(f"{item.lowest:.0f}", item.color.lower()) for item in reversed(CLASSES)]
    assert found == expected
