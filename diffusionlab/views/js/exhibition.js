// with: kit.js, colours.js, exhibition.css
// The exhibit: a run in five panels that turn by themselves. Each panel has places of its own (its
// words, the steps, the sizes of squares); all places of all panels are one story under one slider.

const LONGER = 2; // denoising lasts so many panels
const HOLD = 10; // a pressed pause lasts so many idle times

function render({ model, el }) {
  const data = model.get("data"), story = chapters(data.panels.map((p) => p.said.length));
  const at = () => inside(model.get("place"), story.count);
  const go = (place) => put(model, "place", inside(place, story.count));
  const turn = (panel) => go(story.first[inside(panel, 5)]);
  const word = (index) => put(model, "word", index);
  const clock = playing({ data, story, at, go, alone: alone(model) });
  const paged = (by) => (frame.root.classList.contains("present") // as presenter remotes send them
    ? turn(story.panel(at()) + by) : go(at() - 5 * by));
  const sliding = (event) => event.target?.matches?.("input[type=range]");
  const keys = {
    ArrowRight: (e) => (sliding(e) ? go(at() + 1) : turn(story.panel(at()) + 1)),
    ArrowLeft: (e) => (sliding(e) ? go(at() - 1) : turn(story.panel(at()) - 1)),
    ArrowUp: () => go(at() + 1), ArrowDown: () => go(at() - 1),
    PageUp: () => paged(-1), PageDown: () => paged(1),
    Home: () => go(0), End: () => go(story.count - 1), " ": () => clock.toggle(),
  };
  for (let i = 0; i < 5; i++) keys[i + 1] = () => turn(i);
  const frame = shell({ model, el, title: data.title, keys,
    help: "Keys: ← → panel, 1–5 panel, ↑ ↓ step, Home, End, space plays, p present, "
      + "t light or dark. Touch: swipe or tap." });
  frame.root.classList.add("exhibit");
  if (model.standalone) frame.root.classList.add("ex-whole");

  const made = [promptPanel, rowsPanel, denoisingPanel, decodingPanel, picturePanel].map(
    (panel, i) => panel({ data, panel: data.panels[i], number: i + 1, word,
      pick: (place) => go(story.first[i] + place) }));
  const shownWord = () => inside(model.get("word"), Math.max(data.words.length, 1));
  made.forEach((panel) => panel.show(0, shownWord())); // so that none is nameless
  const stage = make("div", { class: "ex-stage" }, made.map((panel) => panel.el));
  const tabs = chooser({ label: "panel", chosen: turn, items: data.panels.map((panel, i) =>
    make("span", {}, String(i + 1), make("span", { class: "ex-name" }, " " + panel.name))) });
  tabs.buttons.forEach((b, i) => b.setAttribute("aria-label", `${i + 1} ${data.panels[i].name}`));
  const slider = make("input", { type: "range", min: 0, max: story.count - 1, step: 1,
    class: "slider", "aria-label": "place in the story", "data-lm-suppress-shortcuts": "true",
    oninput: () => go(slider.valueAsNumber) });
  const step = (by, text, label) => make("button", { type: "button", class: "ex-turn",
    "aria-label": label, onclick: () => turn(story.panel(at()) + by) }, text);
  const back = step(-1, "‹", "panel before"), on = step(1, "›", "next panel");
  const voice = spoken();
  frame.body.append(stage, make("div", { class: "ex-story player" }, clock.button,
    make("div", { class: "ex-chapters" }, back, tabs.el, on),
    make("div", { class: "ex-line" }, slider, clock.status)), voice.el);

  const quiet = follow(model, ["place", "word"], () => {
    const place = at(), now = story.panel(place), step = place - story.first[now];
    made.forEach((panel, i) => {
      panel.el.classList.toggle("ex-on", i === now);
      panel.el.inert = i !== now;
      if (i === now) panel.show(step, shownWord());
    });
    tabs.show(now);
    back.disabled = now === 0;
    on.disabled = now === 4;
    slider.value = place;
    const said = `${data.panels[now].name}: ${plainText(data.panels[now].said[step])}`;
    slider.setAttribute("aria-valuetext", `panel ${now + 1} of 5, ${said}`);
    if (!clock.on() || step === 0) voice.say(said);
  });
  const still = touched({ root: frame.root, stage, place: model.standalone ? document : frame.root,
    heard: clock.touched, turn: (by) => turn(story.panel(at()) + by) });
  clock.begin();
  return () => { quiet(); still(); clock.destroy(); voice.destroy(); frame.destroy(); };
}

// Whether the view is the whole window's, as on a museum's screen, and not in a notebook's frame.
function alone(model) {
  const first = globalThis.top === globalThis || globalThis.location?.hash === "#present";
  return Boolean(model.standalone) && first;
}

// The places of five panels in one row: `first[i]` is the first place of panel i.
function chapters(counts) {
  const first = counts.map((_, i) => counts.slice(0, i).reduce((a, b) => a + b, 0));
  const count = first[4] + counts[4];
  return { counts, first, count, panel: (place) => first.findLastIndex((begin) => begin <= place) };
}

// ---- playing by itself -------------------------------------------------------------------------
// A touch pauses for `idle` seconds, the button for ten times as long; where the reader asked for
// less motion, and in a notebook, nothing starts by itself.
function playing({ data, story, at, go, alone }) {
  const unasked = alone && !REDUCED;
  let beat = 0, rest = 0, held = false;
  const button = make("button", { type: "button", class: "play", onclick: () => toggle() });
  const status = make("p", { class: "ex-status" });
  const wait = () => {
    const panel = story.panel(at()), length = data.seconds * (panel === 2 ? LONGER : 1);
    return (1000 * length) / story.counts[panel];
  };
  const tick = () => {
    const last = at() === story.count - 1;
    if (last && !data.loop) return pause();
    go(last ? 0 : at() + 1);
    return run();
  };
  const run = () => {
    clearTimeout(rest);
    clearTimeout(beat);
    rest = 0;
    held = false;
    beat = setTimeout(tick, wait());
    face("Any key or touch pauses" + (unasked ? `; ${seconds(data.idle)} later it goes on.` : "."));
  };
  const pause = () => {
    const ended = !data.loop && at() === story.count - 1, idle = data.idle * (held ? HOLD : 1);
    clearTimeout(beat);
    clearTimeout(rest);
    beat = 0;
    rest = ended || !unasked ? 0 : setTimeout(run, 1000 * idle);
    face(rest ? `Paused; it goes on after ${seconds(idle)} without a key or touch.` : "Paused.");
  };
  const face = (text) => {
    button.textContent = beat ? "❚❚ Pause" : "▶ Play";
    button.setAttribute("aria-label", beat ? "pause" : "play");
    status.textContent = text;
  };
  const toggle = () => {
    if (beat) {
      held = true;
      return pause();
    }
    if (at() === story.count - 1) go(0);
    return run();
  };
  const touched = () => { if (beat || rest) pause(); };
  return { button, status, toggle, touched, on: () => beat !== 0,
    begin: () => (unasked ? run() : pause()),
    destroy: () => { clearTimeout(beat); clearTimeout(rest); } };
}

function seconds(count) {
  return count < 120 ? `${told(count)} s` : `${told(count / 60)} minutes`;
}

// Tells of every key and touch but those that play and pause; a swipe turns the panel.
function touched({ root, stage, place, heard, turn }) {
  let from = null;
  const any = (event) => {
    const spaced = event.key === " " && !event.target.closest?.("button");
    const plays = event.target.closest?.(".play") || spaced;
    if (!plays) heard();
  };
  const down = (event) => { from = event.pointerType === "mouse" ? null : event; };
  const up = (event) => {
    if (!from) return;
    const x = event.clientX - from.clientX, y = event.clientY - from.clientY;
    from = null;
    if (Math.abs(x) > 50 && Math.abs(x) > 2 * Math.abs(y)) turn(x < 0 ? 1 : -1);
  };
  place.addEventListener("keydown", any, true);
  root.addEventListener("pointerdown", any, true);
  root.addEventListener("wheel", any, { capture: true, passive: true });
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointerup", up);
  return () => place.removeEventListener("keydown", any, true);
}

// ---- what panels are made of -------------------------------------------------------------------
// A sentence from Python: our texts and a user's in turn.
function sentence(parts) {
  return parts.map((text, i) => (i % 2 ? bdi(text) : text));
}

function plainText(sentences) {
  return sentences.map((parts) => parts.join("")).join(" ");
}

// The frame of a panel: number, name, what is true of it, what is true now, and what it shows.
function panelOf({ panel, number }, kind, shown, extra = []) {
  const now = make("p", { class: "ex-now" });
  const words = make("div", { class: "ex-words" },
    make("h3", {}, make("span", { class: "ex-number" }, String(number)), panel.name),
    panel.lead.map((parts) => make("p", { class: "ex-lead" }, sentence(parts))), now, extra);
  const room = make("div", { class: "ex-shown" }, shown);
  const el = make("section", { class: `ex-panel ${kind}`, "aria-label": `${number} ${panel.name}` },
    words, room);
  const say = (at) => {
    now.replaceChildren(...panel.said[at].flatMap(sentence));
    [el, words, room].forEach(reached);
  };
  return { el, say };
}

// What has to be scrolled can be scrolled by keyboard.
function reached(el) {
  el.setAttribute("tabindex", el.scrollHeight > el.clientHeight + 1 ? "0" : "-1");
}

// A screen whose picture is as large as its place allows.
function fitted(reel, options) {
  const made = screen(reel, options), glass = made.canvas.parentElement;
  const fit = make("div", { class: "ex-fit" });
  glass.replaceWith(fit);
  fit.append(glass);
  glass.style.setProperty("--ratio", reel.width / reel.height);
  return made;
}

// ---- the five panels ---------------------------------------------------------------------------
function promptPanel(given) {
  const { data, panel, pick } = given;
  const items = data.words.map(card);
  const cards = chooser({ label: "words of the prompt", chosen: pick, items });
  const typed = make("p", { class: "ex-typed" }, "“", bdi(data.prompt), "”");
  const size = Math.min(Math.max(20 / Math.sqrt(data.prompt.length + 1), 1), 3.2);
  typed.style.setProperty("--size", size.toFixed(2)); // long prompts in smaller type
  const notices = panel.notices.map((text) => make("p", { class: "quiet extra" }, bdi(text)));
  const { el, say } = panelOf(given, "ex-prompt", [typed, cards.el], notices);
  return { el, show: (at) => { say(at); cards.show(data.words.length ? at : -1); } };

  function card(word) {
    const pieces = word.pieces.flatMap((piece, i) => [i ? " + " : null, bdi(piece)]);
    return make("span", { class: "ex-card" }, bdi(word.word),
      word.pieces.length > 1 ? make("span", { class: "ex-small" }, pieces) : null,
      make("span", { class: "ex-small" }, word.ids.join(" + ")));
  }
}

function rowsPanel(given) {
  const { data, panel, pick } = given, rows = panel.rows;
  if (!rows) {
    const { el, say } = panelOf(given, "ex-rows", []);
    return { el, show: say };
  }
  const { values, shape: [, wide] } = unpack(rows.values);
  const limit = rows.limit, table = make("div", { class: "ex-table" });
  const items = rows.names.map((name, i) => {
    const strip = make("canvas", { class: "sharp", "aria-hidden": "true" });
    heat(strip, values.slice(i * wide, (i + 1) * wide), wide,
      { low: -limit, high: limit, table: SIGNED });
    return make("span", { class: "ex-strip" }, bdi(name), strip);
  });
  const list = chooser({ label: "rows of numbers", items, chosen: (i) => pick(rows.words[i]) });
  table.append(list.el, bar(SIGNED, told(-limit), told(limit), rows.measure));
  const { el, say } = panelOf(given, "ex-rows", [table]);
  const show = (at) => {
    say(at);
    list.show(data.words.length ? rows.words.indexOf(at) : -1);
    list.buttons.forEach((b, i) => b.classList.toggle("ex-with", rows.words[i] === at));
  };
  return { el, show };
}

function denoisingPanel(given) {
  const { data, panel, word } = given, lit = lights(data, panel);
  const noisy = fitted(panel.x_t), belief = fitted(panel.x0);
  const names = lit && chooser({ label: "word whose attention is shown", chosen: word,
    items: data.words.map((w) => bdi(w.word)) });
  const extra = lit
    ? [make("p", { class: "ex-ask" }, "Where was a word looked up?"), names.el, lit.scale]
    : [make("p", { class: "quiet extra" }, panel.attention.missing)];
  const { el, say } = panelOf(given, lit ? "ex-denoising" : "ex-denoising ex-two",
    [belief.el, noisy.el, lit?.el], extra);
  belief.el.classList.add("ex-main");
  const show = (at, which) => {
    say(at);
    noisy.show(at);
    belief.show(at);
    lit?.show(at, which);
    names?.show(which);
  };
  return { el, show };
}

// x0-hat, dark where a word was not looked up; null where no attention was recorded.
function lights(data, panel) {
  const seen = panel.attention;
  if (seen.missing) return null;
  const lit = fitted(panel.x0, { label: "" }), scale = make("div", { class: "ex-scale" });
  const { values, shape: [, steps, tall, wide] } = unpack(seen.maps);
  const percent = (share) => (typeof share === "number" ? `${told(100 * share)}\u00a0%` : share);
  const grey = [[0, 0, 0], [255, 255, 255]], black = [[0, 0, 0], [0, 0, 0]];
  const show = (at, which) => {
    const from = (which * steps + at) * tall * wide, peak = percent(seen.peaks[which][at]);
    const dark = Array.from(values.slice(from, from + tall * wide),
      (value) => (value === 255 ? NaN : 1 - value / 254));
    lit.show(at);
    heat(lit.overlay, dark, wide, { table: black, alpha: (unit) => Math.round(225 * unit) });
    lit.caption.replaceChildren("“", bdi(data.words[which].word),
      `” was looked up where it is bright: at most ${peak}`);
    lit.canvas.setAttribute("aria-label", `Attention to “${data.words[which].word}” at step ${at}:`
      + ` at most ${peak} of a place's attention.`);
    scale.replaceChildren(bar(grey, "0", percent(seen.tops[which]), seen.measure),
      ...(seen.check ? [make("p", { class: "warn" }, seen.check)] : []));
    scale.querySelector(".measure").classList.add("extra");
  };
  return { el: lit.el, scale, show };
}

function decodingPanel(given) {
  const { panel } = given, { values, shape: [count, tall, wide] } = unpack(panel.latent.values);
  const limit = panel.latent.limit, channels = make("div", { class: "ex-channels", role: "img",
    "aria-label": panel.latent_alt });
  for (let i = 0; i < count; i++) {
    const canvas = make("canvas", { class: "sharp", "aria-hidden": "true" });
    heat(canvas, values.slice(i * tall * wide, (i + 1) * tall * wide), wide,
      { low: -limit, high: limit, table: SIGNED });
    channels.append(canvas);
  }
  const side = Math.ceil(Math.sqrt(count));
  channels.style.setProperty("--side", side);
  channels.style.setProperty("--ratio", (side * wide) / (Math.ceil(count / side) * tall));
  const latent = make("figure", { class: "screen" }, make("div", { class: "ex-fit" }, channels),
    make("figcaption", {}, `the latent: blue ${told(-limit)}, white 0, red ${told(limit)}`));
  const picture = fitted(panel.reel);
  picture.el.classList.add("ex-main");
  const { el, say } = panelOf(given, "ex-decoding", [latent, picture.el]);
  return { el, show: (at) => { say(at); picture.show(at); } };
}

function picturePanel(given) {
  const { panel } = given, picture = fitted(panel.reel);
  picture.el.classList.add("ex-main");
  const facts = make("dl", { class: "facts" }, panel.facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, bdi(value)))));
  const { el, say } = panelOf(given, "ex-picture", [picture.el], [facts]);
  return { el, show: (at) => { say(at); picture.show(0); } };
}

export default { render };
