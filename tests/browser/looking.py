"""What tests ask of a page, whatever view is on it: controls, names, room, what stays behind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GROUPS = "[role=radiogroup],[role=toolbar],[role=listbox],[role=tablist],[role=grid],[role=group]"
NATIVE = "button,input,select,textarea,summary,a[href],[contenteditable=true],[tabindex='0']"

# Runs before the page's own script: remembers its listeners and timers until they are let go.
REMEMBER = """
(() => {
  const held = globalThis.held = { listeners: [], timers: new Set() };
  const target = EventTarget.prototype, add = target.addEventListener;
  const remove = target.removeEventListener;
  const drop = (t, type, f) => {
    held.listeners = held.listeners.filter((l) => l.t !== t || l.type !== type || l.f !== f);
  };
  const own = () => new Error().stack.includes("file:"); // not the test's own
  target.addEventListener = function (type, f, given) {
    if (own()) held.listeners.push({ t: this ?? globalThis, type, f });
    if (given?.signal) add.call(given.signal, "abort", () => drop(this, type, f));
    return add.call(this ?? globalThis, type, f, given);
  };
  target.removeEventListener = function (type, f, given) {
    drop(this ?? globalThis, type, f);
    return remove.call(this ?? globalThis, type, f, given);
  };
  for (const [start, end, once] of [["setInterval", "clearInterval", false],
    ["setTimeout", "clearTimeout", true],
    ["requestAnimationFrame", "cancelAnimationFrame", true]]) {
    const begin = globalThis[start], quit = globalThis[end];
    globalThis[start] = (f, ...rest) => {
      const id = begin((...given) => { if (once) held.timers.delete(start + id); f(...given); },
        ...rest);
      if (own()) held.timers.add(start + id);
      return id;
    };
    globalThis[end] = (id) => { held.timers.delete(start + id); quit(id); };
  }
  held.outside = () => held.listeners.filter(({ t }) => !(t instanceof AbortSignal)
    && (!(t instanceof Node) || t.isConnected)).map(({ t, type }) =>
      (t.nodeName ?? t.constructor.name) + " " + type);
})();
"""

# Numbers everything that a mouse can press; `mine` tells which of them the focus is on.
FIND = """
([kinds, groups, elsewhere]) => {
  const shown = (el) => el.checkVisibility({ visibilityProperty: true })
    && el.getClientRects().length > 0 && !el.closest("[inert]");
  const found = [...document.querySelectorAll(".dl")].flatMap((root) =>
    [...root.querySelectorAll(kinds)]).filter((el) => shown(el) && !el.matches(":disabled")
    && !el.matches(elsewhere));
  globalThis.found = found;
  globalThis.mine = () => document.hasFocus() ? found.indexOf(document.activeElement) : -1;
  const told = (el) => el.tagName.toLowerCase() + " " + (el.getAttribute("aria-label")
    || el.textContent || el.className);
  const group = (el) => el.matches("input[type=radio]") ? "name " + el.name
    : [...document.querySelectorAll(groups)].lastIndexOf(el.closest(groups));
  return found.map((el) => ({ told: told(el), group: group(el) }));
}
"""

# Elements that hear the mouse, but have no way for the keyboard in, on, around or elsewhere.
MOUSE_ONLY = """
([kinds, elsewhere]) => {
  const mouse = /^(click|dblclick|mouse|pointer(down|up|move|enter|over)|touch)/;
  const deaf = (el) => !el.matches(elsewhere) && !el.matches(kinds)
    && !el.querySelector(kinds) && !el.closest(kinds) && !el.closest("label") && el.tabIndex < 0;
  return [...new Set(held.listeners.filter(({ t, type }) => t instanceof Element && t.isConnected
    && mouse.test(type) && t.matches(".dl *") && t.checkVisibility() && deaf(t))
    .map(({ t, type }) => t.tagName + "." + t.className + " " + type))];
}
"""

# Every picture with its accessible name and what it shows.
PICTURES = """
() => {
  const text = (ids) => ids.split(/\\s+/)
    .map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim();
  const name = (el) => text(el.getAttribute("aria-labelledby") ?? "")
    || (el.getAttribute("aria-label") ?? el.getAttribute("alt")
    ?? el.querySelector(":scope > title")?.textContent ?? "").trim();
  const kinds = ".dl canvas, .dl img, .dl svg, .dl [role=img]";
  globalThis.pictures ??= [...document.querySelectorAll(kinds)].filter((el) =>
    !el.closest("[aria-hidden=true]") && !el.parentElement.closest("[role=img]")
    && !(el.getAttribute("alt") === "" && el.closest("button")?.ariaLabel)); // its button is named
  const shown = (el) => el.checkVisibility({ visibilityProperty: true }) && !el.closest("[inert]");
  return pictures.filter(shown).map((el) => ({
    at: pictures.indexOf(el), tag: el.tagName.toLowerCase(), role: el.getAttribute("role"),
    name: name(el),
    shows: el instanceof HTMLCanvasElement ? el.toDataURL()
      : el instanceof HTMLImageElement ? el.src : el.innerHTML }));
}
"""

# Room: what is wider than the window, and where the first large picture and the scrubber are.
ROOM = """
() => {
  const root = document.querySelector(".dl"), page = document.scrollingElement;
  const box = (el) => { const r = el.getBoundingClientRect();
    return { left: r.left, top: r.top, right: r.right, bottom: r.bottom,
      area: r.width * r.height }; };
  const seen = (kinds) => [...root.querySelectorAll(kinds)].filter((el) =>
    el.checkVisibility({ visibilityProperty: true }) && !el.closest("[inert]"));
  const pictures = seen("[role=img], img").map(box);
  const scrub = seen(".player, input[type=range]").map(box);
  const wider = seen("*").filter((el) => !el.closest("svg *, .spoken")
    && box(el).right > innerWidth + 1).map((el) => el.tagName + "." + el.className);
  const small = seen("*").filter((el) => !el.matches("option, .spoken, .spoken *")
    && [...el.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((el) => {
      const matrix = el.ownerSVGElement ? el.getScreenCTM() : { a: 1, b: 0 }; // may be turned
      const scale = Math.hypot(matrix.a, matrix.b);
      return [parseFloat(getComputedStyle(el).fontSize) * scale, el.textContent.slice(0, 30)];
    }).sort((a, b) => a[0] - b[0]);
  return { width: innerWidth, height: innerHeight,
    over: Math.max(page.scrollWidth - innerWidth, root.scrollWidth - root.clientWidth), wider,
    picture: pictures.find((one) => one.area >= 30_000) ?? pictures[0] ?? null,
    scrub: scrub[0] ?? null, smallest: small[0] ?? null };
}
"""

TREE = """
() => [...document.querySelector("html").querySelectorAll("*")].map((el) =>
  el.tagName + " " + [...el.attributes].map((a) => a.name).sort().join(" "))
"""
REST = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass
class Page:
    """A page of any text, which `opened` shows as it shows a view's file."""

    page: str

    def save(self, path: Path) -> Path:
        path.write_text(self.page, encoding="utf-8")
        return path


def that_can_end(view: Any) -> Page:
    """The view's page, with what its script returns as `quit()`."""
    call = "render({ model, el: root });"
    assert view.page.count(call) == 1
    return Page(view.page.replace(call, f"globalThis.quit = {call}"))


def rest(found: Any) -> None:
    """Waits for two frames: everything that a key changed is drawn."""
    found.js(REST)


# ---- the keyboard ------------------------------------------------------------------------------
def unreached(found: Any, elsewhere: str = "none") -> list[str]:
    """Controls that neither Tab nor, within a group, the arrow keys come to."""
    controls = found.js(FIND, [NATIVE, GROUPS, elsewhere])
    found.js("document.querySelector('.dl').focus()")
    reached = tabbed(found, len(controls))
    for at in sorted(reached):
        friends = {i for i, c in enumerate(controls) if c["group"] == controls[at]["group"] != -1}
        if friends - reached:
            reached = reached | by_arrows(found, at, len(friends))
    return [control["told"] for i, control in enumerate(controls) if i not in reached]


def tabbed(found: Any, count: int) -> set[int]:
    """The controls that Tab comes to until it leaves the view or begins again."""
    reached: set[int] = set()
    for _ in range(count + 20):
        found.page.keyboard.press("Tab")
        at = found.js("mine()")
        if at in reached or found.js("document.activeElement === document.body"):
            break
        reached.add(at)
    return reached - {-1}


def by_arrows(found: Any, start: int, count: int) -> set[int]:
    """The controls that arrow keys come to from one of a group."""
    reached: set[int] = set()
    for key in ("ArrowRight", "ArrowDown"):
        found.js("(at) => found[at].focus()", start)
        for _ in range(count):
            found.page.keyboard.press(key)
            reached.add(found.js("mine()"))
    return reached - {-1}


# ---- axe-core ------------------------------------------------------------------------------------
@cache
def axe_script() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


def serious(found: Any) -> list[str]:
    """What axe-core finds that is serious or critical, with the first element of each."""
    if not found.js("Boolean(globalThis.axe)"):
        found.js(f"() => {{ {axe_script()} }}")
    result = found.js("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{v['id']}: {v['help']} ({v['nodes'][0]['html'][:120]}; {v['nodes'][0]['failureSummary']})"
        for v in result["violations"]
        if v["impact"] in ("serious", "critical")
    ]
