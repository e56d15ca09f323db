// The table of all chains: sorted by a click on a heading, filtered by the text of a field.

/** Bands of the pLDDT as in the AlphaFold database: lowest value, name, color. */
const PLDDT_BANDS = [
  { lowest: 90, name: "Very high", limits: "> 90", color: "#0053d6" },
  { lowest: 70, name: "Confident", limits: "70–90", color: "#65cbf3" },
  { lowest: 50, name: "Low", limits: "50–70", color: "#ffdb13" },
  { lowest: 0, name: "Very low", limits: "< 50", color: "#ff7d45" },
];

/** Return the band of a pLDDT. */
function plddtBand(value) {
  return PLDDT_BANDS.find((band) => value >= band.lowest);
}

/** Return a pLDDT as text with a colored bar. */
function plddtBar(value) {
  const bar = element("span", { className: "bar", "aria-hidden": "true" });
  const filled = element("span", {});
  filled.style.width = `${value}%`;
  filled.style.background = plddtBand(value).color;
  bar.append(filled);
  return element("span", { className: "with-bar" }, bar, formatNumber(value, 1));
}

/**
 * Columns: the key of the row to sort by, the heading, and the content of the cell. `first` is the
 * order after the first click, descending if not given. A narrow window has no space for details.
 */
const COLUMNS = [
  { key: "name", title: "Chain", first: "ascending" },
  { key: "num_residues", title: "Residues", cell: (row) => formatNumber(row.num_residues) },
  {
    key: "num_alignment_rows",
    title: "Alignment rows",
    isDetail: true,
    cell: (row) => formatNumber(row.num_alignment_rows),
  },
  {
    key: "num_templates",
    title: "Templates",
    isDetail: true,
    cell: (row) => formatNumber(row.num_templates),
  },
  { key: "mean_plddt", title: "Mean pLDDT", cell: (row) => plddtBar(row.mean_plddt) },
  { key: "ptm", title: "pTM", cell: (row) => formatNumber(row.ptm, 3) },
  {
    key: "lddt_ca",
    title: "lDDT-Cα",
    isOptional: true,
    cell: (row) => formatNumber(row.lddt_ca, 3),
  },
  {
    key: "tm_score",
    title: "TM-score",
    isOptional: true,
    cell: (row) => formatNumber(row.tm_score, 3),
  },
  {
    key: "seconds",
    title: "Seconds",
    isDetail: true,
    cell: (row) => formatNumber(row.seconds, 1),
  },
  {
    key: "peak_bytes",
    title: "Peak memory",
    isDetail: true,
    cell: (row) => formatBytes(row.peak_bytes),
  },
  {
    key: "planned_bytes",
    title: "Planned memory",
    isDetail: true,
    cell: (row) => formatBytes(row.planned_bytes),
  },
];
const FIRST_SCORE = "mean_plddt";
/** Compares names: chain2 is before chain10. */
const NAME_ORDER = new Intl.Collator("en", { numeric: true });

/** Return the class of the cells of a column. */
function classOf(column) {
  return `${column.cell ? "number" : ""} ${column.isDetail ? "detail" : ""}`.trim();
}

/** Shows the rows, and calls a function with the row that the reader selects. */
class ChainTable {
  constructor(rows, onSelect) {
    this.rows = rows;
    this.onSelect = onSelect;
    // A column that no chain has values for is left out.
    this.columns = COLUMNS.filter(
      (column) => !column.isOptional || rows.some((row) => row[column.key] !== null));
    this.order = { key: null, direction: "ascending" };
    this.lines = new Map(rows.map((row) => [row.stem, this.line(row)]));
    this.body = document.querySelector("#chain-table tbody");
    this.addHeadings();
    byId("filter").addEventListener("input", () => this.show());
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("keydown", (event) => this.pressed(event));
    this.show();
  }

  /** Mark the line of a chain and scroll to it. */
  mark(stem) {
    for (const [other, line] of this.lines) {
      if (other === stem) line.setAttribute("aria-selected", "true");
      else line.removeAttribute("aria-selected");
    }
    this.lines.get(stem).scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  addHeadings() {
    this.headings = this.columns.map((column) => {
      const button = element("button", { type: "button", textContent: column.title });
      button.onclick = () => this.sort(column);
      return element("th", { scope: "col", className: classOf(column) }, button);
    });
    document.querySelector("#chain-table thead").append(element("tr", {}, ...this.headings));
  }

  line(row) {
    const name = element("button", { type: "button", className: "name", textContent: row.name });
    const cells = [element("th", { scope: "row", title: row.name }, name)];
    for (const column of this.columns.slice(1)) {
      if (row.error !== null && column.key === FIRST_SCORE) {
        const rest = this.columns.length - cells.length;
        cells.push(element("td", { colSpan: rest, className: "failure" },
          element("span", { title: row.error, textContent: `Failed: ${row.error}` })));
        break;
      }
      const content = row[column.key] === null ? "–" : column.cell(row);
      cells.push(element("td", { className: classOf(column) }, content));
    }
    const line = element("tr", {}, ...cells);
    line.dataset.stem = row.stem;
    return line;
  }

  /** Sort by a column; by the same column again: in the other direction. */
  sort(column) {
    const opposite = { ascending: "descending", descending: "ascending" };
    const direction = this.order.key === column.key
      ? opposite[this.order.direction]
      : column.first ?? "descending";
    this.order = { key: column.key, direction };
    this.headings.forEach((heading, index) => {
      if (this.columns[index].key === column.key) heading.setAttribute("aria-sort", direction);
      else heading.removeAttribute("aria-sort");
    });
    this.show();
  }

  /** Show the lines that the filter leaves, in the current order. */
  show() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = this.rows.filter((row) => {
      const text = `${row.name} ${row.stem} ${row.error ?? ""}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (this.order.key !== null) rows.sort((one, other) => this.compare(one, other));
    this.body.replaceChildren(...rows.map((row) => this.lines.get(row.stem)));
    byId("row-count").textContent = rows.length === this.rows.length
      ? formatCount(rows.length, "chain")
      : `${formatNumber(rows.length)} of ${formatCount(this.rows.length, "chain")}`;
  }

  /** Compare two rows. Rows without a value come last in both directions. */
  compare(one, other) {
    const [a, b] = [one[this.order.key], other[this.order.key]];
    if (a === null || b === null) return (a === null) - (b === null);
    const difference = typeof a === "string" ? NAME_ORDER.compare(a, b) : a - b;
    return this.order.direction === "ascending" ? difference : -difference;
  }

  clicked(event) {
    const line = event.target.closest("tr");
    if (line !== null) this.onSelect(line.dataset.stem);
  }

  /** The arrow keys go to the name in the next or previous line. */
  pressed(event) {
    const line = event.target.closest("tr");
    const next = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling };
    if (!next[event.key]) return;
    event.preventDefault();
    next[event.key].querySelector("button").focus();
  }
}
