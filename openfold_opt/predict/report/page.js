// Starts the page: the table, the panels of one chain, and what connects them.

/** Shows one chain at a time. */
class ChainPage {
  constructor(run) {
    this.run = run;
    this.loader = new ChainLoader(run.data_folder);
    this.marking = new Marking();
    this.map = new PaeMap(byId("pae"), this.marking);
    this.plddt = new ResiduePlot(byId("plddt-plot"), "pLDDT of each residue", this.marking);
    this.depth = new ResiduePlot(
      byId("depth-plot"), "Number of alignment rows at each residue", this.marking);
    this.noViewReason = this.findNoViewReason();
    if (this.noViewReason === null) {
      const script = byId("viewer-script");
      this.view = new StructureView(byId("view"), script.textContent, this.marking);
    }
    this.table = new ChainTable(run.rows, (stem) => this.select(stem));
    this.marking.addEventListener("change", () => this.describeMarks());
    byId("model").onchange = () => this.showModel();
    byId("structure").onchange = () => this.showStructure();
    window.addEventListener("hashchange", () => this.showChain(this.stemOfAddress()));
  }

  /** Return why there is no 3-D view; null if there is one. */
  findNoViewReason() {
    if (byId("viewer-script") === null) {
      return "The 3-D view was not installed when this page was made " +
        `(${this.run.install_viewer}).`;
    }
    return webGLContext() !== null ? null : "This browser has no WebGL, which the 3-D view needs.";
  }

  /** The address of the page names the chain, so that links and the back button work. */
  stemOfAddress() {
    const stem = decodeURIComponent(location.hash.slice(1));
    const rows = this.run.rows;
    const row = rows.find((one) => one.stem === stem)
      ?? rows.find((one) => one.status === "finished")
      ?? rows[0];
    return row.stem;
  }

  select(stem) {
    if (this.requested !== stem) location.hash = encodeURIComponent(stem);
  }

  async showChain(stem) {
    this.requested = stem;
    this.view?.cancel();
    this.table.mark(stem);
    let data;
    try {
      data = await this.loader.load(stem);
    } catch (error) {
      this.showFailedLoad(stem, error);
      return;
    }
    // Another chain may have been selected in the meantime.
    if (this.requested !== stem) return;
    this.data = data;
    const record = data.record;
    byId("chain-title").textContent = record.name;
    const models = record.models.map((model, index) =>
      element("option", { value: index, textContent: `${model.rank}: ${model.weights}` }));
    byId("model").replaceChildren(...models);
    byId("model-choice").hidden = models.length < 2;
    this.marking.clear();
    byId("results").hidden = models.length === 0;
    this.showStatus(record.error && `Failed (${record.error.kind}): ${record.error.message}`);
    await this.showModel();
  }

  showFailedLoad(stem, error) {
    this.data = undefined;
    byId("chain-title").textContent = stem;
    byId("results").hidden = true;
    byId("chain-summary").replaceChildren();
    byId("chain-facts").replaceChildren();
    this.showStatus(error.message);
  }

  showStatus(text) {
    byId("chain-status").hidden = !text;
    byId("chain-status").textContent = text ?? "";
  }

  /** Show the result of the selected weights. */
  async showModel() {
    const { record, scores } = this.data;
    const model = record.models[Number(byId("model").value)] ?? null;
    this.model = model;
    byId("chain-summary").replaceChildren(
      ...factList(summaryEntries(record, model, model?.rank === 1 ? scores : null)).children);
    byId("chain-facts").replaceChildren(
      ...chainPanels(this.data, model, this.run.results_link));
    byId("structure-choice").hidden = model?.files.relaxed === undefined;
    if (model === null) return;
    this.showPlots();
    const kinds = { relaxed: "relaxed", structure: "as predicted" };
    byId("structure").replaceChildren(...Object.entries(kinds)
      .filter(([kind]) => this.data.structures[model.files[kind]] !== undefined)
      .map(([kind, text]) => element("option", { value: kind, textContent: text })));
    await this.showStructure();
  }

  showPlots() {
    const { record, scores, pae } = this.data;
    const model = this.model;
    const image = pae[model.files.pae];
    this.matrix = image === undefined
      ? null : new PaeMatrix(image, record.sequence.length, model.max_pae);
    this.map.show(this.matrix, model.ptm === null
      ? "These weights have no TM-score head: they predict no aligned error."
      : "The file of the predicted aligned error is not there.");
    const truth = model.rank === 1 ? scores?.lddt_ca_per_residue ?? null : null;
    byId("plddt-note").textContent = truth === null
      ? "predicted lDDT-Cα, 0–100" : "line: lDDT-Cα to the true structure, times 100";
    this.plddt.show(model.plddt, {
      maximum: 100,
      colorOf: (value) => plddtBand(value).color,
      line: truth && truth.map((value) => (value === null ? null : 100 * value)),
    });
    const depth = record.alignment_depth;
    byId("depth-panel").hidden = depth.length === 0;
    if (depth.length > 0) {
      const color = styleValue("--depth");
      this.depth.show(depth, { maximum: Math.max(...depth, 1), colorOf: () => color });
    }
  }

  /** Show the selected structure in 3-D, or the picture if that is not possible. */
  async showStructure() {
    const [model, stem] = [this.model, this.data.record.stem];
    const text = this.data.structures[model.files[byId("structure").value]];
    if (this.noViewReason !== null) {
      this.showPicture(this.noViewReason);
    } else if (text === undefined) {
      this.showPicture("The file of the structure is not there.");
    } else {
      try {
        await this.view.show(text, model.plddt);
      } catch (error) {
        if (this.data?.record.stem === stem) this.showPicture(`No 3-D view: ${error.message}.`);
      }
    }
  }

  showPicture(reason) {
    const picture = this.data.pictures[this.model.files.picture];
    const view = byId("view");
    view.dataset.state = "picture";
    view.querySelector(".fallback")?.remove();
    // Mol* stays in the view, hidden, for the next chain.
    const fallback = element("section", { className: "fallback" },
      element("p", { className: "empty", textContent: reason }));
    if (picture) {
      const name = this.data.record.name;
      fallback.append(pictureOf(picture, `Picture of the structure of ${name}`));
    }
    view.append(fallback);
  }

  /** Say in words what is marked. */
  describeMarks() {
    const { aligned, scored } = this.marking.pointed;
    const selected = this.marking.selected;
    const parts = [];
    if (aligned !== null && scored !== null) {
      const mean = this.matrix.mean(aligned, scored);
      parts.push(`Aligned ${this.residueText(aligned)}, scored ${this.residueText(scored)}: ` +
        `${this.matrix.block > 1 ? "mean " : ""}${formatNumber(mean, 1)} Å`);
    } else if (scored !== null) {
      const index = scored[0] - 1;
      const depth = this.data.record.alignment_depth[index];
      parts.push(`Residue ${this.residueText(scored)}: pLDDT ` +
        formatNumber(this.model.plddt[index], 1) +
        (depth === undefined ? "" : `, ${formatCount(depth, "alignment row")}`));
    }
    if (selected.length === 1) {
      parts.push(`Selected: residues ${formatRange(selected[0])}`);
    } else if (selected.length === 2) {
      parts.push(`Selected: aligned ${formatRange(selected[0])}, scored ` +
        `${formatRange(selected[1])}, mean ${formatNumber(this.matrix.mean(...selected), 1)} Å`);
    }
    byId("marked").textContent = parts.join(" · ")
      || "Point at a residue in the view, the map or a plot. Drag to select a range.";
  }

  residueText(range) {
    const letter = range[0] === range[1] ? this.data.record.sequence[range[0] - 1] : "";
    return `${letter}${formatRange(range)}`;
  }
}

/** Fill the parts of the page that stay the same, and show the first chain. */
function startPage() {
  const run = readRun();
  byId("run-name").textContent = run.name;
  byId("run-summary").append(...factList(runSummary(run)).children);
  byId("run-facts").append(...runPanels(run));
  byId("legend").append(...PLDDT_BANDS.map((band) => {
    const swatch = element("span", { className: "swatch", "aria-hidden": "true" });
    swatch.style.background = band.color;
    return element("li", {}, swatch, `${band.name} (pLDDT ${band.limits})`);
  }));
  const page = new ChainPage(run);
  page.showChain(page.stemOfAddress());
}

startPage();
