// with: kit.js, player.js, colours.js, equation.js, schedule_explorer.css
// The schedule explorer: noise runs from left (pure noise) to right (clean) in every part, and one
// marker stands at the scrubber's level.

const TICKS = [100, 10, 5, 1, 0.2, 0.05, 0.01];
const BAND_INKS = [["#26456e", "#ffffff"], ["#3d6a9b", "#ffffff"], ["#a9c6e3", "#141414"],
  ["#e6eef6", "#141414"]];

function render({ model, el }) {
  const data = model.get("data"), places = data.places;
  const now = () => chosen(model, data);
  const say = (i) => `timestep ${told(places[i].timestep)}, karras_sigma `
    + told(places[i].karras_sigma);
  const scrub = player({ model, name: "place", count: places.length, label: "noise level", say,
    number: (i) => `timestep ${told(places[i].timestep)}` });
  const frame = shell({ model, el, title: data.title, keys: scrub.keys,
    help: "Keys: ← → noise level, PageUp, PageDown, Home, End; space plays from noise to clean; "
      + "p present, t light or dark. Everywhere noise is left, clean is right." });
  const steps = chooser({ label: "number of steps", items: data.steps.map((n) =>
    (n === 1 ? "1 step" : `${n} steps`)),
    chosen: (i) => put(model, "steps", i) });
  const pictures = pictureParts(data), rows = spacingRows(model, data);
  const rule = make("p", { class: "equation mixing" });
  const where = make("p", { class: "sentence extra" });
  const difference = make("p", { class: "sentence" });
  const guess = make("p", { class: "sentence extra", hidden: !data.pictures.asked });
  const facts = make("dl", { class: "facts extra" });
  const solvers = solverRows(data), lines = rateCurves(data), heard = spoken();
  const about = make("p", { class: "quiet extra" }, bdi(data.pictures.told));
  frame.root.classList.add("schedule-view");
  frame.body.append(
    make("div", { class: "schedule" },
      make("div", { class: "pictures" }, pictures.map((part) => part.el), rule),
      make("div", { class: "spacings" }, steps.el, rows.el, difference, where, guess)),
    scrub.el, facts,
    make("div", { class: "more extra" }, solvers.el, lines.el), about, heard.el);
  const quiet = follow(model, ["place", "spacing", "steps"], () => {
    const is = now();
    steps.show(is.steps);
    pictures.forEach((part) => part.show(is));
    rows.show(is);
    solvers.show(is);
    lines.show(is);
    rule.textContent = mixingText(is.level);
    difference.replaceChildren(bdi(is.run.error ?? [is.run.told, is.run.start].join(" ").trim()));
    where.replaceChildren(bdi(whereText(is)));
    guess.textContent = guessText(data.pictures, is.place);
    facts.replaceChildren(...factPairs(is.level));
    heard.say(`${say(is.place)}. ${where.textContent}`);
  });
  return () => { quiet(); scrub.destroy(); heard.destroy(); frame.destroy(); };
}

// What the reader has chosen: the level, the row, its run, and the step that the level lies in.
function chosen(model, data) {
  const place = inside(model.get("place"), data.places.length), level = data.places[place];
  const spacing = inside(model.get("spacing"), data.rows.length);
  const steps = inside(model.get("steps"), data.steps.length);
  const row = data.rows[spacing], run = row.runs[steps];
  return { data, place, level, spacing, steps, row, run, step: stepAt(run, level) };
}

// The step of a run that goes through a level: −1 before its first level.
function stepAt(run, level) {
  if (!run.levels) return -1;
  const here = numeric(level.log_snr), after = run.levels.findIndex(
    ([, , log]) => numeric(log) > here + 1e-9);
  return after === -1 ? run.levels.length - 2 : after - 1;
}

// Python's "∞" and "−∞" as numbers.
function numeric(value) {
  if (typeof value !== "string") return value;
  return value === "∞" ? Infinity : value === "−∞" ? -Infinity : NaN;
}

// ---- sentences ----------------------------------------------------------------------------------
function mixingText(level) {
  return `x_t = ${told(level.alpha)}·x0 + ${told(level.sigma)}·eps`;
}

function whereText({ row, run, step, level }) {
  if (!run.levels) return `${row.name}: no levels for this number of steps.`;
  const total = run.levels.length - 1;
  if (step < 0) return `A run of ${row.name} never sees this level: it begins less noisy.`;
  const [, from] = run.levels[step], [, to] = run.levels[step + 1];
  return `At this level a run of ${row.name} is in step ${step} of 0 … ${total - 1}: from `
    + `karras_sigma ${told(from)} to ${told(to)}.`;
}

function guessText({ asked, off, nearest }, place) {
  if (!asked) return "";
  return `One step from timestep ${told(asked[nearest[place]])}, the nearest one that the network `
    + `was asked at: x0-hat is off by ${told(off[nearest[place]], 2)} of the latent's spread.`;
}

function factPairs(level) {
  const names = { timestep: "timestep", alpha: "alpha", sigma: "sigma", snr: "snr",
    log_snr: "log-SNR", karras_sigma: "karras_sigma", alpha_bar: "alpha_bar" };
  return Object.entries(names).map(([name, text]) =>
    make("div", {}, make("dt", {}, text), make("dd", { "data-name": name }, told(level[name], 4))));
}

// ---- pictures -----------------------------------------------------------------------------------
function pictureParts(data) {
  const { mixes, of, guesses, nearest } = data.pictures;
  const parts = mixes.map((mix) => mixedScreen(mix, of));
  if (!guesses) return parts;
  const guess = screen(guesses);
  return [...parts, { el: guess.el, show: ({ place }) => guess.show(nearest[place]) }];
}

// A canvas that mixes bias + alpha · clean + sigma · noise at each level, as Python would.
function mixedScreen(mix, of) {
  const canvas = make("canvas", { role: "img", class: "sharp", width: mix.width ?? 1,
    height: mix.height ?? 1 });
  const missing = make("p", { class: "missing", hidden: !mix.missing }, mix.missing ?? "");
  const el = make("figure", { class: "screen" }, make("div", { class: "glass" }, canvas, missing),
    make("figcaption", {}, mix.label));
  const clean = mix.clean && unpack(mix.clean).values;
  const noise = mix.noise && unpack(mix.noise).values;
  const show = ({ level }) => {
    canvas.setAttribute("aria-label", `${of}, ${mix.label}, at timestep ${told(level.timestep)}: `
      + (mix.missing ?? `${told(level.alpha)} of it and ${told(level.sigma)} of noise`));
    if (!clean) return;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const image = pen.createImageData(mix.width, mix.height);
    for (let i = 0, j = 0; i < clean.length; i++, j++) {
      if (i && i % 3 === 0) image.data[j++] = 255;
      const value = mix.bias[i % 3] + level.alpha * clean[i] + level.sigma * noise[i];
      image.data[j] = Math.round(255 * Math.min(Math.max(value, 0), 1));
    }
    image.data[image.data.length - 1] = 255;
    pen.putImageData(image, 0, 0);
  };
  return { el, show };
}

// ---- the log-SNR axis ---------------------------------------------------------------------------
// Where a log-SNR lies from left to right, in percent; what is infinite lies at the edge.
function percent(data, log) {
  const [low, high] = data.ends;
  return 100 * Math.min(Math.max((numeric(log) - low) / (high - low), 0), 1);
}

// One line of the axis: the bands' edges, the marker, and what `marks` draws.
function strip(data, label) {
  const marks = drawn("g", {});
  const marker = drawn("line", { class: "marker", y1: "0%", y2: "100%" });
  const edges = data.edges.map((edge) => drawn("line", { class: "edge", y1: "0%", y2: "100%",
    x1: percent(data, edge) + "%", x2: percent(data, edge) + "%" }));
  const el = drawn("svg", { class: "strip", role: "img", "aria-label": label }, edges,
    drawn("line", { class: "base", x1: "0%", x2: "100%", y1: "50%", y2: "50%" }), marks, marker);
  const move = (level) => {
    for (const end of ["x1", "x2"]) marker.setAttribute(end, percent(data, level.log_snr) + "%");
  };
  return { el, marks, move };
}

function dot(data, log, radius, kind) {
  return drawn("circle", { class: kind, cx: percent(data, log) + "%", cy: "50%", r: radius });
}

// The rows of spacings: a name to choose, its levels, and the share of its steps in each band.
function spacingRows(model, data) {
  const names = chooser({ label: "spacing", items: data.rows.map((row) => make("span", {},
    bdi(row.name), row.own ? " (own)" : "")), chosen: (i) => put(model, "spacing", i) });
  names.el.classList.add("names");
  const parts = data.rows.map((row) => ({ row, line: strip(data, ""),
    shares: make("div", { class: "shares", role: "img" }),
    error: make("p", { class: "quiet failed", hidden: true }) }));
  const cells = parts.map(({ line, shares, error }, i) => make("div", { class: "cell",
    onclick: () => put(model, "spacing", i) }, line.el, error, shares));
  const corner = make("p", { class: "corner quiet" }, "karras_sigma");
  const el = make("div", { class: "axis" }, corner, bandNames(data), names.el,
    make("div", { class: "cells" }, cells), make("p", { class: "corner" }), ticks(data));
  let drawnFor = -1;
  const show = (is) => {
    names.show(is.spacing);
    parts.forEach((part, i) => {
      const run = part.row.runs[is.steps];
      if (drawnFor !== is.steps) fillRow(data, part, run);
      part.line.move(is.level);
      cells[i].classList.toggle("now", i === is.spacing);
      const step = stepAt(run, is.level);
      [...part.line.marks.children].forEach((mark, j) => mark.classList.toggle("here", j === step));
    });
    drawnFor = is.steps;
  };
  return { el, show };
}

function fillRow(data, { row, line, shares, error }, run) {
  error.hidden = !run.error;
  error.replaceChildren(bdi(run.error ?? ""));
  line.el.toggleAttribute("hidden", Boolean(run.error));
  shares.hidden = Boolean(run.error);
  const levels = run.levels ?? [], radius = levels.length > 30 ? 4 : 6;
  line.marks.replaceChildren(...levels.slice(0, -1).map(([, , log]) => dot(data, log, radius,
    numeric(log) === -Infinity ? "level endless" : "level")));
  const sigmas = levels.map(([, sigma]) => told(sigma));
  line.el.setAttribute("aria-label", `${row.name}: karras_sigma ${sigmas.join(", ")}`);
  const told100 = (run.shares ?? []).map((share) => Math.round(100 * share));
  shares.setAttribute("aria-label", `share of steps, noisiest band first: ${told100.join(", ")} %`);
  shares.replaceChildren(...told100.map((share, i) => make("span", { class: "share",
    style: `flex-grow:${share};background:${BAND_INKS[i][0]};color:${BAND_INKS[i][1]}` },
    share >= 9 ? String(share) : "")));
}

// Above the rows: which band of karras_sigma is which.
function bandNames(data) {
  const edges = data.karras_edges, [low, high] = data.ends;
  const bounds = [low, ...data.edges, high];
  const names = [`≥ ${edges[0]}`, ...edges.slice(1).map((edge, i) => `${edge} – ${edges[i]}`),
    `< ${edges[edges.length - 1]}`];
  const bands = names.map((name, i) => make("span", { class: "share", style:
    `flex-grow:${bounds[i + 1] - bounds[i]};background:${BAND_INKS[i][0]};color:${BAND_INKS[i][1]}`
  }, name));
  return make("div", { class: "cell heads" }, make("div", { class: "shares" }, bands),
    make("p", { class: "quiet" }, "% of steps"));
}

// Below the rows: karras_sigma on the log-SNR axis.
function ticks(data) {
  const texts = TICKS.map((sigma) => [sigma, -2 * Math.log(sigma)])
    .filter(([, log]) => log > data.ends[0] && log < data.ends[1])
    .map(([sigma, log]) => drawn("text", { x: percent(data, log) + "%", y: "1em",
      "text-anchor": "middle" }, String(sigma)));
  const axis = drawn("svg", { class: "ticks", "aria-hidden": "true" }, texts);
  return make("div", { class: "cell feet" }, axis,
    make("p", { class: "quiet" }, "karras_sigma (log-SNR axis), noisy → clean"));
}

// ---- solvers ------------------------------------------------------------------------------------
// Where each sampler asks the network on the chosen spacing, and its numbers at the step.
function solverRows(data) {
  const head = make("h3", {}), lines = data.samplers.map((name) => ({ name,
    line: strip(data, ""), count: make("p", { class: "calls" }), rule: make("p", {}) }));
  const el = make("section", { class: "solvers", hidden: !lines.length }, head,
    lines.map(({ name, line, count, rule }) => make("div", { class: "solver" },
      make("h4", {}, bdi(name)), line.el, count, rule)));
  const show = (is) => {
    const where = is.step < 0 ? ": before the first step" : `: network calls, and step ${is.step}`;
    head.replaceChildren("Solvers on ", bdi(is.row.name),
      is.run.levels ? where : ": no run of so many steps");
    lines.forEach(({ name, line, count, rule }, i) => {
      const plan = is.run.plans?.[i] ?? { error: "" }, step = plan.steps?.[is.step];
      const calls = plan.steps?.flatMap((one, j) => one.at.map((log) => [log, j])) ?? [];
      line.marks.replaceChildren(...calls.map(([log, j]) => dot(data, log, j === is.step ? 7 : 4,
        j === is.step ? "level here" : "level")));
      line.el.setAttribute("aria-label", `${name}: ${calls.length} network calls`);
      line.move(is.level);
      count.textContent = plan.calls === undefined ? "" : `${plan.calls} network calls`
        + (step ? `, ${step.at.length} in this step` : "");
      rule.replaceChildren(...(step ? equation("x_next", step, step.at.length)
        : [bdi(plan.error ?? "")]));
    });
  };
  return { el, show };
}

// ---- alpha and sigma ----------------------------------------------------------------------------
// Both rates over the timesteps, noisy left, with the marker.
function rateCurves(data) {
  const last = data.count - 1, x = (level) => 100 * (1 - level.timestep / Math.max(last, 1));
  const curves = ["alpha", "sigma"].map((name, i) => drawn("polyline", { fill: "none",
    stroke: LINES[i], "stroke-width": 3, "stroke-dasharray": DASHES[i],
    "vector-effect": "non-scaling-stroke",
    points: data.places.map((level) => `${x(level)},${100 - 100 * level[name]}`).join(" ") }));
  const plane = drawn("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", x: "0", y: "6",
    width: "100%", height: "100", overflow: "visible" }, curves);
  const marker = drawn("line", { class: "marker", y1: 0, y2: 112 });
  const dots = [0, 1].map((i) => drawn("circle", { r: 6, fill: LINES[i] }));
  const svg = drawn("svg", { class: "rates", role: "img", height: 112 }, plane, marker, dots);
  const names = make("p", { class: "quiet" }, `timestep ${last} → 0: `,
    make("span", { class: "alpha" }, "alpha ——"), " signal, ",
    make("span", { class: "sigma" }, "sigma – –"), " noise; 0 at the foot, 1 at the top");
  const el = make("section", { class: "curves" }, make("h3", {}, "How much signal, how much noise"),
    svg, names);
  const show = ({ level }) => {
    for (const end of ["x1", "x2"]) marker.setAttribute(end, x(level) + "%");
    ["alpha", "sigma"].forEach((name, i) => {
      dots[i].setAttribute("cx", x(level) + "%");
      dots[i].setAttribute("cy", 106 - 100 * level[name]);
    });
    svg.setAttribute("aria-label", `alpha and sigma over the timesteps; at timestep `
      + `${told(level.timestep)} alpha is ${told(level.alpha)}, sigma ${told(level.sigma)}`);
  };
  return { el, show };
}

export default { render };
