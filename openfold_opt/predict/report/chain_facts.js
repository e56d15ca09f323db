// What a reader should know of a chain besides the drawings: scores, files, templates, warnings.

/** Return a list of names with values; entries with the value null are left out. */
function factList(entries, className = "facts") {
  const list = element("dl", { className });
  for (const [name, value] of entries) {
    if (value === null || value === undefined) continue;
    list.append(element("div", {}, element("dt", { textContent: name }),
      element("dd", {}, value)));
  }
  return list;
}

/** Return a panel with a heading; null if it has no content. */
function panel(title, ...content) {
  const shown = content.filter((part) => part !== null);
  if (shown.length === 0) return null;
  return element("section", { className: "panel" }, element("h3", { textContent: title }), ...shown);
}

/** Return a list of texts; null if there are none. */
function textList(texts, className = "") {
  if (texts.length === 0) return null;
  return element("ul", { className }, ...texts.map((text) => element("li", { textContent: text })));
}

/** Return the scores at the top of a chain. model: the entry of the selected weights, or null. */
function summaryEntries(record, model, scores) {
  return [
    ["Mean pLDDT", model && plddtBar(model.mean_plddt)],
    ["pTM", model && model.ptm !== null ? formatNumber(model.ptm, 3) : null],
    ["lDDT-Cα to the true structure", scores && formatNumber(scores.lddt_ca, 3)],
    ["TM-score", scores && formatNumber(scores.tm_score, 3)],
    ["Residues", record.sequence ? formatNumber(record.sequence.length) : null],
    ["Alignment rows", record.num_alignment_rows && formatNumber(record.num_alignment_rows)],
    ["Templates", model && formatNumber(record.templates.length)],
  ];
}

/** Return links to all files of a chain with their sizes. */
function fileList(record, link, missing) {
  const names = Object.keys(record.file_bytes ?? {});
  const items = [...names, `${record.stem}.json`].map((name) => {
    const size = record.file_bytes?.[name];
    if (missing.includes(name)) return element("li", {}, `${name} (missing)`);
    const anchor = element("a", { href: `${link}/${encodeURIComponent(name)}`, textContent: name });
    return element("li", {}, anchor, size === undefined ? "" : ` ${formatBytes(size)}`);
  });
  return element("ul", { className: "files" }, ...items);
}

/** Return planned and measured memory of a set of weights as two bars. */
function memoryBars(plan, model) {
  const planned = model.planned_peak_bytes;
  const largest = Math.max(planned, model.peak_bytes);
  const bar = (name, size) => {
    const filled = element("span", {});
    filled.style.width = `${100 * size / largest}%`;
    const track = element("span", { className: "bar wide", "aria-hidden": "true" }, filled);
    return [name, element("span", { className: "with-bar" }, track, formatBytes(size))];
  };
  return factList([
    bar("Planned peak", planned),
    bar("Measured peak", model.peak_bytes),
    ["Usable memory", plan?.usable_bytes === undefined ? null : formatBytes(plan.usable_bytes)],
    ["Largest step", plan?.largest_step],
  ], "rows");
}

/** Return the relaxation of a structure; null if it was not relaxed. */
function relaxationPanel(relaxation) {
  if (!relaxation) return null;
  const change = (name) => {
    const [before, after] = [relaxation[`${name}_before`], relaxation[`${name}_after`]];
    return before === undefined ? null : `${formatNumber(before)} → ${formatNumber(after)}`;
  };
  return panel("Relaxation", factList([
    ["Result", relaxation.message ? `${relaxation.status}: ${relaxation.message}` : relaxation.status],
    ["Clashes", change("clashes")],
    ["Wrong bonds", change("bonds")],
    ["Wrong angles", change("angles")],
    ["Chain breaks", change("chain_breaks")],
    ["Wrong distances within residues", change("residue_distances")],
    ["Largest CA shift", relaxation.max_ca_shift == null
      ? null : `${formatNumber(relaxation.max_ca_shift, 2)} Å`],
    ["Seconds", relaxation.seconds == null ? null : formatNumber(relaxation.seconds, 1)],
  ], "rows"));
}

/** Return the comparison with the true structure; null if there is none. */
function scorePanel(data) {
  if (data.score_failure) {
    return panel("True structure", element("p", { textContent: data.score_failure }));
  }
  const scores = data.scores;
  if (!scores) return null;
  const picture = data.pictures[scores.picture];
  return panel("True structure",
    factList([
      ["Structure", scores.truth_chain ? `${scores.truth}, chain ${scores.truth_chain}` : scores.truth],
      ["Compared", "the structure as predicted, without relaxation"],
      ["Compared residues", formatNumber(scores.num_matched)],
      ["lDDT-Cα", formatNumber(scores.lddt_ca, 3)],
      ["lDDT, all atoms", formatNumber(scores.lddt_all_atom, 3)],
      ["TM-score", formatNumber(scores.tm_score, 3)],
      ["GDT-TS", formatNumber(scores.gdt_ts, 3)],
      ["RMSD of CA", `${formatNumber(scores.rmsd_ca, 2)} Å`],
    ], "rows"),
    picture ? pictureOf(picture, "Predicted and true structure, superposed") : null);
}

/** Return an image from PNG in base64. */
function pictureOf(base64, description) {
  return element("img", {
    className: "picture", alt: description, src: `data:image/png;base64,${base64}`,
  });
}

/** Return the panels of a chain. model: the entry of the selected weights, null if it failed. */
function chainPanels(data, model, link) {
  const record = data.record;
  return [
    panel("Warnings", textList(record.warnings, "warnings")),
    scorePanel(data),
    model && relaxationPanel(model.relaxation),
    model && panel("Prediction", factList([
      ["Weights", model.weights],
      ["Rank", `${model.rank} of ${record.models.length}`],
      ["Recycling iterations", formatNumber(model.num_recycling_iterations)],
      ["RMS change of CA distances", model.recycling_changes.length
        ? `${model.recycling_changes.map((x) => formatNumber(x, 2)).join(", ")} Å` : null],
      ["Forward", `${formatNumber(model.seconds, 1)} s`],
      ["Estimated", record.plan?.estimated_seconds == null
        ? null : `${formatNumber(record.plan.estimated_seconds, 1)} s`],
      ["Waited for features", `${formatNumber(record.feature_seconds, 1)} s`],
    ], "rows")),
    model && panel("Memory", memoryBars(record.plan, model)),
    panel("Templates", textList(record.templates, "tags")),
    panel("Files", fileList(record, link, data.missing)),
    record.sequence ? panel("Sequence",
      element("p", { className: "sequence", textContent: record.sequence })) : null,
  ].filter((part) => part);
}
