// Line charts as SVG: two axes with ticks, lines that differ in colour and dashes, a marker that
// moves. Text keeps its size whatever the width. Needs kit.js and colours.js.

const INKS = [...LINES.slice(0, 6), "currentColor", LINES[8]]; // yellow lines vanish on white

// The look of line number `index`: no two of nine share colour and dashes.
function look(index) {
  return { stroke: INKS[index % INKS.length], "stroke-dasharray": DASHES[index % DASHES.length] };
}

// A short piece of that line, for a caption or a legend.
function swatch(index) {
  const line = drawn("line", { x1: 1, y1: 6, x2: 35, y2: 6, "stroke-width": 3.5, ...look(index) });
  return drawn("svg", { class: "swatch", width: 36, height: 12, viewBox: "0 0 36 12",
    "aria-hidden": "true" }, line);
}

// What each line is, for charts whose lines are not named elsewhere: names are [index, text].
function legend(names) {
  return make("p", { class: "legend" }, names.map(([index, text]) =>
    make("span", {}, swatch(index), bdi(text))));
}

// About `most` round numbers from low to high; powers of ten (and 2, 5 of them) on a log axis.
function ticks(low, high, { log = false, most = 6 } = {}) {
  if (!(high > low)) return [low];
  if (log) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const powers = Array.from({ length: last - first + 1 }, (_, i) => Number(`1e${first + i}`));
    const sets = [[1, 2, 5], [1, 3], [1]].map((digits) =>
      powers.flatMap((power) => digits.map((digit) => digit * power))
        .filter((v) => v >= low * (1 - 1e-9) && v <= high * (1 + 1e-9)));
    const kept = sets.find((set) => set.length <= most) ?? sets[2];
    if (kept.length < 2) return [low, high];
    const every = Math.ceil(kept.length / most);
    return kept.filter((_, i) => i % every === 0);
  }
  const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((n) => n * unit >= rough * (1 - 1e-9));
  const count = Math.floor((high - low) / step + 1e-9) + 1, first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, i) => (first + i) * step)
    .filter((v) => v <= high + 1e-9 * step);
}

// The least and the largest finite number (above 0 where `log`), or [0, 1] where there is none.
function reach(values, log = false) {
  const good = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
  return good.length ? [Math.min(...good), Math.max(...good)] : log ? [0.1, 1] : [0, 1];
}

// A chart: `draw({ x, y, lines, marks })` draws anew, `at(value)` moves the marker and puts a dot
// on each line; `alt(text)` says what is to be seen. Returns { el, draw, at, alt, destroy }.
//   x, y   { label, log, reverse, low, high, whole }: an axis; low and high default to the numbers'
//   lines  [{ xs, ys, index | stroke, quiet }]: not-finite numbers leave a gap; quiet ones are thin
//   marks  [{ x, text }]: upright lines with a word
function chart({ tall = 220 } = {}) {
  const svg = drawn("svg", { role: "img", class: "chart" });
  const el = make("div", { class: "curves" }, svg);
  let asked = null, place = null, scale = null, marker = null;

  const draw = (wanted) => {
    asked = wanted;
    scale = scales(el, wanted, tall);
    svg.setAttribute("viewBox", `0 0 ${scale.wide} ${scale.tall}`);
    svg.setAttribute("height", scale.tall);
    marker = drawn("g", { class: "marker" });
    svg.replaceChildren(...axesOf(scale, wanted),
      ...wanted.lines.flatMap((line) => lineOf(scale, line)),
      ...marksOf(scale, wanted.marks ?? []), marker);
    at(place);
  };
  const at = (value) => {
    place = value;
    const x = scale?.x(value);
    if (!Number.isFinite(x)) return marker?.replaceChildren();
    const rule = drawn("line", { x1: x, x2: x, y1: scale.top, y2: scale.bottom, class: "rule" });
    return marker.replaceChildren(rule, ...asked.lines.filter((l) => !l.quiet).flatMap((line) => {
      const i = line.xs.findIndex((v) => v === value);
      const y = i < 0 ? NaN : scale.y(line.ys[i]);
      if (!Number.isFinite(y)) return [];
      return [drawn("circle", { cx: x, cy: y, r: 6, fill: line.stroke ?? look(line.index).stroke,
        class: "dot" })];
    }));
  };
  let before = 0;
  const watcher = new ResizeObserver(() => {
    if (asked && el.clientWidth !== before) draw(asked);
    before = el.clientWidth;
  });
  watcher.observe(el);
  return { el, svg, draw, at, alt: (text) => svg.setAttribute("aria-label", text),
    destroy: () => watcher.disconnect() };
}

function scales(el, { x, y, lines }, tall) {
  const size = parseFloat(getComputedStyle(el).fontSize) || 16, em = size / 16;
  const wide = Math.max(el.clientWidth || 640, 240), high = tall * em;
  const edge = { left: 0, right: wide - 14 * em, top: 12 * em, bottom: high - 50 * em };
  const along = (axis, values, from, to, room = 0) => {
    const [least, largest] = reach(values, axis.log);
    const low = axis.low ?? least, top = axis.high ?? largest + room * (largest - low);
    const end = top > low ? top : axis.log ? low * 10 : low + 1;
    const turn = axis.log ? Math.log : (v) => v;
    const place = (v) => {
      const unit = (turn(v) - turn(low)) / (turn(end) - turn(low));
      return from + (axis.reverse ? 1 - unit : unit) * (to - from);
    };
    return { place, low, high: end };
  };
  const up = along(y, lines.flatMap((line) => line.ys), edge.bottom, edge.top,
    y.log ? 0 : 0.06);
  up.ticks = ticks(up.low, up.high, { log: y.log, most: 5 });
  const longest = Math.max(...up.ticks.map((v) => told(v).length)); // "1.50e−6" needs its room
  edge.left = Math.max(58, 26 + 8.6 * longest) * em;
  const across = along(x, lines.flatMap((line) => line.xs), edge.left, edge.right);
  return { ...edge, wide, tall: high, size: 14 * em, x: across.place, y: up.place, across, up };
}

function axesOf(scale, { x, y }) {
  const { left, right, top, bottom, size } = scale, most = (right - left) / size / 5;
  const word = (text, at) => drawn("text", { "font-size": size, ...at }, text);
  const level = ticks(scale.across.low, scale.across.high, { log: x.log, most })
    .filter((v) => !x.whole || Number.isInteger(v));
  return [
    ...scale.up.ticks.flatMap((v) => [
      drawn("line", { x1: left, x2: right, y1: scale.y(v), y2: scale.y(v), class: "grid" }),
      word(told(v), { x: left - 0.5 * size, y: scale.y(v) + 0.35 * size, "text-anchor": "end" }),
    ]),
    drawn("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    ...level.flatMap((v) => [
      drawn("line", { x1: scale.x(v), x2: scale.x(v), y1: bottom, y2: bottom + 5, class: "axis" }),
      word(told(v), { x: scale.x(v), y: bottom + 1.25 * size, "text-anchor": "middle" }),
    ]),
    word(x.label, { x: (left + right) / 2, y: bottom + 2.75 * size, "text-anchor": "middle" }),
    word(y.label, { transform: `translate(${0.95 * size} ${(top + bottom) / 2}) rotate(-90)`,
      "text-anchor": "middle" }),
  ];
}

// One path per line, broken where a number is not finite; a lone number becomes a dot.
function lineOf(scale, line) {
  let path = "", open = false, alone = null;
  const dots = [];
  const close = () => { if (alone) dots.push(alone); alone = null; };
  line.xs.forEach((value, i) => {
    const x = scale.x(value), y = scale.y(line.ys[i]);
    if (!Number.isFinite(x) || !Number.isFinite(y)) { open = false; return close(); }
    path += `${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    alone = open ? null : [x, y];
    open = true;
    return undefined;
  });
  close();
  const paint = line.stroke ? { stroke: line.stroke } : look(line.index);
  return [
    drawn("path", { d: path || "M0 0", class: line.quiet ? "line quiet-line" : "line", ...paint }),
    ...dots.map(([cx, cy]) => drawn("circle", { cx, cy, r: 4.5, fill: paint.stroke })),
  ];
}

function marksOf(scale, marks) {
  return marks.filter((mark) => Number.isFinite(scale.x(mark.x))).flatMap((mark) => {
    const x = scale.x(mark.x), late = x > (scale.left + scale.right) / 2;
    return [
      drawn("line", { x1: x, x2: x, y1: scale.top, y2: scale.bottom, class: "mark" }),
      drawn("text", { x: late ? x - 6 : x + 6, y: scale.top + scale.size, "font-size": scale.size,
        "text-anchor": late ? "end" : "start", class: "haloed" }, mark.text),
    ];
  });
}
