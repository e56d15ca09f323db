"""The picture of a chain: size, colors, edge cases, equal bytes, no memory that stays."""

from __future__ import annotations

import colorsys
import gc
import warnings
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from openfold_opt.predict.confidence_classes import CLASSES
from openfold_opt.predict.pictures import ChainPicture, draw_chain
from openfold_opt.predict.pictures.chain_picture import PLACES, chain_png
from openfold_opt.predict.pictures.confidence import confidence_colors, rgb
from tests.support.drawn_chains import chain, helix, part, pixels_of, strand

CLASS_VALUES = (30.0, 60.0, 80.0, 95.0)


def saturated_hues(pixels):
    """Return the hues of the colored pixels, 0..360 degrees."""
    flat = np.unique(pixels.reshape(-1, 3), axis=0)
    colors = [colorsys.rgb_to_hsv(*color) for color in flat.tolist()]
    return np.array([360 * hue for hue, saturation, value in colors if saturation > 0.4])


def hue_of(color):
    return 360 * colorsys.rgb_to_hsv(*rgb(color))[0]


def test_colors_of_the_limits():
    colors = confidence_colors(np.array([0.0, 49.99, 49.996, 50.0, 70.0, 89.99, 90.0, 100.0]))
    expected = [CLASSES[i].color for i in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert np.array_equal(colors, [rgb(color) for color in expected])


def test_each_quarter_of_a_chain_has_the_color_of_its_class():
    structure = chain(strand(80), np.repeat(CLASS_VALUES, 20))
    pixels = pixels_of(chain_png(ChainPicture(structure=structure)))
    assert pixels.shape == (1200, 1600, 3)
    panel = part(pixels, PLACES["structure"])
    is_drawn = np.flatnonzero((panel.min(axis=2) < 0.9).any(axis=0))
    width = is_drawn[-1] - is_drawn[0]
    assert width > 0.8 * panel.shape[1], "the chain fills the panel"
    for quarter, item in enumerate(CLASSES):
        # The N terminus is at the left. A margin around the limits is left out.
        start = is_drawn[0] + width * (quarter + 0.15) / 4
        hues = saturated_hues(panel[:, round(start) : round(start + 0.7 * width / 4)])
        assert len(hues) > 10 and np.abs(hues - hue_of(item.color)).max() < 6, item.label


def test_bands_of_the_plddt_panel():
    pixels = pixels_of(chain_png(ChainPicture(structure=chain(strand(20), 75.0))))
    panel = part(pixels, PLACES["plddt"])
    for value, item in zip(CLASS_VALUES, CLASSES):
        row = panel[round((1 - value / 100) * len(panel)), 20:-20]
        assert abs(colorsys.rgb_to_hsv(*np.median(row, axis=0))[0] * 360 - hue_of(item.color)) < 3
    dark = np.flatnonzero((panel.max(axis=2) < 0.4).mean(axis=1) > 0.9)
    dark = dark[dark < len(panel) - 5]  # The axis is at the lower end.
    assert np.abs(dark / len(panel) - 0.25).max() < 0.03, "the line is at 75"


def test_error_map():
    pae = np.full((40, 40), 31.75, np.float32)
    pae[:10, :] = 0.0  # The first ten aligned residues.
    picture = ChainPicture(structure=chain(helix(40)), pae=pae, max_pae=31.75)
    panel = part(pixels_of(chain_png(picture)), PLACES["pae"])
    size = len(panel)
    assert panel[: size // 5, 5:-5].max() < 0.35, "dark green"
    assert panel[size // 3 : -5, 5:-5].min() > 0.9, "nearly white"


def test_without_error_map_or_depth_the_picture_says_so():
    structure = chain(helix(20))
    texts = {
        chain_png(picture)
        for picture in (
            ChainPicture(structure=structure),
            ChainPicture(structure=structure, max_pae=31.75),
            ChainPicture(structure=structure, alignment_depth=[3] * 20),
        )
    }
    assert len(texts) == 3
    for png in texts:
        panel = part(pixels_of(png), PLACES["pae"])
        is_dark = panel.max(axis=2) < 0.6
        assert is_dark[len(panel) // 2 - 30 : len(panel) // 2 + 30].sum() > 200, "a line of text"
        assert is_dark[30 : len(panel) // 3].sum() == 0


def with_gaps():
    ca = helix(30)
    ca[[0, 10, 11, 29]] = np.nan
    return chain(ca)


def one_residue():
    ca = np.full((16, 3), np.nan)
    ca[7] = 5.0
    return chain(ca)


EDGE_CASES = {
    "shortest": lambda: chain(helix(16)),
    "gaps": with_gaps,
    "isolated residue": one_residue,
    "no atoms": lambda: chain(np.full((16, 3), np.nan)),
    "two residues": lambda: chain(helix(2)),
    "straight line": lambda: chain(np.outer(np.arange(20), [3.8, 0, 0])),
    "all at one place": lambda: chain(np.zeros((20, 3))),
    "far apart": lambda: chain(np.random.default_rng(0).uniform(-2000, 2000, (60, 3))),
    "limits of the pLDDT": lambda: chain(helix(20), np.repeat([0.0, 100.0], 10)),
    "formula": lambda: chain(helix(16), name="$\\frac{x_{$ ^ \\"),
    "other script": lambda: chain(helix(16), name="蛋白\n\t\ud800\U0001f9ec\u0627"),
    "long name": lambda: chain(helix(16), name="sp|P12345|" + "LONG_NAME" * 50),
    "no name": lambda: chain(helix(16), name=""),
    "long": lambda: chain(np.random.default_rng(0).normal(0, 2.2, (4500, 3)).cumsum(axis=0)),
}


@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases(case):
    structure = EDGE_CASES[case]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = chain_png(ChainPicture(structure=structure, alignment_depth=None, ptm=0.0))
    panel = part(pixels_of(png), PLACES["structure"])
    assert (panel.min(axis=2) < 0.8).sum() > 100, "something is drawn"


def test_a_residue_without_atoms_is_a_gap():
    ca = strand(40)
    whole = part(pixels_of(chain_png(ChainPicture(structure=chain(ca)))), PLACES["structure"])
    ca[18:22] = np.nan
    broken = part(pixels_of(chain_png(ChainPicture(structure=chain(ca)))), PLACES["structure"])
    middle = slice(whole.shape[1] // 2 - 5, whole.shape[1] // 2 + 5)
    assert whole[:, middle].min() < 0.9 and broken[:, middle].min() == 1.0


def example():
    pae = np.random.default_rng(0).uniform(0, 30, (24, 24)).astype(np.float16)
    return ChainPicture(
        structure=chain(helix(24)), pae=pae, max_pae=31.75, alignment_depth=range(1, 25), ptm=0.7
    )


def test_equal_bytes_in_threads_and_no_figure_stays(tmp_path):
    draw_chain(tmp_path / "a.png", example())
    expected = (tmp_path / "a.png").read_bytes()
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(chain_png, [example(), example()])) == {expected}
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    gc.collect()
    assert not any(type(item) is Figure for item in gc.get_objects())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"alignment_depth": [1] * 15}, "15 values; expected one for each of 16"),
        ({"pae": np.zeros((16, 15))}, r"shape \(16, 15\); expected \(16, 16\)"),
        ({"structure": chain(helix(16), np.nan)}, "pLDDT is not finite"),
    ],
)
def test_wrong_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ChainPicture(**{"structure": chain(helix(16))} | change)


def test_settings_of_the_user_do_not_apply():
    picture = ChainPicture(structure=chain(helix(20), np.full(20, 80.0)))
    expected = chain_png(picture)
    settings = {"text.usetex": True, "savefig.dpi": 30, "axes.grid": True, "lines.linewidth": 9}
    with matplotlib.rc_context(settings):
        assert chain_png(picture) == expected
        assert matplotlib.rcParams["axes.grid"]
