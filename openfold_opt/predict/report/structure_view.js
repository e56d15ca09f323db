// The 3-D view. Mol* comes as one module that has no function for marking residues, so this file
// takes the plugin object from the state that Mol* passes to an extension of its loader.

const LOAD_SECONDS = 60;
/** Radius of the camera before Mol* has directed it at a structure, angstrom. */
const NO_RADIUS = 0.01;

/** Return the context that 3-D drawings need; null if this browser has none. */
function webGLContext() {
  const canvas = document.createElement("canvas");
  return canvas.getContext("webgl2") ?? canvas.getContext("webgl");
}

/** Return whether the processor draws in place of a GPU, which is slow. */
function isSoftwareRenderer() {
  const context = webGLContext();
  const extension = context.getExtension("WEBGL_debug_renderer_info");
  const name = extension === null ? "" : context.getParameter(extension.UNMASKED_RENDERER_WEBGL);
  return /swiftshader|llvmpipe|software/i.test(name);
}

/** Return ranges of residues with the same band of the pLDDT, as selectors of MolViewSpec. */
function bandSelectors(plddt) {
  const selectors = new Map(PLDDT_BANDS.map((band) => [band, []]));
  let start = 0;
  for (let index = 1; index <= plddt.length; index++) {
    const band = plddtBand(plddt[start]);
    if (index < plddt.length && plddtBand(plddt[index]) === band) continue;
    selectors.get(band).push({ beg_label_seq_id: start + 1, end_label_seq_id: index });
    start = index;
  }
  return selectors;
}

/** Return the MolViewSpec of a structure: a cartoon with the colors of the pLDDT. */
function viewSpec(url, plddt, background) {
  const node = (kind, params, children = []) => ({ kind, params, children });
  const colors = [...bandSelectors(plddt)]
    .filter(([, selector]) => selector.length > 0)
    .map(([band, selector]) => node("color", { color: band.color, selector }));
  const cartoon = node("representation", { type: "cartoon" }, colors);
  const structure = node("structure", { type: "model" },
    [node("component", { selector: "polymer" }, [cartoon])]);
  const file = node("download", { url }, [node("parse", { format: "mmcif" }, [structure])]);
  const canvas = node("canvas", { background_color: background });
  return {
    kind: "single",
    metadata: { version: "1.4", timestamp: new Date().toISOString() },
    root: { kind: "root", children: [canvas, file] },
  };
}

/** Takes the place of the notebook's model that the module expects. */
class ViewerModel {
  constructor(values) {
    this.values = values;
    this.handlers = new Map();
  }

  get(name) {
    return this.values[name];
  }

  on(event, handler) {
    this.handlers.set(event, handler);
  }

  set(name, value) {
    this.values[name] = value;
    this.handlers.get(`change:${name}`)?.();
  }
}

/** Shows one structure, marks residues in it, and reports the residue under the pointer. */
class StructureView {
  /** container: the element of the view. moduleText: the JavaScript of Mol*, compressed. */
  constructor(container, moduleText, marking) {
    this.container = container;
    this.moduleText = moduleText;
    this.marking = marking;
    this.plugin = null;
    this.structure = null;
    this.representation = null;
    this.url = null;
    this.turn = Promise.resolve();
    this.isSlow = isSoftwareRenderer();
    marking.addEventListener("change", () => this.showMarks());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.setColors());
  }

  /**
   * Show a structure after the previous one, unless another one is requested in the meantime.
   * Throws an Error if it is not shown in time. text: mmCIF.
   */
  show(text, plddt) {
    this.cancel();
    this.latest = text;
    const shown = this.turn.then(() => (
      this.latest === text ? this.showNow(text, plddt) : undefined));
    this.turn = shown.catch(() => undefined);
    return shown;
  }

  /** Hide the current structure, because another one is loaded. */
  cancel() {
    this.latest = null;
    this.container.dataset.state = "loading";
  }

  async showNow(text, plddt) {
    const previous = this.structure;
    this.structure = null;
    if (this.url !== null) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(new Blob([text]));
    const spec = JSON.stringify(viewSpec(this.url, plddt, styleValue("--view")));
    if (this.model === undefined) {
      await this.start(spec);
    } else {
      this.plugin.canvas3d.camera.setState({ radius: NO_RADIUS }, 0);
      this.model.set("msvj_data", spec);
    }
    this.structure = await this.loaded(previous);
    this.setColors();
    this.plugin.managers.camera.orientAxes?.(undefined, 0);
    this.showMarks();
    if (this.latest === text) this.container.dataset.state = "ready";
  }

  /** Load Mol* and let it show the first structure. */
  async start(spec) {
    const script = await decompress(this.moduleText);
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const viewer = (await import(url)).default;
    URL.revokeObjectURL(url);
    const extension = {
      id: "report",
      description: "finds the plugin and the drawn structure",
      createExtensionContext: () => ({}),
      action: (target, node) => {
        this.plugin = target.selector.state.globalContext;
        if (node.kind === "representation") this.representation = target.selector.ref;
      },
    };
    this.model = new ViewerModel({
      msvj_data: spec,
      width: "100%",
      height: "100%",
      viewer_options: {
        extensions: ["mvs"],
        layoutIsExpanded: false,
        layoutShowControls: false,
        viewportShowControls: false,
        viewportShowSettings: false,
        viewportShowSelectionMode: false,
        viewportShowAnimation: false,
        viewportShowTrajectoryControls: false,
      },
      mvs_load_options: { replaceExisting: true, extensions: [extension] },
    });
    viewer.render({ model: this.model, el: this.container });
  }

  /**
   * Wait until another structure than the previous one is drawn and the camera shows it, and return
   * it.
   */
  async loaded(previous) {
    const end = performance.now() + 1000 * LOAD_SECONDS;
    while (performance.now() < end) {
      const cell = this.plugin?.state.data.cells.get(this.representation);
      const structure = cell?.obj?.data.sourceData ?? null;
      const isShown = this.plugin?.canvas3d?.camera.state.radius > NO_RADIUS;
      if (structure !== null && structure !== previous && isShown) return structure;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    throw new Error(`the structure was not drawn within ${LOAD_SECONDS} s`);
  }

  /** Set the colors that do not belong to the structure, and listen to the pointer once. */
  setColors() {
    if (this.plugin === null) return;
    const number = (name) => parseInt(styleValue(name).slice(1), 16);
    const [pointed, selected] = [number("--pointed"), number("--selected")];
    this.plugin.canvas3d.setProps({
      renderer: {
        backgroundColor: number("--view"),
        highlightColor: pointed,
        selectColor: selected,
      },
      marking: { highlightEdgeColor: pointed, selectEdgeColor: selected },
      // Several frames for smooth edges take too long without a GPU.
      multiSample: { mode: this.isSlow ? "off" : "temporal" },
      camera: { helper: { axes: { name: "off", params: {} } } },
    });
    this.hover ??= this.plugin.behaviors.interaction.hover.subscribe(
      ({ current }) => this.pointed(current.loci));
  }

  /** Report the residue under the pointer to the other panels. */
  pointed(loci) {
    if (this.marking.source !== "view" && loci.kind === "empty-loci") return;
    if (!this.container.matches(":hover")) return;
    const residue = loci.kind === "element-loci" ? firstResidue(loci) : null;
    this.marking.point(residue === null ? null : [residue, residue], null, "view");
  }

  /** Mark what is pointed at and what is selected. */
  showMarks() {
    if (this.structure === null) return;
    const { lociHighlights, lociSelects } = this.plugin.managers.interactivity;
    if (this.marking.source !== "view") {
      const ranges = this.marking.pointedRanges();
      if (ranges.length === 0) lociHighlights.clearHighlights();
      else lociHighlights.highlightOnly({ loci: this.loci(ranges) }, false);
    }
    lociSelects.deselectAll();
    if (this.marking.selected.length > 0) {
      lociSelects.select({ loci: this.loci(this.marking.selected) }, false);
    }
  }

  /** Return the atoms of ranges of residues in the form of Mol*. */
  loci(ranges) {
    const elements = [];
    for (const unit of this.structure.units) {
      const numbers = unit.model.atomicHierarchy.residues.label_seq_id;
      const indices = [];
      for (let index = 0; index < unit.elements.length; index++) {
        const residue = numbers.value(unit.residueIndex[unit.elements[index]]);
        if (ranges.some(([first, last]) => first <= residue && residue <= last)) {
          indices.push(index);
        }
      }
      if (indices.length > 0) elements.push({ unit, indices: Int32Array.from(indices) });
    }
    return { kind: "element-loci", structure: this.structure, elements };
  }
}

/** Return the number of the first residue of atoms in the form of Mol*; null if there is none. */
function firstResidue(loci) {
  if (loci.elements.length === 0) return null;
  const { unit, indices } = loci.elements[0];
  // A set of indices is a sorted array, or the two 32-bit halves of a number: first and end.
  const first = typeof indices === "number"
    ? new Int32Array(Float64Array.of(indices).buffer)[0]
    : indices[0];
  const residue = unit.residueIndex[unit.elements[first]];
  return unit.model.atomicHierarchy.residues.label_seq_id.value(residue);
}
