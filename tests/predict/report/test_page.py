"""The page in headless Chromium: the view, the PAE under the mouse, marks, table, no network."""

import json
import re

import numpy as np
import pytest

from openfold_opt.predict.__main__ import main as predict_main
from openfold_opt.predict.report import viewer, write_report, writing
from tests.support.report_browser import NO_WEBGL, chromium, count_of_color, open_page
from tests.support.report_results import (
    add_relaxation,
    add_weights,
    pae_matrix,
    record,
    write_chain,
    write_results,
    write_scores,
)

POINTED = (224, 33, 138)
"""--pointed of page.css."""
MARGIN, TOP = 46, 6
"""Of the map and the plots (pae_map.js, residue_plots.js)."""
MARKUP = 'x <b>"bold"</b> é'
SEQUENCE = "MKTAYIAKQRQISFVKSH"


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """100 chains: 98 with a structure, of 20 to 117 residues, and two that failed."""
    folder = tmp_path_factory.mktemp("predictions")
    chains = [
        write_chain(folder, f"chain{k}", f"chain{k}", number=k, num_residues=20 + k)
        for k in range(98)
    ]
    add_weights(chains[61], "w_other")
    add_relaxation(folder, chains[62])
    write_scores(folder, chains[62])
    error = {"kind": "features", "message": "the alignment is cut short"}
    failed = [
        record(name, stem, sequence="ACD", error=error)
        for name, stem in (("broken", "broken"), (MARKUP, "x"))
    ]
    return write_results(folder, [*chains, *failed])


@pytest.fixture(scope="module")
def page(browser, results):
    """The page of 100 chains with the structure of chain0 drawn."""
    if viewer.read_viewer() is None:
        pytest.skip("ipymolstar is not installed")
    with open_page(browser, write_report(results)) as opened:
        opened.wait_for_view()
        yield opened
        # After all tests of this page.
        assert opened.problems == []
        assert {url.partition(":")[0] for url in opened.requests} <= {"file", "blob", "data"}


def map_place(page, *, aligned: int, scored: int, num_residues: int) -> tuple[float, float]:
    """Return the place of a pair of residues in the map, in pixels."""
    width = page.page.locator("#pae canvas").bounding_box()["width"]
    step = (width - MARGIN - 8) / num_residues
    return MARGIN + (scored - 0.5) * step, TOP + (aligned - 0.5) * step


def test_the_structure_is_drawn_in_the_colors_of_the_plddt(page):
    page.select("chain60")
    page.wait_for_view()
    page.point_at("h1", 1, 1)
    page.next_frame()
    pixels = page.pixels("#view canvas")
    is_drawn = (pixels != pixels[2, 2]).any(axis=-1)
    assert is_drawn.mean() > 0.002
    # Shading changes the brightness of yellow, but not that it has little blue.
    red, green, blue = pixels[is_drawn].astype(int).T
    assert ((red > blue + 60) & (green > blue + 60)).sum() > 20
    assert (blue > red + 60).sum() > 20


def test_the_pae_under_the_mouse_is_that_of_the_matrix(page):
    page.select("chain60")
    matrix = pae_matrix(80, 60)
    for aligned, scored in ((1, 1), (12, 45), (45, 12), (80, 80)):
        place = map_place(page, aligned=aligned, scored=scored, num_residues=80)
        page.point_at("#pae canvas", *place)
        found = re.search(
            r"Aligned [A-Z](\d+), scored [A-Z](\d+): ([\d.]+) Å", page.text("#marked")
        )
        assert (int(found[1]), int(found[2])) == (aligned, scored)
        assert float(found[3]) == pytest.approx(float(matrix[aligned - 1, scored - 1]), abs=0.0501)


def test_the_residues_under_the_mouse_are_marked_in_view_and_plots(page):
    page.select("chain60")
    page.wait_for_view()
    before = count_of_color(page.pixels("#view canvas"), POINTED)
    place = map_place(page, aligned=10, scored=60, num_residues=80)
    page.point_at("#pae canvas", *place)
    page.next_frame()
    assert count_of_color(page.pixels("#view canvas"), POINTED) > before + 10
    for plot in ("#plddt-plot", "#depth-plot"):
        pixels = page.pixels(plot)
        step = (pixels.shape[1] - MARGIN - 8) / 80
        row = pixels[TOP + 4 : -30].astype(int)
        for residue, is_marked in ((10, True), (60, True), (30, False)):
            red, green, blue = row[:, round(MARGIN + (residue - 0.5) * step)].mean(axis=0)
            assert (red > green + 60 and blue > green + 30) == is_marked, (plot, residue)


def test_a_range_is_selected_by_dragging(page):
    page.select("chain60")
    page.wait_for_view()
    mouse, box = page.page.mouse, page.page.locator("#plddt-plot").bounding_box()
    step = (box["width"] - MARGIN - 8) / 80
    for residue, act in ((21, mouse.down), (40, mouse.up)):
        mouse.move(box["x"] + MARGIN + (residue - 0.5) * step, box["y"] + 40)
        act()
    assert "Selected: residues 21–40" in page.text("#marked")
    page.page.keyboard.press("Escape")
    assert "Selected" not in page.text("#marked")


def test_the_arrow_keys_move_the_marked_pair(page):
    page.select("chain60")
    page.page.locator("#pae canvas").focus()
    page.page.mouse.move(0, 0)
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Shift+ArrowRight"):
        page.page.keyboard.press(key)
    found = re.search(r"Aligned .(\d+), scored .(\d+): .*scored (\S+),", page.text("#marked"))
    assert found.groups() == ("3", "3", "2–3")
    page.page.keyboard.press("Escape")


def test_columns_sort_in_both_directions(page):
    column = page.page.get_by_role("button", name="Residues")
    column.click()
    # 117 residues is the longest; the two that failed have three.
    assert page.names()[:3] == ["chain97", "chain96", "chain95"]
    column.press("Enter")
    assert page.names()[2:4] == ["chain0", "chain1"]
    heading = page.page.locator("#chain-table th[aria-sort]")
    assert heading.get_attribute("aria-sort") == "ascending"
    page.page.get_by_role("button", name="Mean pLDDT").click()
    # Chains without a value are last in both directions.
    assert set(page.names()[-2:]) == {"broken", MARKUP}
    page.page.get_by_role("button", name="Mean pLDDT").click()
    assert set(page.names()[-2:]) == {"broken", MARKUP}
    page.page.get_by_role("button", name="Chain", exact=True).click()
    assert page.names()[:4] == ["broken", "chain0", "chain1", "chain2"]


def test_the_filter_leaves_the_chains_with_its_text(page):
    field = page.page.get_by_label("Filter")
    field.fill("chain9")
    assert sorted(page.names()) == ["chain9", *(f"chain9{k}" for k in range(8))]
    assert page.text("#row-count") == "9 of 100 chains"
    field.fill("cut SHORT")
    assert sorted(page.names()) == ["broken", MARKUP]
    field.fill("")
    assert len(page.names()) == 100


def test_other_weights_of_a_chain_can_be_selected(page):
    page.select("chain61")
    page.page.get_by_label("Weights").select_option("2: w_other")
    assert "These weights have no TM-score head" in page.text("#pae")
    assert "2 of 2" in page.text("#chain-facts")
    page.page.get_by_label("Weights").select_option("1: w_ptm")
    assert page.page.locator("#pae canvas").is_visible()


def test_relaxation_and_true_structure(page):
    page.select("chain62")
    page.page.wait_for_function("document.querySelector('#chain-title').textContent == 'chain62'")
    facts = page.text("#chain-facts")
    for text in ("8 → 0", "3 → 1", "0.40 Å", "1abc.cif, chain B", "0.905", "2.35 Å"):
        assert text in facts
    assert page.page.locator("#structure").is_visible()
    assert page.page.locator("#structure option").all_inner_texts() == ["relaxed", "as predicted"]
    row = page.page.locator("#chain-table tr[aria-selected]").inner_text()
    assert "0.812" in row and "0.905" in row


def test_the_last_of_several_quick_choices_is_shown(page):
    for number in (10, 20, 30):
        page.select(f"chain{number}")
    page.page.wait_for_function("document.querySelector('#chain-title').innerText === 'chain30'")
    page.wait_for_view()
    assert page.text("#chain-title") == "chain30"
    assert page.page.locator("#view canvas").count() == 1


def test_a_failed_chain_shows_its_reason_and_names_are_text(page):
    page.page.get_by_role("button", name=MARKUP).click()
    page.page.wait_for_function("document.title && document.querySelector('#results').hidden")
    assert page.text("#chain-title") == MARKUP
    assert "Failed (features): the alignment is cut short" in page.text("#chain-status")
    assert page.page.locator("main b").count() == 0


def test_without_webgl_the_page_shows_the_picture(browser, results):
    with open_page(browser, results / "report.html", script=NO_WEBGL) as opened:
        opened.page.wait_for_selector("#view[data-state=picture] img")
        assert "This browser has no WebGL" in opened.text("#view")
        width = "() => document.querySelector('#view img').naturalWidth"
        assert opened.page.evaluate(width) == 40
        # The map does not need WebGL.
        opened.point_at("#pae canvas", 100, 100)
        assert "Å" in opened.text("#marked")
        assert opened.problems == []


def test_without_the_viewer_chains_are_loaded_from_files(browser, tmp_path, monkeypatch):
    chains = [write_chain(tmp_path, f"c#{k}", f"c+{k}", number=k, num_residues=600) for k in (0, 1)]
    write_results(tmp_path, chains)
    monkeypatch.setattr(writing, "read_viewer", lambda: None)
    monkeypatch.setattr(writing, "MAX_EMBEDDED_CHARACTERS", 0)
    path = write_report(tmp_path)
    with open_page(browser, path, color_scheme="dark") as opened:
        opened.page.wait_for_selector("#view[data-state=picture] img")
        assert "pip install ipymolstar" in opened.text("#view")
        opened.select("c#1")
        opened.page.wait_for_function("document.querySelector('#chain-title').textContent == 'c#1'")
        opened.point_at("#pae canvas", *map_place(opened, aligned=1, scored=599, num_residues=600))
        # A pixel of more than 512 residues is the mean of a block.
        mean = pae_matrix(600, 1)[0:2, 598:600].astype(float).mean()
        assert f"Aligned 1–2, scored 599–600: mean {mean:.1f} Å" in opened.text("#marked")
        (path.parent / "report_files" / "c+0.js").unlink()
        opened.page.reload()
        opened.select("c#0")
        opened.page.wait_for_selector("#chain-status:visible")
        assert "c+0.js cannot be loaded" in opened.text("#chain-status")


def test_the_page_of_a_model(browser, shared, tmp_path):
    """The output of the program itself: files, records and summary as they are."""
    if viewer.read_viewer() is None:
        pytest.skip("ipymolstar is not installed")
    alignment, out = tmp_path / "q.a3m", tmp_path / "out"
    alignment.write_text(f">q\n{SEQUENCE}\n>r\n{SEQUENCE[:-4]}AAAA\n")
    weights = shared / "golden" / "weights" / "model_1_ptm_tiny.npz"
    arguments = [alignment, "--weights", weights, "--out", out, "--device", "cpu"]
    arguments += ["--model-config", shared / "golden" / "model_tiny" / "config.json"]
    assert predict_main([str(x) for x in [*arguments, "--recycling", 1]]) == 0
    (model,) = json.loads((out / "q.json").read_text())["models"]
    matrix = np.load(out / model["files"]["pae"])["pae"]
    with open_page(browser, out / "report.html") as opened:
        opened.wait_for_view()
        pixels = opened.pixels("#view canvas")
        assert (pixels != pixels[2, 2]).any(axis=-1).sum() > 100
        opened.point_at("#pae canvas", *map_place(opened, aligned=3, scored=17, num_residues=18))
        assert f"Aligned T3, scored S17: {float(matrix[2, 16]):.1f} Å" in opened.text("#marked")
        assert opened.problems == []
        assert {url.partition(":")[0] for url in opened.requests} <= {"file", "blob", "data"}
