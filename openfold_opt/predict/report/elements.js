// Elements of the page and numbers as text. Text is set as text, never as HTML: names of chains
// may have any characters.

/** Return the element with an id. */
function byId(id) {
  return document.getElementById(id);
}

/** Return a new element. Properties are set on it; those that start with "aria" are attributes. */
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** Return a number with separators of thousands and a fixed number of decimals. */
function formatNumber(value, decimals = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
}

/** Return a size in bytes as text with a binary unit. */
function formatBytes(size) {
  if (size === null || size === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  let index = 0;
  while (size >= 1024 && index < units.length - 1) {
    size /= 1024;
    index += 1;
  }
  return `${formatNumber(size, index === 0 ? 0 : size < 10 ? 2 : 1)} ${units[index]}`;
}

/** Return a count with its noun. */
function formatCount(number, noun) {
  return `${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
}
