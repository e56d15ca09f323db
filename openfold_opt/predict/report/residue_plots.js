// Plots along the chain: the pLDDT in the colors of its bands, and the depth of the alignment. The
// pointer or the arrow keys mark a residue; dragging (or the shift key) selects a range.

const PLOT_MARGIN = { left: 46, bottom: 22, top: 8, right: 8 };
const PLOT_HEIGHT = 130;

/** Draws values per residue on a canvas and marks residues in it. */
class ResiduePlot {
  /**
   * canvas: the element to draw on.
   * label: what the plot shows, for screen readers.
   */
  constructor(canvas, label, marking) {
    this.canvas = canvas;
    this.marking = marking;
    this.values = null;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${label}. Arrow keys move the marked residue, with Shift ` +
      "they select a range, Escape clears the selection.");
    canvas.setAttribute("aria-describedby", "marked");
    this.redraw = oncePerFrame(() => this.draw());
    this.addListeners();
    marking.addEventListener("change", this.redraw);
    new ResizeObserver(this.redraw).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.redraw);
  }

  /**
   * Show values, one for each residue.
   * maximum: upper end of the axis. colorOf: color of a value. line: other values in the same
   * range, drawn as a line, which may be null.
   */
  show(values, { maximum, colorOf, line = null }) {
    Object.assign(this, { values, maximum, colorOf, line, start: null });
    this.redraw();
  }

  draw() {
    if (this.values === null || this.canvas.clientWidth === 0) return;
    const context = prepareCanvas(this.canvas, PLOT_HEIGHT);
    this.width = this.canvas.clientWidth - PLOT_MARGIN.left - PLOT_MARGIN.right;
    this.height = PLOT_HEIGHT - PLOT_MARGIN.top - PLOT_MARGIN.bottom;
    this.step = this.width / this.values.length;
    context.translate(PLOT_MARGIN.left, PLOT_MARGIN.top);
    this.drawAxes(context);
    this.drawRanges(context, this.marking.selected, styleValue("--selected"), 0.3);
    this.values.forEach((value, index) => {
      context.fillStyle = this.colorOf(value);
      const top = this.placeOf(value);
      // Bars of neighbors overlap by a part of a pixel, so that no gaps show.
      context.fillRect(index * this.step, top, this.step + 0.4, this.height - top);
    });
    if (this.line !== null) this.drawLine(context);
    this.drawRanges(context, this.marking.pointedRanges(), styleValue("--pointed"), 0.75);
  }

  placeOf(value) {
    return this.height * (1 - value / this.maximum);
  }

  drawAxes(context) {
    context.strokeStyle = styleValue("--line");
    context.fillStyle = styleValue("--quiet");
    context.lineWidth = 1;
    context.textAlign = "right";
    for (const tick of [0, ...axisTicks(this.maximum, 5)]) {
      const place = Math.round(this.placeOf(tick)) + 0.5;
      context.beginPath();
      context.moveTo(0, place);
      context.lineTo(this.width, place);
      context.stroke();
      context.fillText(formatNumber(tick), -6, place + 4);
    }
    context.textAlign = "center";
    for (const tick of axisTicks(this.values.length, this.width / 70)) {
      context.fillText(formatNumber(tick), (tick - 0.5) * this.step, this.height + 16);
    }
  }

  drawLine(context) {
    context.strokeStyle = styleValue("--text");
    context.lineWidth = 1.5;
    context.beginPath();
    let isDrawing = false;
    this.line.forEach((value, index) => {
      const x = (index + 0.5) * this.step;
      if (value !== null && isDrawing) context.lineTo(x, this.placeOf(value));
      else if (value !== null) context.moveTo(x, this.placeOf(value));
      isDrawing = value !== null;
    });
    context.stroke();
  }

  drawRanges(context, ranges, color, alpha) {
    context.fillStyle = color;
    context.globalAlpha = alpha;
    for (const [first, last] of ranges) {
      const width = Math.max((last - first + 1) * this.step, 1.5);
      context.fillRect((first - 1) * this.step, 0, width, this.height);
    }
    context.globalAlpha = 1;
  }

  addListeners() {
    const canvas = this.canvas;
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerleave", () => this.marking.point(null, null, "plot"));
    canvas.addEventListener("pointerdown", (event) => {
      this.start = this.residueAt(event);
      if (this.start !== null && event.pointerType === "mouse") {
        canvas.setPointerCapture(event.pointerId);
      }
      this.moved(event);
    });
    canvas.addEventListener("pointerup", (event) => {
      const residue = this.residueAt(event);
      if (this.start !== null && residue !== null) this.selectTo(residue);
      this.start = null;
    });
    canvas.addEventListener("pointercancel", () => { this.start = null; });
    canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** Return the number of the residue under the pointer; null outside of the plot. */
  residueAt(event) {
    const x = event.offsetX - PLOT_MARGIN.left;
    return x >= 0 && x < this.width ? Math.floor(x / this.step) + 1 : null;
  }

  moved(event) {
    const residue = this.residueAt(event);
    this.marking.point(residue === null ? null : [residue, residue], null, "plot");
    const isDragging = this.start !== null && residue !== null && residue !== this.start;
    if (isDragging) this.selectTo(residue);
  }

  selectTo(residue) {
    this.marking.select([rangeBetween(this.start, residue)], "plot");
  }

  pressed(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") {
      this.start = null;
      this.marking.clear();
    }
    if (move === undefined) return;
    event.preventDefault();
    const current = this.marking.pointed.scored?.[0] ?? 1;
    if (event.shiftKey) this.start ??= current;
    else this.start = null;
    const residue = Math.min(Math.max(current + move, 1), this.values.length);
    this.marking.point([residue, residue], null, "plot");
    if (event.shiftKey) this.selectTo(residue);
  }
}
