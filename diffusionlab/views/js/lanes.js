// Runs beside one another, as `lanes_data` of Python describes them: which step each shows at a
// common place, how far apart they are there, and where in the picture. Needs kit.js, colours.js.

const BY = ["step", "karras_sigma", "network_calls"];
const BY_TOLD = ["step", "karras_sigma", "network calls"];

function lanesOf(data) {
  const runs = data.runs.map((run) => ({ ...run, latents: run.x0 && unpack(run.x0) }));
  const alignments = Object.fromEntries(Object.entries(data.alignments).map(([by, one]) => {
    const { x0, x_t: latent } = one.distances;
    return [by, { ...one, count: one.places.length, xs: one.places.map(Number),
      apart: { x0: unpack(x0).values, x_t: unpack(latent).values } }];
  }));
  const ends = data.to_ends.map((row) => row.map((end) => end && unpack(end.distances).values));
  const tops = new Map();

  // The step, counted in the run's list, that a run shows at a place.
  const step = (by, run, place) => alignments[by].shown[run][place];
  // |a − b| / |b| at a place, b being the reference's: of "x0", of "x_t", or of x0-hat to its "end".
  const distance = (what, by, reference, run, place) => {
    if (what === "end") return ends[reference][run]?.[step(by, run, place)] ?? NaN;
    const one = alignments[by];
    return one.apart[what][(reference * runs.length + run) * one.count + place];
  };
  const curve = (what, by, reference, run) =>
    alignments[by].xs.map((_, place) => distance(what, by, reference, run, place));
  // |x0-hat − the reference's| at each place of the latent, the root mean square of its channels.
  const map = (by, reference, run, place) => {
    const a = runs[run].latents, b = runs[reference].latents;
    if (!a || !b || a.shape.slice(1).join() !== b.shape.slice(1).join()) return null;
    return mapOf(a, step(by, run, place), b, step(by, reference, place));
  };
  // The largest number of all maps to a reference: one scale for all runs and places.
  const top = (by, reference) => {
    const key = `${by} ${reference}`;
    if (!tops.has(key)) tops.set(key, topOf(runs, alignments[by].count, map, by, reference));
    return tops.get(key);
  };
  // The first place of another alignment where a run shows what it shows here.
  const moved = (from, to, run, place) => {
    const wanted = step(from, run, inside(place, alignments[from].count));
    const found = alignments[to].shown[run].findIndex((index) => index >= wanted);
    return found < 0 ? alignments[to].count - 1 : found;
  };
  return { runs, alignments, step, distance, curve, map, top, moved };
}

function mapOf(a, i, b, j) {
  const [, channels, tall, wide] = a.shape, size = tall * wide, values = new Float32Array(size);
  for (let c = 0; c < channels; c++) {
    const from = (i * channels + c) * size, to = (j * channels + c) * size;
    for (let k = 0; k < size; k++) values[k] += (a.values[from + k] - b.values[to + k]) ** 2;
  }
  return { values: values.map((v) => Math.sqrt(v / channels)), wide };
}

function topOf(runs, count, map, by, reference) {
  let top = 0;
  for (let run = 0; run < runs.length; run++) {
    if (run === reference) continue;
    for (let place = 0; place < count; place++) {
      for (const v of map(by, reference, run, place)?.values ?? []) {
        if (Number.isFinite(v) && v > top) top = v;
      }
    }
  }
  return top;
}

// What a difference map measures, for its colour bar.
function measure(data, name) {
  const block = data.block > 1 ? `, averaged over ${data.block} × ${data.block} places` : "";
  return ["|x0-hat − x0-hat of ", bdi(name), "|, root mean square over the channels" + block];
}

// Names in a sentence: "a, b and c", each in its own direction.
function listed(names) {
  return names.flatMap((name, i) => [i === 0 ? "" : i === names.length - 1 ? " and " : ", ",
    bdi(name)]);
}

// One run's pictures of one kind or the other: { el, show(kind, index), caption, overlay(kind) }.
function pane(run) {
  const kinds = { x0: screen(run.reels.x0), x_t: screen(run.reels.x_t) };
  for (const one of Object.values(kinds)) one.caption.remove();
  const caption = make("div", { class: "lane-caption" });
  const el = make("div", { class: "lane" }, kinds.x0.el, kinds.x_t.el, caption);
  const show = (kind, index) => {
    kinds.x0.el.hidden = kind === "x_t";
    kinds.x_t.el.hidden = kind !== "x_t";
    kinds[kind === "x_t" ? "x_t" : "x0"].show(index);
  };
  // Lays a map over the picture (null takes it off); `alt` is what both then show.
  const cover = (map, top, alt) => {
    const { overlay, canvas } = kinds.x0;
    overlay.hidden = !map;
    if (map) heat(overlay, map.values, map.wide, { high: top });
    if (alt) canvas.setAttribute("aria-label", alt);
  };
  return { el, caption, kinds, show, cover };
}
