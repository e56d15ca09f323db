// The data of the run and of its chains. Data of a chain are gzip in base64, in a script element of
// the page or, if the chains are many, in a file that calls receiveChain.

/** Return the data of the run. */
function readRun() {
  return JSON.parse(byId("run-data").textContent);
}

/** Return the bytes of gzip in base64. */
async function decompress(text) {
  const letters = atob(text);
  // A loop is many times as fast as Uint8Array.from with a function, for megabytes of Mol*.
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index++) bytes[index] = letters.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Loads the data of chains and keeps those of the last ones. */
class ChainLoader {
  static MAX_KEPT = 4;

  /** dataFolder: URL of the directory with the data; null: they are in the page. */
  constructor(dataFolder) {
    this.dataFolder = dataFolder;
    this.kept = new Map();
    this.waiting = new Map();
    // The files of the directory are classic scripts: a page from disk may load these.
    window.receiveChain = (stem, text) => this.waiting.get(stem)?.(text);
  }

  /** Return the data of a chain. Throws an Error if its file cannot be loaded. */
  async load(stem) {
    if (!this.kept.has(stem)) {
      const text = this.dataFolder === null
        ? byId(`chain-${stem}`).textContent
        : await this.loadFile(stem);
      const bytes = await decompress(text);
      this.kept.set(stem, JSON.parse(new TextDecoder().decode(bytes)));
      if (this.kept.size > ChainLoader.MAX_KEPT) this.kept.delete(this.kept.keys().next().value);
    }
    return this.kept.get(stem);
  }

  loadFile(stem) {
    return new Promise((resolve, reject) => {
      const url = `${this.dataFolder}/${encodeURIComponent(stem)}.js`;
      const script = element("script", { src: url });
      script.onerror = () => reject(new Error(
        `${decodeURIComponent(url)} cannot be loaded; keep this directory next to the page`));
      script.onload = () => script.remove();
      this.waiting.set(stem, resolve);
      document.head.append(script);
    });
  }
}

/** The PAE of a structure, decoded. Residues have the numbers 1 to N_res. */
class PaeMatrix {
  static STEPS_PER_ANGSTROM = 10;

  /** data: block, num_pixels and planes (pae_pixels.py). maxPae: end of the scale, angstrom. */
  constructor(data, numResidues, maxPae) {
    this.size = data.num_pixels;
    this.block = data.block;
    this.numResidues = numResidues;
    this.maxPae = maxPae;
    this.bytes = Uint8Array.from(atob(data.planes), (letter) => letter.charCodeAt(0));
  }

  /** Return the error in angstrom of a pixel: aligned residues of a row, scored ones of a column. */
  pixel(row, column) {
    const index = row * this.size + column;
    const tenths = this.bytes[index] + 256 * this.bytes[this.size * this.size + index];
    return tenths / PaeMatrix.STEPS_PER_ANGSTROM;
  }

  /** Return the row or column of a residue. */
  pixelOf(residue) {
    return Math.floor((residue - 1) / this.block);
  }

  /** Return the first and last residue of a row or column. */
  residuesOf(pixel) {
    return [pixel * this.block + 1, Math.min((pixel + 1) * this.block, this.numResidues)];
  }

  /** Return the mean over a range of aligned and a range of scored residues, in whole pixels. */
  mean([firstRow, lastRow], [firstColumn, lastColumn]) {
    let sum = 0;
    let count = 0;
    for (let row = this.pixelOf(firstRow); row <= this.pixelOf(lastRow); row++) {
      for (let column = this.pixelOf(firstColumn); column <= this.pixelOf(lastColumn); column++) {
        sum += this.pixel(row, column);
        count += 1;
      }
    }
    return sum / count;
  }
}
