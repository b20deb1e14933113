// with: kit.js, player.js, colours.js, curves.js, lanes.js, curves.css, lanes.css
// The race: two to nine runs under one scrubber, at the same step, noise level or network call.

const SHOWS = ["x0", "x_t", "difference", "picture"];
const SHOWS_TOLD = ["x0-hat", "x_t", "difference", "final picture"];
const APART = ["x0", "x_t", "end"];
const APART_TOLD = ["of the two x0-hats", "of the two x_t", "of x0-hat to the end"];

function render({ model, el }) {
  const data = model.get("data"), lanes = lanesOf(data), count = lanes.runs.length;
  const state = stateOf(model, lanes, data);
  const { by, sign, what: apart, place, reference, nameOf, short } = state;
  const scrub = player({ model, name: "place", count: by().count, label: "place of the race",
    say: (i) => by().told[inside(i, by().count)],
    number: (i) => numbered(sign(), by(), i) });
  const hide = () => {
    put(model, "revealed", false);
    put(model, "blind", !model.get("blind"));
    if (model.get("blind") && !data.named) put(model, "reference", data.order[0]); // tells nothing
  };
  const reveal = () => { if (model.get("blind")) put(model, "revealed", true); };
  const setAlign = (to) => {
    if (to === sign()) return;
    const kept = lanes.moved(sign(), to, reference(), place());
    put(model, "align", to);
    put(model, "place", kept);
  };
  const frame = shell({ model, el, title: data.title,
    keys: { ...scrub.keys, b: hide, r: reveal, d: turned(model, "show", SHOWS, () => show),
      s: () => colours.turn(),
      a: () => setAlign(BY[(BY.indexOf(sign()) + 1) % BY.length]) },
    help: "Keys: ← → place, PageUp, PageDown, Home, End, space plays, a alignment, "
      + "d x0-hat, x_t, difference or final picture, s colours, b blind, r reveal, p present, "
      + "t light or dark." });
  frame.root.classList.add("race");
  const panes = lanes.runs.map((run) => pane(run));
  const grid = make("div", { class: "lanes" });
  const room = gridOf(frame.root, grid, count, lanes.runs[0].reels.x_t);
  const align = chooser({ label: "runs are aligned by", items: BY_TOLD,
    chosen: (i) => setAlign(BY[i]) });
  const show = chooser({ label: "picture of each run", items: SHOWS_TOLD,
    chosen: choose(model, "show", SHOWS, () => show) });
  const what = chooser({ label: "distance", items: APART_TOLD,
    chosen: choose(model, "distance", APART, () => what) });
  const recorded = lanes.runs.filter((run) => run.latents).length;
  show.buttons[0].disabled = !data.known;
  show.buttons[2].disabled = what.buttons[0].disabled = recorded < 2;
  what.buttons[2].disabled = recorded < 1;
  show.buttons[3].disabled = !data.ended;
  const choice = make("select", { "data-lm-suppress-shortcuts": "true",
    onchange: () => put(model, "reference", Number(choice.value)) });
  const blind = make("button", { type: "button", class: "tool extra", onclick: hide });
  const open = make("button", { type: "button", onclick: reveal }, "Reveal (r)");
  frame.root.querySelector(".tools").prepend(open, blind);
  const sentence = make("p", { class: "sentence" });
  const arrived = make("p", { class: "quiet extra" }), about = make("p", { class: "quiet extra" });
  const colours = coloursOf(model, data, lanes), lines = chart({ tall: 230 });
  const names = make("div", {});
  const heard = spoken();
  frame.body.append(
    make("div", { class: "controls extra" },
      named("Aligned by", align.el), named("Show", show.el),
      make("label", { class: "named" }, make("span", {}, "Reference"), choice)),
    grid, colours.el, sentence, scrub.el, about,
    make("section", { class: "distances extra", "aria-label": "distances" },
      named("Distance", what.el), names, lines.el, arrived),
    make("p", { class: "quiet extra" }, data.start, ...missing(lanes.runs),
      data.ended ? null : " No run has a final picture."), heard.el);

  // what does not change with the place
  const settled = () => {
    scrub.recount(by().count);
    align.show(BY.indexOf(sign()));
    show.show(SHOWS.indexOf(model.get("show")));
    what.show(APART.indexOf(apart()));
    const order = state.order();
    grid.replaceChildren(...order.map((run) => panes[run].el));
    choice.replaceChildren(...order.map((run) => make("option", { value: run,
      selected: run === reference() }, nameOf(run))));
    blind.textContent = "Blind (b)";
    blind.setAttribute("aria-pressed", String(model.get("blind")));
    open.hidden = !state.hidden();
    about.textContent = by().about;
    colours.el.hidden = model.get("show") !== "difference";
    arrived.replaceChildren(...arrivals(data, state));
    const wanted = curves(state, lanes);
    names.replaceChildren(legend(wanted.lines.map((line) => [line.index, line.name])));
    lines.draw(wanted);
    moved();
    room.fit();
  };
  // what does
  const moved = () => {
    if (!colours.el.hidden) colours.show(sign(), reference(), place(), short(reference()));
    panes.forEach((one, run) => paint(one, run, state, lanes, colours));
    const said = sayPlace(state, lanes);
    sentence.replaceChildren(...said);
    heard.say(sentence.textContent);
    room.again();
    lines.at(by().xs[place()]);
    lines.alt(`Chart of distances (${APART_TOLD[APART.indexOf(apart())]}) over `
      + `${sign()}. ${sentence.textContent}`);
  };
  const quiet = follow(model,
    ["align", "show", "reference", "distance", "scale", "blind", "revealed"], settled);
  const still = follow(model, ["place"], moved);
  return () => {
    quiet(); still(); scrub.destroy(); heard.destroy(); lines.destroy(); room.destroy();
    frame.destroy();
  };
}

// What the model says, as the race reads it.
function stateOf(model, lanes, data) {
  const sign = () => (BY.includes(model.get("align")) ? model.get("align") : BY[0]);
  const what = () => (APART.includes(model.get("distance")) ? model.get("distance") : APART[0]);
  const by = () => lanes.alignments[sign()];
  const place = () => inside(model.get("place"), by().count);
  const reference = () => inside(model.get("reference"), lanes.runs.length);
  const hidden = () => model.get("blind") && !model.get("revealed");
  const order = () => (model.get("blind") ? data.order : lanes.runs.map((_, i) => i));
  const spot = (run) => order().indexOf(run);
  const letter = (run) => String.fromCharCode(65 + data.order.indexOf(run));
  const nameOf = (run) => {
    if (hidden()) return letter(run);
    return (model.get("blind") ? `${letter(run)}: ` : "") + lanes.runs[run].label;
  };
  const short = (run) => brief(nameOf(run));
  return { model, by, sign, what, place, reference, hidden, order, spot, nameOf, short };
}

// On a page as many columns as keep the pictures large: five in a row at most.
function gridOf(root, grid, count, reel) {
  const columns = count <= 5 ? count : Math.ceil(count / 2);
  grid.style.setProperty("--narrow", count <= 4 ? 2 : 3);
  grid.style.setProperty("--shape", reel.width / reel.height);
  return roomy(root, grid, count, columns);
}

// One run at the place: its picture, or its difference to the reference, and what stands below.
function paint(one, run, state, lanes, colours) {
  const { model, by, sign, place, reference, hidden, nameOf } = state;
  const index = lanes.step(sign(), run, place()), facts = lanes.runs[run].steps[index];
  const at = hidden() ? "" : `step ${facts.index}, karras_sigma ${told(facts.karras_sigma)}`;
  const shown = model.get("show"), last = shown === "picture" && lanes.runs[run].count;
  const kind = ["x_t", "picture"].includes(shown) ? shown : "x0", name = nameOf(run);
  one.show(kind, index);
  const canvas = one.kinds[kind].canvas;
  canvas.setAttribute("aria-label",
    `${name}: ${hidden() ? SHOWS_TOLD[SHOWS.indexOf(kind)] : canvas.getAttribute("aria-label")}`);
  const compared = model.get("show") === "difference" && run !== reference();
  const map = compared ? lanes.map(sign(), reference(), run, place()) : null;
  const far = lanes.distance("x0", sign(), reference(), run, place());
  one.cover(map, map && colours.top(sign(), reference(), place()), map && `${name}: x0-hat is `
    + `${told(far, 2)} of its size from that of ${state.short(reference())}${at && `, ${at}`}`);
  one.el.classList.toggle("reference", run === reference());
  const tags = [run === reference() && "reference",
    !hidden() && !last && !by().begun[run][place()] && "begins lower",
    !hidden() && !last && by().over[run][place()] && (lanes.runs[run].stopped || "at its end"),
    compared && (!map ? apartNot(lanes.runs[run], lanes.runs[reference()])
      : !Number.isFinite(far) && "no distance: not finite")];
  one.caption.replaceChildren(
    make("p", { class: "lane-name" }, swatch(state.spot(run)), bdi(broken(name))),
    ...(hidden() ? [] : last ? [make("p", { class: "lane-facts" }, `after ${plural(last, "step")}`,
      make("span", { class: "more" }, `, ${plural(lanes.runs[run].calls, "call")}`))] : [
      make("p", { class: "lane-facts" }, `step ${facts.index}`, make("span", { class: "more" },
        ` · call ${facts.call} of ${lanes.runs[run].calls}`)),
      make("p", { class: "lane-facts" }, `karras_sigma ${told(facts.karras_sigma)}`)]),
    ...tags.filter(Boolean).map((text) => make("p", { class: "lane-tag" }, text)));
}

function apartNot(a, b) {
  if (!a.latents || !b.latents) return "no difference: x0-hat was not recorded";
  return `no difference: latents of ${a.shape} and ${b.shape}`;
}

// Runs without recorded x0-hat, in words.
function missing(runs) {
  const found = runs.filter((run) => !run.latents).length;
  return found ? [` ${found} of ${runs.length} runs did not record x0-hat (record="predictions").`]
    : [];
}

function curves({ by, sign, what, reference, order, spot, nameOf }, lanes) {
  const levels = sign() === "karras_sigma";
  const wanted = order().filter((run) => run !== reference() || what() === "end");
  return {
    x: { label: BY_TOLD[BY.indexOf(sign())], log: levels, reverse: levels,
      whole: !levels },
    y: { label: "relative distance", low: 0 },
    lines: wanted.map((run) => ({ xs: by().xs, index: spot(run), name: nameOf(run),
      ys: lanes.curve(what(), sign(), reference(), run) })),
  };
}

// "At karras_sigma 3.1: x0-hat nearest to that of ddim: heun (0.02); farthest: euler (0.6)."
// A run that is at another level says at which.
function sayPlace({ by, sign, what: apart, place, reference, hidden, short }, lanes) {
  const what = apart(), start = `At ${by().told[place()]}: `;
  const far = lanes.runs.map((_, run) => ({ run,
    far: lanes.distance(what, sign(), reference(), run, place()) }))
    .filter((one) => one.run !== reference());
  const good = far.filter((one) => Number.isFinite(one.far)).sort((a, b) => a.far - b.far);
  const of = { x0: "x0-hat", x_t: "x_t", end: "x0-hat" }[what];
  const level = (run) => lanes.level(sign(), run, place());
  const common = sign() === "karras_sigma" ? by().places[place()] : level(reference());
  const at = (run) => (hidden() || what === "x_t" || sameLevel(level(run), common) ? ""
    : ` at karras_sigma ${told(level(run))}`);
  const to = [what === "end" ? "the end of " : "that of ", bdi(short(reference())),
    what === "end" ? "" : at(reference())];
  const lost = far.filter((one) => !Number.isFinite(one.far));
  const other = what === "x_t" && lost.every(({ run }) =>
    !lanes.together(sign(), run, reference(), place()));
  const rest = lost.length ? ` ${lost.length} of ${far.length} runs have no distance here`
    + `${other ? ": they are at other noise levels" : ""}.` : "";
  if (!good.length) return [`${start}no run has a distance to `, ...to, ".",
    other ? rest : ""];
  const first = good[0], last = good.at(-1);
  if (last.far < 1e-6) return [`${start}${of} of every run equals `, ...to, ".", rest];
  if (good.length === 1) {
    return [`${start}${of} of `, bdi(short(first.run)), `${at(first.run)} is `
      + `${told(first.far, 2)} from `, ...to,
      ", relative to its size.", rest];
  }
  return [`${start}${of} nearest to `, ...to, " is ", bdi(short(first.run)),
    `${at(first.run)} (${told(first.far, 2)}), farthest `, bdi(short(last.run)),
    `${at(last.run)} (${told(last.far, 2)}).`, rest];
}

// When each run's x0-hat comes within a share of the reference's end and stays there.
function arrivals(data, { hidden, reference, short }) {
  if (hidden()) return ["Names are hidden. Press r to reveal them."];
  const row = data.to_ends[reference()].map((end, run) => ({ run, end })).filter((one) => one.end);
  const there = row.filter((one) => one.end.arrived)
    .sort((a, b) => a.end.arrived.call - b.end.arrived.call);
  const never = row.filter((one) => !one.end.arrived);
  const near = `x0-hat within ${told(100 * data.near)} % of the end of `;
  if (!row.length) return [near, bdi(short(reference())), ": no distance is known."];
  const parts = there.map(({ run, end: { arrived } }, i) => [i ? ", " : "", bdi(short(run)),
    ` at call ${arrived.call} (step ${arrived.step})`]).flat();
  const rest = never.length
    ? [there.length ? "; never: " : "never: ", ...listed(never.map((one) => short(one.run)))] : [];
  return [near, bdi(short(reference())), ", for good: ", ...parts, ...rest, "."];
}

export default { render };
