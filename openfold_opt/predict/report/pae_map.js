// The PAE as a map: row i is aligned, column j is scored. The pointer, a finger or the arrow keys
// mark a pair of residues; dragging (or the shift key) selects two ranges.

const MAP_MARGIN = { left: 46, bottom: 40, top: 6, right: 8 };
const SCALE_HEIGHT = 46;

/** Return the color of a fraction of the scale, 0..1: dark green is a small error. */
function paeColor(fraction) {
  const stops = [[0, 68, 27], [35, 139, 69], [116, 196, 118], [199, 233, 192], [255, 255, 255]];
  const position = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(position), stops.length - 2);
  const share = position - index;
  return stops[index].map((low, k) => Math.round(low + share * (stops[index + 1][k] - low)));
}

/** Draws the map of one matrix on a canvas and marks residues in it. */
class PaeMap {
  constructor(container, marking) {
    this.container = container;
    this.marking = marking;
    this.matrix = null;
    this.canvas = element("canvas", { tabIndex: 0, "aria-describedby": "marked" });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label",
      "Map of the predicted aligned error. Arrow keys move the marked pair of residues, with " +
      "Shift they select ranges, Escape clears the selection.");
    this.redraw = oncePerFrame(() => this.draw());
    this.addListeners();
    marking.addEventListener("change", this.redraw);
    new ResizeObserver(this.redraw).observe(container);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.redraw);
  }

  /** Show a matrix (PaeMatrix), or a text if there is none. */
  show(matrix, reason) {
    this.matrix = matrix;
    this.start = null;
    this.container.replaceChildren(
      matrix === null ? element("p", { className: "empty", textContent: reason }) : this.canvas);
    if (matrix !== null) {
      this.image = this.paint();
      this.redraw();
    }
  }

  /** Return a canvas with one pixel for each pixel of the matrix. */
  paint() {
    const size = this.matrix.size;
    const canvas = element("canvas", { width: size, height: size });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(size, size);
    const colors = Array.from({ length: 256 }, (_, index) => paeColor(index / 255));
    for (let row = 0, place = 0; row < size; row++) {
      for (let column = 0; column < size; column++, place += 4) {
        const share = Math.min(this.matrix.pixel(row, column) / this.matrix.maxPae, 1);
        pixels.data.set(colors[Math.round(255 * share)], place);
        pixels.data[place + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  draw() {
    if (this.matrix === null || this.container.clientWidth === 0) return;
    this.side = this.container.clientWidth - MAP_MARGIN.left - MAP_MARGIN.right;
    const height = this.side + MAP_MARGIN.top + MAP_MARGIN.bottom + SCALE_HEIGHT;
    const context = prepareCanvas(this.canvas, height);
    context.translate(MAP_MARGIN.left, MAP_MARGIN.top);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image, 0, 0, this.side, this.side);
    context.strokeStyle = styleValue("--line");
    context.strokeRect(-0.5, -0.5, this.side + 1, this.side + 1);
    this.drawAxes(context);
    this.drawScale(context);
    this.drawMarks(context);
  }

  drawAxes(context) {
    context.fillStyle = styleValue("--quiet");
    const step = this.side / this.matrix.numResidues;
    for (const tick of axisTicks(this.matrix.numResidues, this.side / 60)) {
      const place = (tick - 0.5) * step;
      context.textAlign = "center";
      context.fillText(tick, place, this.side + 15);
      context.textAlign = "right";
      context.fillText(tick, -6, place + 4);
    }
    context.textAlign = "center";
    context.fillText("Scored residue", this.side / 2, this.side + 32);
    context.save();
    context.translate(-MAP_MARGIN.left + 12, this.side / 2);
    context.rotate(-Math.PI / 2);
    context.fillText("Aligned residue", 0, 0);
    context.restore();
  }

  drawScale(context) {
    const top = this.side + MAP_MARGIN.bottom + 6;
    for (let x = 0; x < this.side; x++) {
      context.fillStyle = `rgb(${paeColor(x / this.side)})`;
      context.fillRect(x, top, 1, 10);
    }
    context.strokeRect(-0.5, top - 0.5, this.side + 1, 11);
    context.fillStyle = styleValue("--quiet");
    context.textAlign = "left";
    context.fillText("0 Å", 0, top + 24);
    context.textAlign = "right";
    context.fillText(`${formatNumber(this.matrix.maxPae, 1)} Å`, this.side, top + 24);
    context.textAlign = "center";
    context.fillText("Expected position error", this.side / 2, top + 24);
  }

  /** Draw the selected ranges and the lines of the marked residues. */
  drawMarks(context) {
    const step = this.side / this.matrix.numResidues;
    const span = ([first, last]) => [(first - 1) * step, Math.max((last - first + 1) * step, 1)];
    const [rows, columns = rows] = this.marking.selected;
    if (rows !== undefined) {
      const [y, height] = span(rows);
      const [x, width] = span(columns);
      context.lineWidth = 2;
      context.strokeStyle = styleValue("--selected");
      context.strokeRect(x, y, width, height);
      context.lineWidth = 1;
    }
    const { aligned, scored } = this.marking.pointed;
    context.fillStyle = styleValue("--pointed");
    context.globalAlpha = 0.75;
    if (aligned ?? scored) {
      const [y, height] = span(aligned ?? scored);
      context.fillRect(0, y, this.side, height);
    }
    if (scored) {
      const [x, width] = span(scored);
      context.fillRect(x, 0, width, this.side);
    }
    context.globalAlpha = 1;
  }

  addListeners() {
    const canvas = this.canvas;
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerleave", () => this.marking.point(null, null, "pae"));
    canvas.addEventListener("pointerdown", (event) => {
      this.start = this.pixelAt(event);
      if (this.start !== null && event.pointerType === "mouse") {
        canvas.setPointerCapture(event.pointerId);
      }
      this.moved(event);
    });
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", () => { this.start = null; });
    canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** Return row and column of the pixel under the pointer; null outside of the map. */
  pixelAt(event) {
    const x = event.offsetX - MAP_MARGIN.left;
    const y = event.offsetY - MAP_MARGIN.top;
    if (!(x >= 0 && y >= 0 && x < this.side && y < this.side)) return null;
    const residue = (place) => Math.floor(place / this.side * this.matrix.numResidues) + 1;
    return [this.matrix.pixelOf(residue(y)), this.matrix.pixelOf(residue(x))];
  }

  moved(event) {
    const pixel = this.pixelAt(event);
    if (pixel === null) {
      if (this.start === null) this.marking.point(null, null, "pae");
      return;
    }
    this.pointAt(pixel);
    if (this.start !== null && String(pixel) !== String(this.start)) this.selectTo(pixel);
  }

  released(event) {
    const pixel = this.pixelAt(event);
    if (this.start !== null && pixel !== null) this.selectTo(pixel);
    this.start = null;
  }

  pointAt([row, column]) {
    this.marking.point(this.matrix.residuesOf(column), this.matrix.residuesOf(row), "pae");
  }

  /** Select the ranges between the pixel where the drag started and another one. */
  selectTo(pixel) {
    const ranges = [0, 1].map((axis) => {
      const [first, last] = rangeBetween(this.start[axis], pixel[axis]);
      return [this.matrix.residuesOf(first)[0], this.matrix.residuesOf(last)[1]];
    });
    this.marking.select(ranges, "pae");
  }

  pressed(event) {
    const moves = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    };
    if (event.key === "Escape") {
      this.start = null;
      this.marking.clear();
    }
    if (!(event.key in moves)) return;
    event.preventDefault();
    const { aligned, scored } = this.marking.pointed;
    const current = [aligned ?? [1, 1], scored ?? [1, 1]].map(([first]) =>
      this.matrix.pixelOf(first));
    if (event.shiftKey) this.start ??= current;
    else this.start = null;
    const pixel = current.map((value, axis) =>
      Math.min(Math.max(value + moves[event.key][axis], 0), this.matrix.size - 1));
    this.pointAt(pixel);
    if (event.shiftKey) this.selectTo(pixel);
  }
}
