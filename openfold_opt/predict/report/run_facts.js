// What holds for all chains: settings with their origins, weights, and versions.

/** Return a value of the settings as text. */
function settingText(value) {
  if (value === null || value === "") return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

/** Return a table with headings and rows of texts. */
function textTable(headings, rows) {
  const cells = (tag, texts) => texts.map((text) => element(tag, { textContent: text }));
  return element("div", { className: "scroll" }, element("table", { className: "small" },
    element("thead", {}, element("tr", {}, ...cells("th", headings))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))));
}

/** Return a panel with settings: {name: {value, origin}}. */
function settingsPanel(title, settings) {
  const rows = Object.entries(settings).map(([name, setting]) =>
    [name.replaceAll("_", " "), settingText(setting.value), setting.origin]);
  return panel(title, textTable(["Setting", "Value", "Origin"], rows));
}

/** Return the panels of the run. */
function runPanels(run) {
  return [
    settingsPanel("Settings", run.settings),
    ...run.weights.map((weights) => element("div", { className: "panel-group" },
      panel(`Weights ${weights.name}`, factList([
        ["File", weights.path],
        ["Kind", weights.kind],
        ["SHA-256", element("code", { textContent: weights.sha256 })],
      ], "rows"),
      textTable(["Setting", "Value", "Origin"],
        Object.entries(weights.settings).map(([name, setting]) =>
          [name.replaceAll("_", " "), settingText(setting.value), setting.origin]))))),
    panel("Versions", factList(Object.entries(run.versions), "rows")),
  ];
}

/** Return what the head of the page says about the run. */
function runSummary(run) {
  const numFailed = run.rows.filter((row) => row.status === "failed").length;
  const numFinished = run.rows.length - numFailed;
  return [
    ["Predicted", run.written],
    ["Weights", run.weights.map((weights) => weights.name).join(", ")],
    ["Device", run.device],
    ["Chains with a structure", formatNumber(numFinished)],
    ["Failed", numFailed > 0 ? formatNumber(numFailed) : null],
    ["Not predicted yet", run.pending.length > 0 ? formatNumber(run.pending.length) : null],
  ];
}
