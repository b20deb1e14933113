// The guidance dial: x0-hat of one step at any guidance, from its two stored branches. It is what
// this step alone would have believed, not a new run. Formula: see dial_data.py.

// Returns { el, figure, own, paint, works }: the controls, the picture that they move, beside it
// the run's own; `works()` is whether the shown step has both branches.
function dial({ model, data, at }) {
  const arrays = {}, whole = !data.missing;
  for (const [name, array] of Object.entries(data.arrays ?? {})) arrays[name] = unpack(array);
  const [, , tall, wide] = whole ? arrays.own.shape : [0, 0, 1, 1];
  const shown = plate({ wide, tall }), before = marked(plate({ wide, tall }));
  const slider = make("input", { type: "range", class: "slider", step: 0.1,
    min: Math.min(0, Math.floor(data.own)), max: data.top,
    "aria-label": "guidance of this step alone", "data-lm-suppress-shortcuts": "true",
    oninput: () => put(model, "guidance", slider.valueAsNumber) });
  slider.addEventListener("keydown", (event) => { // its own arrows, not the step's
    if (/^(Arrow|Page|Home|End)/.test(event.key)) event.stopPropagation();
  });
  const value = make("output", { class: "count" });
  const stops = [...new Set([0, 1, data.own])].filter((g) => typeof g === "number")
    .map((g) => make("button", { type: "button",
      onclick: (event) => { put(model, "guidance", g); handBack(event); } },
      g === data.own ? `${told(g)}, the run's` : told(g)));
  const el = make("div", { class: "dial" }, make("span", {}, "guidance"), slider, value, ...stops);

  const scale = () => {
    const g = Number(model.get("guidance"));
    return Number.isFinite(g) ? g : 1;
  };
  const factsNow = () => whole ? data.steps[at()] : { reason: data.missing };
  const paint = () => {
    const facts = factsNow(), why = facts.reason, g = scale(), is = Math.abs(g - facts.own) < 1e-9;
    [slider, ...stops].forEach((control) => { control.disabled = Boolean(why); });
    slider.value = g;
    value.textContent = told(g);
    slider.setAttribute("aria-valuetext", why || `guidance ${told(g)}${is ? ", the run's" : ""}`);
    draw(shown, g, is ? "as in the run" : "this step alone, not a new run");
    draw(before, facts.own, "as in the run");
  };
  const draw = (one, g, what) => {
    const facts = factsNow(), text = `x0-hat at ${told(g)} (preview): ${what}`;
    one.tell(facts.reason, text + (data.averaged ?? ""));
    one.caption.textContent = facts.reason ? "guidance dial" : text;
    if (!facts.reason) colour(one.canvas, recombined(arrays, at(), facts, g), tall, wide);
  };
  return { el, figure: shown.el, own: before, paint, works: () => !factsNow().reason };
}

// rgb(g), channel by channel, as numbers from 0 to 1 where they can be shown.
function recombined(arrays, step, facts, g) {
  const { own, pull, point } = arrays, count = own.values.length / own.shape[0];
  const k = rescaling(facts, g), from = step * count;
  return Float64Array.from({ length: count }, (_, i) => {
    const plain = own.values[from + i] + (g - facts.own) * pull.values[from + i];
    return point && k !== 1 ? k * plain + (1 - k) * point.values[from + i] : plain;
  });
}

// φ · std(cond) / std(guided) + 1 − φ; 1 where guidance is off.
function rescaling({ rescale, cond, parts }, g) {
  if (!rescale || g === 1) return 1;
  const spread = Math.sqrt(parts[0] + 2 * g * parts[1] + g * g * parts[2]);
  return rescale * (cond / spread) + 1 - rescale;
}

// Draws rgb (3, tall, wide) on a canvas.
function colour(canvas, rgb, tall, wide) {
  const pen = canvas.getContext("2d", { willReadFrequently: true }), count = tall * wide;
  const image = pen.createImageData(wide, tall);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = Math.round(255 * Math.min(Math.max(rgb[c * count + i], 0), 1));
    }
    image.data[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

// A picture that a script draws: a canvas in sharp squares, or a sentence in its place.
function plate({ wide, tall }) {
  const canvas = make("canvas", { role: "img", width: wide, height: tall, class: "sharp" });
  const overlay = make("canvas", { class: "overlay sharp", width: 1, height: 1,
    "aria-hidden": "true", hidden: true });
  const missing = make("p", { class: "missing", hidden: true }), caption = make("figcaption");
  const el = make("figure", { class: "screen" },
    make("div", { class: "glass" }, canvas, overlay, missing), caption);
  const tell = (why, alt) => {
    missing.hidden = !why;
    missing.textContent = why;
    canvas.setAttribute("aria-label", why || alt);
    if (why) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  };
  return { el, canvas, overlay, caption, tell };
}

// A picture with a frame around one cell, and the bar of what lies over it instead of its caption.
function marked(one) {
  const glass = one.el.querySelector(".glass"), mark = make("div", { class: "mark", hidden: true });
  const legend = bar(VIRIDIS, "0", "", "");
  legend.hidden = true;
  glass.append(mark);
  one.el.append(legend);
  return { ...one, glass, mark, legend };
}
