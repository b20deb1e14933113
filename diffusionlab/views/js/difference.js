// with: kit.js, player.js, colours.js, curves.js, lanes.js, curves.css, lanes.css
// Two runs: one picture over the other with a line that moves, their difference, their settings.

const KINDS = ["x0", "x_t", "picture"], KINDS_TOLD = ["x0-hat", "x_t", "final picture"];

function render({ model, el }) {
  const data = model.get("data"), lanes = lanesOf(data);
  const [a, b] = data.labels.map((name) => brief(name));
  const sign = () => (BY.includes(model.get("align")) ? model.get("align") : BY[0]);
  const by = () => lanes.alignments[sign()];
  const place = () => inside(model.get("place"), by().count);
  const kind = () => (KINDS.includes(model.get("show")) ? model.get("show") : "x0");
  const scrub = player({ model, name: "place", count: by().count, label: "place in both runs",
    say: (i) => by().told[inside(i, by().count)],
    number: (i) => numbered(sign(), by(), i) });
  const setAlign = (to) => {
    if (to === sign()) return;
    const kept = lanes.moved(sign(), to, 0, place());
    put(model, "align", to);
    put(model, "place", kept);
  };
  const cut = wipe(model, lanes, a, b);
  const frame = shell({ model, el, title: data.title,
    keys: { ...scrub.keys, ...cut.keys,
      d: turned(model, "show", KINDS, () => show),
      s: () => map.turn(),
      a: () => setAlign(BY[(BY.indexOf(sign()) + 1) % BY.length]) },
    help: "Keys: ← → place, PageUp, PageDown, Home, End, space plays, [ and ] move the line, "
      + "x shows all of one or of the other, d x0-hat, x_t or final picture, s colours, "
      + "a alignment, p present, t light or dark." });
  frame.root.classList.add("diff");
  const align = chooser({ label: "runs are aligned by", items: BY_TOLD,
    chosen: (i) => setAlign(BY[i]) });
  const show = chooser({ label: "picture", items: KINDS_TOLD,
    chosen: choose(model, "show", KINDS, () => show) });
  show.buttons[0].disabled = !data.known;
  show.buttons[2].disabled = !data.ended;
  const map = differenceOf(model, data, lanes, a, b);
  const sentence = make("p", { class: "sentence" }), about = make("p", { class: "quiet extra" });
  const lines = chart({ tall: 210 }), names = make("div", {}), heard = spoken();
  frame.body.append(
    make("div", { class: "controls extra" }, named("Aligned by", align.el),
      named("Show", show.el)),
    make("div", { class: "pair" }, cut.el, map.el),
    sentence, scrub.el, about,
    make("p", { class: "extra" }, data.sentences.flatMap((one) => [...titled(one).nodes, " "]),
      data.parted.told, data.ended ? null : " Neither run has a final picture."),
    settings(data, a, b),
    make("section", { class: "distances extra", "aria-label": "distances" },
      make("h3", {}, "How far ", bdi(b), " is from ", bdi(a)),
      names, lines.el), heard.el);

  const settled = () => {
    scrub.recount(by().count);
    align.show(BY.indexOf(sign()));
    show.show(KINDS.indexOf(kind()));
    about.textContent = by().about;
    const one = by().xs.every((_, i) => lanes.together(sign(), 0, 1, i));
    names.replaceChildren(legend([[0, "their x0-hats"],
      [1, `their x_t${one ? "" : ", where both are at one level"}`]]));
    lines.draw(curves(sign(), by(), lanes, data.parted));
    moved();
  };
  const moved = () => {
    cut.show(sign(), place(), kind());
    map.show(sign(), place());
    sentence.replaceChildren(...sayPair(by(), sign(), place(), lanes, a, b));
    heard.say(sentence.textContent);
    lines.at(by().xs[place()]);
    lines.alt(`Chart of the distances of two runs over ${sign()}. `
      + sentence.textContent);
  };
  const quiet = follow(model, ["align", "show", "scale"], settled);
  const still = follow(model, ["place"], moved);
  return () => {
    quiet(); still(); cut.destroy(); scrub.destroy(); heard.destroy(); lines.destroy();
    frame.destroy();
  };
}

// ---- one picture over the other ----------------------------------------------------------------
function wipe(model, lanes, a, b) {
  const [over, under] = lanes.runs.map((run) => pane(run));
  const shapes = lanes.runs.map(({ reels: { x_t: { width, height } } }) => width / height);
  const apart = Math.abs(shapes[0] - shapes[1]) > 1e-6;
  const split = () => (apart ? 100 : inside(model.get("split"), 101));
  const line = make("div", { class: "cut", "aria-hidden": "true" });
  const glass = make("div", { class: apart ? "wipe apart" : "wipe" }, under.el, over.el, line);
  const slider = make("input", { type: "range", min: 0, max: 100, step: 1, class: "slider split",
    "aria-label": "line between both pictures", disabled: apart,
    "data-lm-suppress-shortcuts": "true",
    oninput: () => put(model, "split", slider.valueAsNumber),
    onkeydown: (event) => { if (OWN_KEYS.has(event.key)) event.stopPropagation(); } });
  const why = make("p", { class: "quiet" }, apart
    ? "Their pictures have different shapes: they stand side by side and no line divides them."
    : "");
  why.hidden = !apart;
  const dragged = (event) => {
    if (apart || !event.buttons) return;
    const box = glass.getBoundingClientRect();
    put(model, "split", inside((100 * (event.clientX - box.left)) / box.width, 101));
  };
  glass.addEventListener("pointerdown", dragged);
  glass.addEventListener("pointermove", dragged);
  const heads = make("div", { class: "heads" }, make("span", {}, bdi(a)), make("span", {}, bdi(b)));
  const facts = make("div", { class: "heads quiet" });
  const el = make("div", { class: "half" }, heads, glass, slider, facts, why);
  el.style.setProperty("--shape", shapes[0]);

  const placed = () => {
    const at = split();
    slider.value = at;
    slider.setAttribute("aria-valuetext", `${at} % of the picture is ${a}, the rest ${b}`);
    over.el.style.clipPath = apart ? "" : `inset(0 ${100 - at}% 0 0)`;
    line.style.left = `${at}%`;
  };
  const show = (by, place, kind) => {
    [over, under].forEach((one, run) => {
      one.show(kind, lanes.step(by, run, place));
      const canvas = one.kinds[kind].canvas;
      canvas.setAttribute("aria-label", `${[a, b][run]}: ${canvas.getAttribute("aria-label")}`);
    });
    facts.replaceChildren(...lanes.runs.map((run, i) => {
      if (kind === "picture") return make("p", {}, `after ${plural(run.count, "step")}`);
      const step = run.steps[lanes.step(by, i, place)];
      const state = !lanes.alignments[by].begun[i][place] ? " · begins lower"
        : lanes.alignments[by].over[i][place] ? ` · ${run.stopped || "at its end"}` : "";
      return make("p", {}, `step ${step.index}`, make("span", { class: "extra" },
        `, karras_sigma ${told(step.karras_sigma)}`), state);
    }));
  };
  const quiet = follow(model, ["split"], placed);
  const by = (change) => () => put(model, "split", inside(split() + change, 101));
  return { el, show, destroy: quiet,
    keys: { "[": by(-5), "]": by(5), x: () => put(model, "split", split() > 50 ? 0 : 100) } };
}

const OWN_KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End",
  "PageUp", "PageDown"]);

// ---- the difference ----------------------------------------------------------------------------
function differenceOf(model, data, lanes, a, b) {
  const canvas = make("canvas", { role: "img", class: "sharp", width: 1, height: 1 });
  const missing = make("p", { class: "missing", hidden: true });
  const colours = coloursOf(model, data, lanes);
  const glass = make("div", { class: "glass map" }, canvas, missing);
  const el = make("div", { class: "half" }, make("div", { class: "heads" },
    make("span", {}, "Difference of x0-hat")), glass, colours.el);
  const run = lanes.runs[0].reels.x_t;
  el.style.setProperty("--shape", run.width / run.height);
  const show = (by, place) => {
    const map = lanes.map(by, 0, 1, place), far = lanes.distance("x0", by, 0, 1, place);
    missing.hidden = Boolean(map);
    colours.el.hidden = !map;
    if (map) {
      colours.show(by, 0, place, a);
      heat(canvas, map.values, map.wide, { high: colours.top(by, 0, place) });
    } else missing.textContent = why(lanes.runs);
    canvas.setAttribute("aria-label", map ? `Difference of the x0-hats of ${a} and ${b}: `
      + `${told(far, 2)} of the size of ${a}'s at ${lanes.alignments[by].told[place]}`
      : missing.textContent);
  };
  return { el, show, turn: colours.turn };
}

function why([a, b]) {
  if (!a.latents || !b.latents) return "No difference: x0-hat was not recorded in both runs.";
  return `No difference: their latents have shapes ${a.shape} and ${b.shape}.`;
}

// ---- texts -------------------------------------------------------------------------------------
function settings({ differ, same }, a, b) {
  const rows = differ.map(([name, ours, theirs]) => make("tr", {},
    make("th", { scope: "row" }, name), make("td", {}, bdi(ours || "(empty)")),
    make("td", {}, bdi(theirs || "(empty)"))));
  const table = make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" },
    "setting"), make("th", { scope: "col" }, bdi(a)), make("th", { scope: "col" }, bdi(b)))),
  make("tbody", {}, rows));
  const list = same.flatMap(([name, value], i) => [i ? ", " : "", `${name} `,
    bdi(value || "(empty)")]);
  return make("div", { class: "extra settings" }, differ.length ? table : null,
    same.length ? make("p", { class: "quiet" }, "Same: ", ...list, ".") : null);
}

function curves(sign, by, lanes, parted) {
  const levels = sign === "karras_sigma";
  const { steps } = lanes.runs[0];
  const at = parted.step === null ? -1
    : by.shown[0].findIndex((index) => steps[index].index >= parted.step);
  return {
    x: { label: BY_TOLD[BY.indexOf(sign)], log: levels, reverse: levels,
      whole: !levels },
    y: { label: "relative distance", low: 0 },
    lines: ["x0", "x_t"].map((what, index) => ({ index, xs: by.xs,
      ys: lanes.curve(what, sign, 0, 1) })),
    marks: at < 0 ? [] : [{ x: by.xs[at], text: parted.mark }],
  };
}

// "At step 3 of 4: x0-hat of B is 0.3 from that of A, its x_t 0.1, relative to their size." Runs at
// two levels say at which; then x_t is not compared.
function sayPair(by, sign, place, lanes, a, b) {
  const [x0, latent] = ["x0", "x_t"].map((what) => lanes.distance(what, sign, 0, 1, place));
  const start = `At ${by.told[place]}: `, together = lanes.together(sign, 0, 1, place);
  const common = sign === "karras_sigma" ? by.places[place] : null;
  const at = (run) => {
    const level = lanes.level(sign, run, place);
    return together || sameLevel(level, common) ? "" : ` at karras_sigma ${told(level)}`;
  };
  const number = (v) => (Number.isFinite(v) ? told(v, 2) : "unknown");
  if (!Number.isFinite(x0) && !Number.isFinite(latent)) return [`${start}no distance between `,
    bdi(a), at(0), " and ", bdi(b), at(1), " is known."];
  if (x0 < 1e-6 && latent < 1e-6) return [start, bdi(a), " and ", bdi(b), " are the same."];
  return [`${start}x0-hat of `, bdi(b), `${at(1)} is ${number(x0)} from that of `, bdi(a),
    `${at(0)}, ${together ? `its x_t ${number(latent)}, relative to their` : "relative to its"} `
    + "size."];
}

export default { render };
