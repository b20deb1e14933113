// with: kit.js, player.js, colours.js, equation.js, attention.js, dial.js, step_explorer.css
// The step explorer: one run under one scrubber.

const PANELS = [["end", "final picture"], ["eps", "eps-hat"], ["difference", "cond − uncond"],
  ["dial", "guidance dial"]];
const THUMBS = 20;

function render({ model, el }) {
  const data = model.get("data"), steps = data.steps, count = steps.length;
  const at = () => inside(model.get("step"), count);
  const scrub = player({ model, count, say: (i) => steps[i].said,
    number: (i) => `step ${steps[i].index} of ${steps[count - 1].index}` });
  const frame = shell({ model, el, title: data.title, keys: { ...scrub.keys, ...panelKeys(model) },
    help: "Keys: ← → step, PageUp/Down 5 (presenting: PageDown the next one), Home, End, space "
      + "plays, 1–4 third picture, p present, t light or dark. Point at x0-hat, tap it, or Tab "
      + "to it and use ← ↑ → ↓: the words of a place." });
  frame.root.classList.add("explorer");
  const held = marked(screen(data.reels.x_t)), belief = marked(screen(data.reels.x0));
  const third = thirdPicture({ model, data, at, belief });
  const middle = make("div", { class: "cell" }, belief.el, third.own.el);
  const words = attention({ model, data: data.attention, at, lit: [belief, third.own],
    screens: [belief, third.end, third.own] });
  const line = make("p", { class: "equation" }), facts = make("dl", { class: "facts extra" });
  const strip = thumbnails(model, data.reels.x0, steps, scrub.stop), checks = checkBox(data, at);
  const speech = spoken();
  const row = make("div", { class: "row pictures" }, held.el, middle, third.el);
  row.style.setProperty("--ratio", data.reels.x_t.width / data.reels.x_t.height);
  fill(frame.body, {}, [row, third.tools, words.el, words.ranked,
    make("div", { class: "line" }, line, checks.el), facts, note(data), strip.el, scrub.el,
    speech.el]);

  const ends = [follow(model, ["step"], () => {
    const i = at();
    held.show(i);
    belief.show(i);
    third.paint();
    words.paint();
    strip.show(i);
    checks.paint();
    line.replaceChildren(...equation("x_next", steps[i].update, steps[i].calls));
    facts.replaceChildren(...factsOf(steps[i], data.settings));
    if (!scrub.playing()) speech.say(steps[i].said);
  }), follow(model, ["panel", "guidance"], third.paint)];
  return () => {
    [...ends, words.destroy, speech.destroy, scrub.destroy, frame.destroy].forEach((end) => end());
  };
}

// Keys 1 to 4 choose the third picture.
function panelKeys(model) {
  return Object.fromEntries(PANELS.map(([name], i) => [i + 1, () => put(model, "panel", name)]));
}

// ---- the third picture -------------------------------------------------------------------------
// In the dial's mode `own`, the same step by the same map, stands in the place of `belief`.
function thirdPicture({ model, data, at, belief }) {
  const end = marked(screen(data.reels.end)), eps = screen(data.reels.eps);
  const apart = differenceOf(data.difference, at), turned = dial({ model, data: data.dial, at });
  const figures = { end: end.el, eps: eps.el, difference: apart.el, dial: turned.figure };
  const names = PANELS.map(([name]) => name);
  const tabs = chooser({ label: "third picture", items: PANELS.map(([, label]) => label),
    chosen: (index) => put(model, "panel", names[index]) });
  const tools = make("div", { class: "third-tools" }, turned.el, tabs.el);
  tabs.el.classList.add("extra");
  end.show(0);
  const paint = () => {
    const name = figures[model.get("panel")] ? model.get("panel") : "end";
    tabs.show(names.indexOf(name));
    for (const [other, figure] of Object.entries(figures)) figure.hidden = other !== name;
    turned.el.hidden = name !== "dial";
    turned.own.el.hidden = name !== "dial" || !turned.works();
    belief.el.hidden = !turned.own.el.hidden;
    if (name === "eps") eps.show(at());
    if (name === "difference") apart.paint();
    if (name === "dial") turned.paint();
  };
  return { el: make("div", { class: "cell" }, Object.values(figures)), tools, end,
    own: turned.own, paint };
}

// How far the branches are apart at each place of x0, in colours up to this step's largest.
function differenceOf(data, at) {
  const { values, shape: [, tall, wide] } = unpack(data.maps);
  const one = plate({ wide, tall });
  const legend = bar(VIRIDIS, "0", "", "|cond − uncond| in x0-hat");
  one.caption.replaceChildren(legend);
  const paint = () => {
    const step = at(), why = data.reasons[step], top = data.tops[step];
    one.tell(why, "cond − uncond in x0-hat at this step, root mean square of the channels, up to "
      + told(top));
    legend.children[2].textContent = why ? "–" : told(top);
    if (why) return;
    heat(one.canvas, values.subarray(step * tall * wide, (step + 1) * tall * wide), wide,
      { high: 255 });
  };
  return { el: one.el, paint };
}

// ---- lines below -------------------------------------------------------------------------------
function factsOf(step, settings) {
  const { level } = step;
  return Object.entries({
    timestep: told(level.timestep, 4), alpha: told(level.alpha), sigma: told(level.sigma),
    karras_sigma: told(level.karras_sigma), "log-SNR": told(level.log_snr), SNR: told(level.snr),
    "network calls": `${step.calls_so_far} of ${settings.network_calls}`,
    guidance: told(step.guidance_scale),
  }).map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)));
}

// x0-hat in small along the run; a click goes there (the slider does the same for keys), and
// `stop` ends the playing.
function thumbnails(model, reel, steps, stop) {
  const last = steps.length - 1, most = Math.min(THUMBS, steps.length);
  const places = Array.from({ length: most },
    (_, i) => Math.round(i * last / Math.max(most - 1, 1)));
  const buttons = places.map((place) => make("button", { type: "button", tabindex: -1,
    "aria-label": steps[place].said,
    onclick: (event) => { stop(); put(model, "step", place); handBack(event); } },
    reel.sources[place] ? make("img", { src: reel.sources[place], alt: "",
      class: reel.sharp ? "sharp" : null }) : "–"));
  const el = make("div", { class: "strip extra", role: "group", "aria-label": "x0-hat in small",
    hidden: reel.sources.every((source) => source == null) }, buttons);
  const show = (index) => {
    const near = places.reduce((best, place, i) =>
      Math.abs(place - index) < Math.abs(places[best] - index) ? i : best, 0);
    buttons.forEach((button, i) => button.setAttribute("aria-current", String(i === near)));
  };
  return { el, show };
}

function note(data) {
  const { nodes, name } = titled(data.note), warning = data.check.warning;
  return warning || name ? make("p", { class: warning ? "warn" : "quiet" }, warning, " ", nodes)
    : null;
}

// What stands behind the equation: its network calls, and whether the record holds.
function checkBox(data, at) {
  const list = make("ul", {});
  const el = make("details", { class: "extra" }, make("summary", {}, "behind the equation"), list);
  const paint = () => {
    const step = data.steps[at()], calls = data.calls[at()];
    list.replaceChildren(
      ...calls.map((call, i) => make("li", {}, `network call ${i + 1} at timestep `
        + `${told(call.timestep, 4)}: `, ...equation("point", call.update, step.calls))),
      make("li", {}, data.check.steps[at()]), make("li", {}, data.check.path),
      make("li", {}, bdi(data.settings.summary)),
      ...data.attention.choices.map((c) => make("li", {}, `maps, ${c.label}: ${c.reduction}; `
        + "colours end at the word's largest probability at this step")),
      ...data.settings.notices.map((text) => make("li", {}, bdi(text))));
  };
  return { el, paint };
}

export default { render };
