// What all views are built from. Text goes in as text (never as HTML), every key that works is
// told in the page, and nothing listens outside the view's own element except on a page of its own.

const REDUCED = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;

// JupyterLab leaves the keys of an element alone only if that very element says so.
const FOCUSABLE = "button, input, select, textarea, summary, a, [tabindex]";

// An element with attributes, "on…" listeners and children (strings become text).
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// The same for SVG.
function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child != null));
  if (element.matches(FOCUSABLE)) element.setAttribute("data-lm-suppress-shortcuts", "true");
  return element;
}

// Text of a user, kept apart from the direction of the text around it.
function bdi(text) {
  return make("bdi", {}, String(text));
}

// A number with `digits` significant digits, whole ones below a million with all of theirs; what is
// not finite reads "∞", "−∞" or "NaN".
function told(value, digits = 3) {
  if (value == null) return "–";
  if (typeof value === "string") return value;
  const size = Math.abs(value), large = size >= 1e6;
  if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "NaN";
  const text = size !== 0 && (size < 1e-3 || large)
    ? value.toExponential(digits - 1).replace("e+", "e")
    : String(Number.isInteger(value) ? value : Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

// The array that Python's `packed` wrote: {values, shape}; halves become 32-bit floats.
function unpack(packed) {
  const text = atob(packed.data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  if (packed.kind === "uint8") return { values: bytes, shape: packed.shape };
  const width = packed.kind === "float16" ? 2 : 4;
  const values = new Float32Array(bytes.length / width);
  for (let i = 0; i < values.length; i++) {
    values[i] = width === 4 ? view.getFloat32(4 * i, true) : half(view.getUint16(2 * i, true));
  }
  return { values, shape: packed.shape };
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, rest = bits & 1023;
  if (power === 31) return rest ? NaN : sign * Infinity;
  return sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
}

// Parts of a title or sentence of Python's: ours as text, {text} of a user in a <bdi>; a text alone
// is a user's. Returns { nodes, name }.
function titled(told) {
  const parts = typeof told === "string" ? [{ text: told }] : told;
  const nodes = parts.map((part) => (typeof part === "string" ? part : bdi(part.text)));
  return { nodes, name: parts.map((part) => part.text ?? part).join("") };
}

// ---- the frame of a view -----------------------------------------------------------------------
// Builds header, body and footer in `el`; `keys` maps a key to what it does and `help` tells them.
// Returns { root, body, destroy }. Key p: present mode; t: light or dark.
function shell({ model, el, title, keys = {}, help = "" }) {
  const { nodes, name } = titled(title);
  const root = make("section", { class: "dl", "aria-label": name, tabindex: "-1" });
  root.dataset.theme = themeAround();
  const present = make("button", { type: "button", class: "tool", "aria-pressed": "false" },
    "Present (p)");
  const theme = make("button", { type: "button", class: "tool" }, "Light / dark (t)");
  const heading = make("h2", {}, nodes);
  const body = make("div", { class: "body" });
  const about = make("p", { class: "help extra" }, help || "Keys: p present, t light or dark.");
  root.append(make("header", {}, heading, make("div", { class: "tools" }, theme, present)), body,
    about);
  el.append(root);

  const showPresent = () => {
    const on = Boolean(root.classList.contains("present"));
    present.setAttribute("aria-pressed", String(on));
    present.textContent = on ? "Leave (p)" : "Present (p)";
  };
  const togglePresent = () => {
    const on = root.classList.toggle("present");
    if (on) root.requestFullscreen?.().catch(() => {}); // the class alone fills the window
    else if (document.fullscreenElement === root) document.exitFullscreen().catch(() => {});
    showPresent();
  };
  const around = new MutationObserver(() => { root.dataset.theme = themeAround(); });
  if (document.body) around.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  const toggleTheme = () => {
    around.disconnect(); // from now on the reader's choice
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  };
  present.addEventListener("click", togglePresent);
  theme.addEventListener("click", toggleTheme);
  const left = () => {
    if (document.fullscreenElement !== root && root.classList.contains("present")
      && !document.fullscreenElement && root.dataset.filled) {
      root.classList.remove("present");
      showPresent();
    }
    root.dataset.filled = document.fullscreenElement === root ? "yes" : "";
  };
  document.addEventListener("fullscreenchange", left);

  const all = { p: togglePresent, t: toggleTheme, ...keys };
  const pressed = (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && root.classList.contains("present")) togglePresent();
    else if (!all[keyOf(event)] || ofItsOwn(event)) return;
    else if (!event.repeat || MOVES.includes(event.key)) all[keyOf(event)](event); // held p: once
    event.preventDefault();
    event.stopPropagation(); // the notebook around has keys of its own
  };
  const place = model.standalone ? document : root;
  place.addEventListener("keydown", pressed);
  if (model.standalone && globalThis.location?.hash === "#present") togglePresent();
  const destroy = () => {
    place.removeEventListener("keydown", pressed);
    document.removeEventListener("fullscreenchange", left);
    around.disconnect();
    root.remove();
  };
  return { root, body, destroy };
}

// Whether a key means something to the control that has the focus: then it is not the view's. A
// slider other than the player's keeps its arrows, a field all keys, a button the space bar.
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home",
  "End"];

// A letter is the same key with Shift or Caps Lock.
function keyOf({ key }) {
  return key.length === 1 ? key.toLowerCase() : key;
}

function onButton(event) {
  return Boolean(event.target.closest?.("button, summary, a"));
}

function ofItsOwn(event) {
  const on = (kinds) => Boolean(event.target.closest?.(kinds));
  if (on("select, textarea, [contenteditable]")) return true;
  if (on("input:not([type=range], [type=checkbox], [type=radio])")) return true;
  if (event.key === " ") return onButton(event) || on("[type=checkbox], [type=radio]");
  return MOVES.includes(event.key) && on("[type=range]:not(.player .slider), [type=radio]");
}

// After a press by pointer the keys are the view's again: who came by Tab keeps the button.
function handBack(event) {
  if (event.detail > 0) event.currentTarget.closest(".dl")?.focus({ preventScroll: true });
}

// JupyterLab says its theme on the body; elsewhere the system's is taken.
function themeAround() {
  const lab = document.body?.dataset.jpThemeLight;
  if (lab) return lab === "false" ? "dark" : "light";
  return globalThis.matchMedia?.("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

// Sets a live value and tells Python, if there is one.
function put(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

// Calls `heard` now and at every change of the named values; returns what ends it.
function follow(model, names, heard) {
  for (const name of names) model.on("change:" + name, heard);
  heard();
  return () => names.forEach((name) => model.off("change:" + name, heard));
}

// A whole number from 0 to count − 1, whatever the other side sent.
function inside(value, count) {
  return Math.min(Math.max(Math.round(Number(value) || 0), 0), count - 1);
}

// ---- pictures ----------------------------------------------------------------------------------
// A reel of Python's on a canvas: show(index) draws at once, from pictures decoded beforehand.
// Returns { el, canvas, overlay, show, ready }; `overlay` is a second canvas above the picture.
function screen(reel, { label = reel.label } = {}) {
  const canvas = make("canvas", { role: "img", width: reel.width, height: reel.height,
    class: reel.sharp ? "sharp" : "" });
  const overlay = make("canvas", { class: "overlay sharp", width: 1, height: 1,
    "aria-hidden": "true" });
  const missing = make("p", { class: "missing", hidden: true });
  const caption = make("figcaption", {}, bdi(label));
  const el = make("figure", { class: "screen" },
    make("div", { class: "glass" }, canvas, overlay, missing), caption);
  el.style.setProperty("--ratio", reel.width / reel.height); // no picture is taller than the window
  const images = reel.sources.map((source) => {
    if (source == null) return null;
    const image = new Image();
    image.src = source; // a data address of our own making, never an address from a text
    return image;
  });
  let shown = -1;
  const paint = (index) => {
    const pen = canvas.getContext("2d", { willReadFrequently: true }), image = images[index];
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (image) pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    missing.hidden = Boolean(image);
    missing.textContent = image ? "" : reel.alts[index];
  };
  const show = (index) => {
    shown = index;
    canvas.setAttribute("aria-label", reel.alts[index]);
    const image = images[index];
    if (!image || image.complete) paint(index);
    else image.decode().then(() => shown === index && paint(index)).catch(() => {});
  };
  const ready = Promise.all(images.map((image) => image?.decode().catch(() => {})));
  return { el, canvas, overlay, caption, show, ready };
}

// A radio group of buttons in one row: one tab stop, arrow keys move (not after a press by
// pointer), a second press lets go where `loose`. `chosen(index)` is told −1 for none;
// `pointed(index)` is told hover and focus, −1 after.
function chooser({ label, items, chosen, pointed = () => {}, loose = false }) {
  const row = make("div", { role: loose ? "toolbar" : "radiogroup", class: "chooser",
    "aria-label": label });
  let now = -1;
  const buttons = items.map((item, index) => make("button", {
    type: "button", class: "choice", role: loose ? null : "radio", tabindex: "-1",
    onclick: (event) => { pick(loose && now === index ? -1 : index); handBack(event); },
    onpointerenter: () => pointed(index), onpointerleave: () => pointed(-1),
    onfocus: () => pointed(index), onblur: () => pointed(-1),
  }, item instanceof Node ? item : bdi(item)));
  row.append(...buttons);
  const pick = (index) => { show(index); chosen(index); };
  const show = (index) => {
    now = index;
    buttons.forEach((button, i) => {
      button.setAttribute(loose ? "aria-pressed" : "aria-checked", String(i === index));
      button.tabIndex = i === Math.max(index, 0) ? 0 : -1;
    });
  };
  row.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(event.target), last = buttons.length - 1;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1,
      Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (to + buttons.length) % buttons.length;
    buttons.forEach((button, i) => { button.tabIndex = i === next ? 0 : -1; });
    buttons[next].focus();
    if (!loose) pick(next);
  });
  show(-1);
  return { el: row, buttons, show };
}

// A sentence that screen readers hear when it rests for half a second (not at every frame).
function spoken() {
  const el = make("p", { class: "spoken", "aria-live": "polite" });
  let waiting = 0;
  const say = (text) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { el.textContent = text; }, 500);
  };
  return { el, say, destroy: () => clearTimeout(waiting) };
}
