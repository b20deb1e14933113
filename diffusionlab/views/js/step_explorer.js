// with: kit.js, player.js, colours.js
// The step explorer: one run under one scrubber.

function render({ model, el }) {
  const data = model.get("data"), steps = data.steps;
  const say = (i) => `step ${i} of ${steps.length - 1}, timestep ${told(steps[i].level.timestep)}`;
  const scrub = player({ model, count: steps.length, say });
  const frame = shell({ model, el, title: data.title, keys: scrub.keys,
    help: "Keys: ← → step, Home, End, space plays, p present, t light or dark." });
  const screens = Object.values(data.reels).map((reel) => screen(reel));
  const line = make("p", { class: "equation" });
  frame.body.append(make("div", { class: "row" }, screens.map((s) => s.el)), line, scrub.el);
  const quiet = follow(model, ["step"], () => {
    const i = inside(model.get("step"), steps.length);
    screens.forEach((s) => s.show(i));
    line.textContent = `x_next = ${told(steps[i].update.a)}·x`;
  });
  return () => { quiet(); scrub.destroy(); frame.destroy(); };
}

export default { render };
