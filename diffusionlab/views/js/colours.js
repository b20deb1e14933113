// Colour tables: viridis for amounts, RdBu_r for signed numbers (matplotlib's, at 16 places), and
// the eight colours of Okabe and Ito for lines.

const VIRIDIS = stops("440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 "
  + "35b779 54c568 7ad151 a5db36 d2e21b fde725");
const SIGNED = stops("053061 185493 2c75b4 4393c3 78b4d5 a7d0e4 d1e5f0 eaf1f5 f9eee7 fddbc7 f7b799 "
  + "ea8e70 d6604d be3036 991027 67001f");
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000",
  "#f0e442", "#7a7a7a"];
const DASHES = ["", "8 4", "2 3", "10 3 2 3", "5 5", "14 4", "1 4", "6 2 2 2 2 2", "3 6"];

function stops(text) {
  return text.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
}

// The colour [r, g, b] of a number from 0 to 1.
function colourOf(table, unit) {
  const at = Math.min(Math.max(unit, 0), 1) * (table.length - 1), low = Math.floor(at);
  const high = Math.min(low + 1, table.length - 1);
  return table[low].map((c, i) => Math.round(c + (at - low) * (table[high][i] - c)));
}

// Draws numbers (row by row, `wide` a row) on a canvas: low…high over the table; NaN stays clear.
function heat(canvas, values, wide, { low = 0, high = 1, table = VIRIDIS, alpha = null } = {}) {
  const tall = values.length / wide, pen = canvas.getContext("2d", { willReadFrequently: true });
  canvas.width = wide;
  canvas.height = tall;
  const image = pen.createImageData(wide, tall);
  for (let i = 0; i < values.length; i++) {
    const unit = (values[i] - low) / (high - low || 1);
    const colour = Number.isFinite(unit) ? colourOf(table, unit) : [0, 0, 0];
    const clear = Number.isFinite(unit) ? (alpha ? alpha(unit) : 255) : 0;
    image.data.set([...colour, clear], 4 * i);
  }
  pen.putImageData(image, 0, 0);
}

// A colour bar: the table from left to right, its two ends in numbers, and what it measures.
function bar(table, low, high, text) {
  const canvas = make("canvas", { class: "bar", "aria-hidden": "true" });
  heat(canvas, Array.from({ length: 64 }, (_, i) => i / 63), 64, { table });
  return make("p", { class: "scale" }, make("span", {}, low), canvas, make("span", {}, high),
    make("span", { class: "measure" }, text));
}
