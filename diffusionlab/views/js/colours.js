// Colour tables: viridis for amounts, RdBu_r for signed numbers (matplotlib's, at evenly spaced
// places), and the eight colours of Okabe and Ito for lines.

const VIRIDIS = stops("440154 481769 472a7a 433d84 3d4e8a 355e8d 2e6d8e 297b8e 23898e 1f978b "
  + "21a585 2eb37c 46c06f 65cb5e 89d548 b0dd2f d8e219 fde725");
const SIGNED = stops("053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b "
  + "67001f");
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
  if (canvas.width !== wide) canvas.width = wide;
  if (canvas.height !== tall) canvas.height = tall;
  const image = pen.createImageData(wide, tall), data = image.data, last = table.length - 1;
  for (let i = 0; i < values.length; i++) {
    const unit = (values[i] - low) / (high - low || 1);
    if (!Number.isFinite(unit)) continue; // all four bytes stay 0
    const at = Math.min(Math.max(unit, 0), 1) * last, below = table[Math.floor(at)];
    const above = table[Math.ceil(at)], share = at % 1;
    for (let c = 0; c < 3; c++) { // as colourOf, without a list for each place
      data[4 * i + c] = Math.round(below[c] + share * (above[c] - below[c]));
    }
    data[4 * i + 3] = alpha ? alpha(unit) : 255;
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
