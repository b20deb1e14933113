// with: kit.js, playground.css
// The playground's desk: how far the run is, what was said, the code, and the runs that are kept.
// Python sets the values, this side only sends messages (so a thread and the page never collide).

function render({ model, el }) {
  const frame = shell({ model, el, title: "Playground",
    help: "Keys: p present (the run, large, and the kept ones beside it), t light or dark." });
  frame.root.classList.add("desk");
  const parts = [progress(model), code(model), strip(model)];
  frame.body.append(...parts.map((part) => part.el));
  return () => { parts.forEach((part) => part.destroy()); frame.destroy(); };
}

// The bar, what the network believes meanwhile, and every message as text.
function progress(model) {
  const bar = make("progress", { max: 1, "aria-label": "steps of the run" });
  const picture = make("img", { class: "belief sharp", alt: "", hidden: true });
  const text = make("p", { class: "state", role: "status" });
  const notes = make("p", { class: "quiet notes" });
  const waits = make("p", { class: "waits", hidden: true },
    "Another run waits: it begins when this one is over.");
  const error = make("p", { class: "warn error", role: "alert" });
  const invalid = make("p", { class: "warn invalid", role: "alert" });
  const el = make("div", { class: "run" }, picture,
    make("div", { class: "beside" }, bar, text, notes, waits, error, invalid));
  const quiet = follow(model, ["status"], () => {
    const now = model.get("status"), idle = now.phase === "idle";
    bar.max = Math.max(now.total, 1);
    bar.value = now.done;
    bar.hidden = idle;
    bar.setAttribute("aria-valuetext", `${now.done} of ${now.total} steps`);
    picture.hidden = idle || now.picture == null;
    if (now.picture != null) picture.src = now.picture;
    picture.alt = now.picture_alt;
    text.textContent = now.text;
    write(notes, now.notes.map((note) => "Notice: " + note + ".").join(" "));
    waits.hidden = !now.queued;
    write(error, now.error);
    write(invalid, now.invalid === now.error ? "" : now.invalid);
    el.dataset.phase = now.phase;
  });
  return { el, destroy: quiet };
}

// Errors and notices quote what the user wrote: each keeps its own direction.
function write(element, text) {
  element.hidden = !text;
  if (element.textContent !== text) element.replaceChildren(...(text ? [bdi(text)] : []));
}

// The form as one line of Python, to be copied.
function code(model) {
  const area = make("textarea", { readonly: true, rows: 2, spellcheck: "false", dir: "ltr",
    "aria-label": "the same run as code", onfocus: () => area.select() });
  const copied = make("span", { role: "status", class: "quiet" });
  const copy = make("button", { type: "button", onclick: () => {
    const say = (done) => { copied.textContent = done ? "copied" : "press Ctrl+C"; };
    area.focus();
    area.select();
    const wrote = globalThis.navigator?.clipboard?.writeText(area.value);
    if (wrote) wrote.then(() => say(true), () => say(document.execCommand("copy")));
    else say(document.execCommand("copy"));
  } }, "Copy");
  const el = make("div", { class: "code extra" }, area, make("div", {}, copy, copied));
  const quiet = follow(model, ["line"], () => {
    area.value = model.get("line");
    copy.disabled = !area.value;
    copied.textContent = "";
  });
  return { el, destroy: quiet };
}

// The kept runs: press a picture to see that run again, tick some to compare them.
function strip(model) {
  const list = make("ul", { class: "tiles" }), tiles = new Map();
  const most = model.get("data").most;
  const compare = make("button", { type: "button",
    onclick: () => model.send?.({ kind: "compare" }) });
  const told = make("p", { class: "quiet" });
  const heading = make("h3", { class: "extra" }, "Runs");
  const el = make("div", { class: "strip" }, heading, list,
    make("div", { class: "row extra" }, compare, told));
  const tick = () => model.send?.({ kind: "choose",
    value: [...tiles].filter(([, tile]) => tile.box.checked).map(([id]) => id) });
  const faced = () => {
    const runs = model.get("runs"), chosen = model.get("chosen"), shown = model.get("shown");
    const there = new Set(runs.map((run) => run.id));
    for (const [id, tile] of tiles) if (!there.has(id)) { tile.el.remove(); tiles.delete(id); }
    for (const run of runs) {
      if (!tiles.has(run.id)) {
        tiles.set(run.id, tileOf(run, () => model.send?.({ kind: "show", value: run.id }), tick));
        list.append(tiles.get(run.id).el);
      }
      const tile = tiles.get(run.id);
      tile.button.setAttribute("aria-pressed", String(run.id === shown));
      tile.el.classList.toggle("shown", run.id === shown);
      tile.box.checked = chosen.includes(run.id);
    }
    el.hidden = runs.length === 0;
    compare.disabled = chosen.length < 2 || chosen.length > 9;
    compare.textContent = chosen.length > 2 ? `Race of ${chosen.length}` : "Difference of 2";
    told.textContent = compare.disabled
      ? "Tick two runs to see their difference, three to nine for a race."
      : `Chosen: ${chosen.map((id) => "run " + id).join(", ")}.`;
    heading.textContent = `Runs (the last ${most} are kept)`;
  };
  const quiet = follow(model, ["runs", "chosen", "shown"], faced);
  return { el, destroy: quiet };
}

function tileOf(run, show, tick) {
  const picture = run.source == null
    ? make("span", { class: "missing" }, "not finite")
    : make("img", { src: run.source, alt: run.alt, class: run.sharp ? "sharp" : null });
  const button = make("button", { type: "button", class: "thumb", onclick: show }, picture);
  const box = make("input", { type: "checkbox", onchange: tick });
  const label = make("label", {}, box, `run ${run.id}`);
  const el = make("li", { class: "tile" }, button, label, make("p", {}, bdi(run.prompt || "–")),
    make("p", { class: "quiet" }, run.how), run.ended && make("p", { class: "warn" }, run.ended));
  return { el, button, box };
}

export default { render };
