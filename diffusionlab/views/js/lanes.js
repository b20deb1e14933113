// Runs beside one another, as `lanes_data` of Python describes them: which step each shows at a
// common place, how far apart they are there, and where in the picture. Needs kit.js, colours.js.

const BY = ["step", "karras_sigma", "network_calls"];
const BY_TOLD = ["step", "karras_sigma", "network calls"];
const SCALES = ["all", "here"], SCALES_TOLD = ["all places", "this place"];

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
  // The level of that step, and whether two runs are at one: only then is x_t compared.
  const level = (by, run, place) => runs[run].steps[step(by, run, place)].karras_sigma;
  const together = (by, a, b, place) => sameLevel(level(by, a, place), level(by, b, place));
  // |a − b| / |b| at a place, b the reference's: of "x0", of "x_t", or of x0-hat to its "end".
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
  // The same at one place.
  const topHere = (by, reference, place) => {
    const found = runs.map((_, run) => run === reference ? 0
      : largest(map(by, reference, run, place)?.values ?? []));
    return Math.max(...found);
  };
  // The first place of another alignment where a run shows what it shows here.
  const moved = (from, to, run, place) => {
    const wanted = step(from, run, inside(place, alignments[from].count));
    const found = alignments[to].shown[run].findIndex((index) => index >= wanted);
    return found < 0 ? alignments[to].count - 1 : found;
  };
  return { runs, alignments, step, level, together, distance, curve, map, top, topHere, moved };
}

function sameLevel(a, b) {
  return a === b || Math.abs(a - b) <= 1e-6 * Math.abs(b); // "∞" is a text
}

// A place beside the scrubber.
function numbered(by, one, index) {
  const at = one.places[inside(index, one.count)];
  return by === "karras_sigma" ? `karras_sigma ${told(at)}`
    : `${by === "step" ? "step" : "call"} ${at} / ${one.places.at(-1)}`;
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
      top = Math.max(top, largest(map(by, reference, run, place)?.values ?? []));
    }
  }
  return top;
}

function largest(values) {
  let top = 0;
  for (const v of values) if (Number.isFinite(v) && v > top) top = v;
  return top;
}

// The colours of difference maps: up to the largest number of all places, or of this one. Returns
// { el, top(by, reference, place), show(by, reference, place, name) }.
function coloursOf(model, data, lanes) {
  const choice = chooser({ label: "colours reach up to the largest of", items: SCALES_TOLD,
    chosen: (i) => put(model, "scale", SCALES[i]) });
  const holder = make("div", {});
  const el = make("div", { class: "scale-of" }, holder, make("div", { class: "named extra" },
    make("span", {}, "Colours up to the largest of"), choice.el));
  const top = (by, reference, place) => (model.get("scale") === "here"
    ? lanes.topHere(by, reference, place) : lanes.top(by, reference));
  const show = (by, reference, place, name) => {
    choice.show(Math.max(SCALES.indexOf(model.get("scale")), 0));
    const line = bar(VIRIDIS, "0", told(top(by, reference, place)), "");
    line.lastChild.append(...measure(data, name));
    holder.replaceChildren(line);
  };
  return { el, top, show, turn: () =>
    put(model, "scale", model.get("scale") === "here" ? "all" : "here") };
}

// What a difference map measures, for its colour bar.
function measure(data, name) {
  const block = data.block > 1 ? `, averaged over ${data.block} × ${data.block} places` : "";
  return ["|x0-hat − x0-hat of ", bdi(name), "|", make("span", { class: "extra" },
    `, root mean square over the channels${block}`)];
}

// A word and the control that it names.
function named(text, ...parts) {
  return make("div", { class: "named" }, make("span", {}, text), ...parts);
}

// Sets a value to one of `all`, unless the chooser's button for it is disabled.
function choose(model, name, all, control) {
  return (index) => {
    if (control().buttons[index].disabled) control().show(all.indexOf(model.get(name)));
    else put(model, name, all[index]);
  };
}

// The next of `all` whose button is not disabled.
function turned(model, name, all, control) {
  return () => {
    const free = all.filter((_, i) => !control().buttons[i].disabled);
    put(model, name, free[(free.indexOf(model.get(name)) + 1) % free.length]);
  };
}

// A name that does not fill a sentence.
function brief(text, most = 28) {
  const letters = Array.from(text);
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : text;
}

function plural(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

// Names in a sentence: "a, b and c", each in its own direction.
function listed(names) {
  return names.flatMap((name, i) => [i === 0 ? "" : i === names.length - 1 ? " and " : ", ",
    bdi(name)]);
}

// A name that may break after each "_": an empty letter there, since an element would make the
// page's structure depend on a text.
function broken(text) {
  return text.replaceAll("_", "_\u200b");
}

// One run's pictures of each kind: { el, show(kind, index), caption, cover }. The final picture is
// one and the same at every place.
function pane(run) {
  const kinds = Object.fromEntries(["x0", "x_t", "picture"].map((kind) =>
    [kind, screen(run.reels[kind])]));
  for (const one of Object.values(kinds)) one.caption.remove();
  const caption = make("div", { class: "lane-caption" });
  const el = make("div", { class: "lane" }, Object.values(kinds).map((one) => one.el), caption);
  const show = (kind, index) => {
    for (const [name, one] of Object.entries(kinds)) one.el.hidden = name !== kind;
    kinds[kind].show(kind === "picture" ? 0 : index);
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

// In present mode a grid of `count` pictures takes the columns and the width that make them as
// large as the window allows. Returns { fit, again, destroy }; `again` fits only what overflows.
function roomy(root, grid, count, columns) {
  const body = root.querySelector(".body");
  const over = () => Math.max(root.scrollHeight - root.clientHeight,
    body.scrollHeight - body.clientHeight);
  const set = (wanted, wide) => {
    grid.style.setProperty("--columns", wanted);
    grid.style.setProperty("--rows", Math.ceil(count / wanted));
    grid.classList.toggle("many", count > wanted);
    if (wide) grid.style.setProperty("--wide", `${wide}px`);
    else grid.style.removeProperty("--wide");
  };
  const widest = (wanted) => {
    const gap = parseFloat(getComputedStyle(grid).columnGap) || 0, rows = Math.ceil(count / wanted);
    const shape = Number(getComputedStyle(grid).getPropertyValue("--shape")) || 1;
    let wide = Math.floor((grid.clientWidth - gap * (wanted - 1)) / wanted);
    set(wanted, wide);
    for (let turn = 0; turn < 6 && over() > 0 && wide > NARROWEST; turn++) {
      wide = Math.max(Math.floor(wide - (over() / rows) * shape), NARROWEST); // text below may wrap
      set(wanted, wide);
    }
    return { wanted, wide: over() > 0 ? 0 : wide };
  };
  const fit = () => {
    if (!root.classList.contains("present")) return set(columns, 0);
    const tried = Array.from({ length: count }, (_, i) => i + 1)
      .filter((n) => n === 1 || Math.ceil(count / (n - 1)) > Math.ceil(count / n)).map(widest);
    const best = tried.reduce((a, b) => (b.wide > a.wide ? b : a));
    return best.wide ? set(best.wanted, best.wide) : set(grid.clientWidth < 600 ? 3 : columns, 0);
  };
  const seen = new ResizeObserver(fit), turned = new MutationObserver(fit);
  seen.observe(root);
  turned.observe(root, { attributeFilter: ["class"] });
  return { fit, again: () => root.classList.contains("present") && over() > 0 && fit(),
    destroy: () => { seen.disconnect(); turned.disconnect(); } };
}

const NARROWEST = 80; // pixels; below it the page scrolls
