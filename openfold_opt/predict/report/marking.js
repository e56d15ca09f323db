// The residues that the reader points at and those that are selected. All panels show this state.

/** Ranges are [first, last] with the numbers of residues, which start at 1. */
class Marking extends EventTarget {
  constructor() {
    super();
    this.pointed = { aligned: null, scored: null };
    this.selected = [];
    this.source = null;
  }

  /**
   * Point at ranges of residues, or at nothing (null). A plot has only scored residues.
   * source: the panel that the pointer is over.
   */
  point(scored, aligned = null, source = null) {
    this.pointed = { aligned, scored };
    this.notify(source);
  }

  /** Select ranges: one, or the aligned and the scored residues. */
  select(ranges, source = null) {
    this.selected = ranges;
    this.notify(source);
  }

  /** Forget everything, for another chain. */
  clear() {
    this.pointed = { aligned: null, scored: null };
    this.select([]);
  }

  /** Return all ranges that the reader points at. */
  pointedRanges() {
    return [this.pointed.aligned, this.pointed.scored].filter((range) => range !== null);
  }

  notify(source) {
    this.source = source;
    this.dispatchEvent(new Event("change"));
  }
}

/** Return a range as text: 12, or 12–40. */
function formatRange([first, last]) {
  return first === last ? formatNumber(first) : `${formatNumber(first)}–${formatNumber(last)}`;
}

/** Return the range between two residues in any order. */
function rangeBetween(one, other) {
  return [Math.min(one, other), Math.max(one, other)];
}

/** Size a canvas to its width on the page, and return its context in CSS pixels. */
function prepareCanvas(canvas, height) {
  const width = canvas.clientWidth;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  return context;
}

/** Return a color or another value of the style sheet. */
function styleValue(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return round numbers between 1 and a maximum for an axis with at most this number of labels. */
function axisTicks(maximum, maxLabels) {
  const steps = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 2500, 5000, 10000];
  const step = steps.find((value) => maximum / value <= maxLabels) ?? maximum;
  const ticks = [];
  for (let tick = step; tick <= maximum; tick += step) ticks.push(tick);
  return ticks;
}

/** Call a function once in the next frame, however often it is requested. */
function oncePerFrame(draw) {
  let isRequested = false;
  return () => {
    if (isRequested) return;
    isRequested = true;
    requestAnimationFrame(() => {
      isRequested = false;
      draw();
    });
  };
}
