// The scrubber: a native slider with play, speed and a number, for the whole number `name` of the
// model. Keys anywhere in the view: arrows ±1, PageUp and PageDown ±5, Home, End, space.
// In present mode PageDown is the next one and PageUp the one before: so presenter remotes send it.

const SPEEDS = [["slow", 1200], ["normal", 500], ["fast", 150]];

// `say(index)` gives the slider's spoken value, `number(index)` the text beside it, `label` what it
// counts. Returns { el, keys, toggle, stop, recount, destroy }; hand `keys` to `shell`;
// `recount(n)` sets another count.
function player({ model, name = "step", count, label = "step", say, loop = false,
  number: shown = (index) => index + " / " + (count - 1) }) {
  const at = () => inside(model.get(name), count);
  const go = (index) => put(model, name, inside(index, count));
  let timer = 0, wait = SPEEDS[1][1];
  const play = make("button", { type: "button", class: "play", onclick: () => toggle() });
  const slider = make("input", { type: "range", min: 0, max: count - 1, step: 1, class: "slider",
    "aria-label": label,
    oninput: () => { stop(); go(slider.valueAsNumber); } });
  const number = make("output", { class: "count" });
  const speed = make("select", { "aria-label": "speed of playing", class: "speed extra",
    onchange: () => { wait = SPEEDS[speed.selectedIndex][1]; if (timer) { stop(); toggle(); } } },
    SPEEDS.map(([word], i) => make("option", { value: word, selected: i === 1 }, word)));
  const el = make("div", { class: "player", role: "group", "aria-label": "position" }, play, slider,
    number, speed);

  const tick = () => {
    if (at() < count - 1) go(at() + 1);
    else if (loop) go(0);
    if (at() === count - 1 && !loop) stop();
  };
  const toggle = () => {
    if (timer || count < 2) return stop();
    if (at() === count - 1) go(0);
    timer = setInterval(tick, wait);
    return faced();
  };
  const stop = () => { clearInterval(timer); timer = 0; faced(); };
  const faced = () => {
    play.textContent = timer ? "❚❚ Pause" : "▶ Play";
    play.setAttribute("aria-label", timer ? "pause" : "play");
    play.disabled = count < 2; // "0 / 0" beside it says why
  };
  const jump = (by) => () => { stop(); go(at() + by); };
  const presented = () => Boolean(el.closest(".present"));
  const keys = {
    ArrowRight: jump(1), ArrowUp: jump(1), ArrowLeft: jump(-1), ArrowDown: jump(-1),
    PageUp: () => jump(presented() ? -1 : 5)(), PageDown: () => jump(presented() ? 1 : -5)(),
    " ": () => toggle(), Home: () => { stop(); go(0); }, End: () => { stop(); go(count - 1); },
  };
  const placed = () => {
    slider.max = count - 1;
    slider.value = at();
    slider.setAttribute("aria-valuetext", say(at()));
    number.textContent = shown(at());
  };
  const recount = (wanted) => { count = wanted; placed(); faced(); };
  const quiet = follow(model, [name], placed);
  faced();
  return { el, slider, keys, toggle, stop, recount, playing: () => timer !== 0,
    destroy: () => { stop(); quiet(); } };
}
