// with: kit.js, player.js, colours.js, text_explorer.css
// The text explorer: the prompt in pieces; how alike they are to the encoder; where each looks.

const KINDS = { start: "start of the text", word: "piece of a word", end: "end of the text",
  pad: "padding" };
const MANY = 12; // names along a heat map

function render({ model, el }) {
  const data = model.get("data"), count = Math.max(data.names.length, 1);
  const at = () => inside(model.get("piece"), count);
  const say = (i) => data.names.length
    ? `position ${i} of ${count - 1}: ${data.names[i]}` : "no positions";
  const scrub = player({ model, name: "piece", count, label: "position in the text", say,
    number: (i) => `position ${i}` });
  const frame = shell({ model, el, title: data.title, keys: scrub.keys,
    help: "Keys: ← → position, PageUp, PageDown, Home, End; space plays; in a row of buttons the "
      + "arrows walk along it; p present, t light or dark." });
  let pointed = -1, before = -1; // a piece under the pointer or the focus, until another is chosen
  const here = () => (pointed < 0 ? at() : pointed);
  const pieces = pieceStrip(data, (i) => put(model, "piece", i), (i) => { pointed = i; draw(); });
  const prompt = promptLine(data), heard = spoken();
  const about = make("p", { class: "sentence" }), all = make("p", { class: "quiet extra" });
  all.append(bdi(data.told));
  const deep = stateSlider(model, data), alike = alikeCard(model, data);
  const looks = lookCard(model, data), moves = moveCard(data);
  const cards = make("div", { class: "cards", hidden: !data.states.names.length }, alike.el,
    looks.el, moves.el);
  const notices = [...data.notices, data.states.bad, ...(data.attention?.checks ?? []),
    ...(data.moves?.checks ?? [])].filter(Boolean);
  frame.root.classList.add("text-view");
  frame.body.append(prompt.el, pieces.el, all, scrub.el, about, deep.el, cards,
    make("div", { class: "notices extra" }, notices.map((text) => make("p", { class: "warn" },
      bdi(text)))), tokenTable(data), pairTable(data.image_text), heard.el);
  const draw = () => {
    if (before !== at()) pointed = -1;
    before = at();
    const is = { piece: here(), chosen: at(), state: inside(model.get("state"),
      Math.max(data.states.names.length, 1)), of: model.get("of"), heads: model.get("heads"),
      centred: Boolean(model.get("centred")) };
    pieces.show(is.chosen, is.piece);
    prompt.show(is.piece);
    about.replaceChildren(bdi(pieceText(data, is.piece)));
    for (const part of [deep, alike, looks, moves]) part.show(is);
    heard.say(about.textContent);
  };
  const quiet = follow(model, ["piece", "state", "of", "centred", "heads"], draw);
  return () => { quiet(); scrub.destroy(); heard.destroy(); frame.destroy(); };
}

// ---- the prompt and its pieces ------------------------------------------------------------------
function pieceText(data, i) {
  const piece = data.pieces[i];
  if (!piece) return data.names.length ? `${data.names[i]}.` : data.told;
  const word = piece.word == null ? null : data.words[piece.word];
  const place = `Position ${i}: “${data.names[i]}”, id ${piece.id}, `;
  if (!word) {
    const pads = piece.kind === "pad" && data.pads > 1 ? `, the first of ${data.pads}` : "";
    return `${place}${KINDS[piece.kind] ?? piece.kind}${pads}.`;
  }
  const whole = piece.parts === 1 ? `the whole word “${word.name}”`
    : `piece ${piece.part} of ${piece.parts} of the word “${word.name}”`;
  const byte = piece.byte ? `, byte ${piece.byte[0]} of ${piece.byte[1]} of one character` : "";
  return `${place}${whole}${byte}${spanText(piece.span)}.`;
}

// Characters are counted from 0, as Python counts them: code points, not JavaScript's halves.
function spanText(span) {
  if (!span) return "";
  const [first, last] = span;
  return last - first === 1 ? `, character ${first} of the prompt`
    : `, characters ${first} to ${last - 1} of the prompt`;
}

// Scrolls a box of its own, never the page, until a child of it is seen.
function reveal(box, { offsetTop: top, offsetHeight: tall }) {
  if (top < box.scrollTop || top + tall > box.scrollTop + box.clientHeight) box.scrollTop = top - 4;
}

// The prompt with the chosen word marked and the chosen piece underlined in it.
function promptLine(data) {
  const letters = Array.from(data.prompt), text = (a, b) => letters.slice(a, b).join("");
  const [before, head, part, tail, after] = ["", "", "", "", ""].map((one) =>
    document.createTextNode(one));
  const mark = make("mark", {}, head, make("span", { class: "part" }, part), tail);
  const el = make("p", { class: "prompt", dir: "auto", tabindex: "0" }, before, mark, after);
  const show = (i) => {
    const piece = data.pieces[i], word = data.words[piece?.word ?? -1]?.span;
    const [a, d] = word ?? [letters.length, letters.length];
    const [b, c] = piece?.span && word ? piece.span : [a, d];
    const cuts = [0, a, b, c, d, letters.length];
    [before, head, part, tail, after].forEach((node, j) => {
      node.data = text(cuts[j], cuts[j + 1]);
    });
    mark.classList.toggle("none", !word);
    if (word) reveal(el, mark);
  };
  return { el, show };
}

// One button for each position, those of one word under one bracket; then what was cut off.
function pieceStrip(data, chosen, pointed) {
  const faces = data.names.map((name, i) => {
    const piece = data.pieces[i], pads = piece?.kind === "pad" ? data.pads : 0;
    return make("span", { class: "face" }, make("span", { class: "text" }, bdi(name),
      pads > 1 ? ` × ${pads}` : ""), make("span", { class: "id" }, piece ? String(piece.id) : "–"));
  });
  const row = chooser({ label: "pieces of the prompt", items: faces, chosen, pointed });
  row.el.classList.add("pieces");
  const groups = [];
  row.buttons.forEach((button, i) => {
    const piece = data.pieces[i], word = piece?.word ?? null;
    button.classList.add(piece?.kind ?? "row");
    const last = groups[groups.length - 1];
    if (word !== null && last?.word === word) last.buttons.push(button);
    else groups.push({ word, buttons: [button] });
  });
  row.el.replaceChildren(...groups.map(({ word, buttons }) => make("span", { role: "presentation",
    class: `group ${buttons.length > 1 ? "joined" : ""} ${word % 2 ? "odd" : "even"}` }, buttons)));
  const cut = data.cut, more = cut.dropped > cut.words.length ? " …" : "";
  const lost = make("p", { class: "lost", hidden: !cut.dropped },
    `✂ kept ${cut.kept} pieces, cut off ${cut.dropped}: `, make("s", {}, cut.words.map((word) =>
      [bdi(word), " "]).flat()), more);
  const show = (index, near) => {
    row.show(index);
    row.buttons.forEach((button, i) => button.classList.toggle("near", i === near));
    if (row.buttons[near]) reveal(row.el, row.buttons[near]);
  };
  return { el: make("div", {}, row.el, lost), show };
}

// The same positions as a table, for reading and for copying.
function tokenTable(data) {
  const heads = ["position", "piece", "id", "kind", "word", "characters"];
  const rows = data.pieces.map((piece, i) => [i, data.names[i], piece.id, piece.kind,
    data.words[piece.word ?? -1]?.name ?? "–",
    piece.span ? `${piece.span[0]} … ${piece.span[1] - 1}` : "–"]);
  return make("details", { class: "extra", hidden: !rows.length }, make("summary", {},
    "All positions as a table"), make("table", {}, make("tr", {}, heads.map((head) =>
    make("th", { scope: "col" }, head))), rows.map((row) => make("tr", {}, row.map((cell) =>
    make("td", {}, bdi(cell)))))));
}

// ---- layers -------------------------------------------------------------------------------------
// The second slider: which state of the text encoder the numbers below are taken from.
function stateSlider(model, data) {
  const names = data.states.names, single = names.length < 2;
  const told = make("output", {});
  const slider = make("input", { type: "range", min: 0, max: Math.max(names.length - 1, 0), step: 1,
    class: "slider", disabled: single, "aria-label": "layer of the text encoder",
    "data-lm-suppress-shortcuts": "true",
    oninput: () => put(model, "state", slider.valueAsNumber),
    onkeydown: (event) => { if (event.key.length > 1) event.stopPropagation(); } });
  const why = make("span", { class: "quiet" }, single ? data.states.why : "");
  const el = make("div", { class: "player deep" + (single ? "" : " several"),
    role: "group", "aria-label": "layer" },
    make("span", { class: "name" }, "Layer"), slider, told, why);
  const show = ({ state }) => {
    slider.value = state;
    slider.setAttribute("aria-valuetext", names[state] ?? "no layers");
    told.textContent = names[state] ?? "";
  };
  return { el, show };
}

// A heat map (n × n) with its names; `rows` are clickable.
function heatMap(picked) {
  const canvas = make("canvas", { role: "img", class: "sharp" });
  const rowMark = make("span", { class: "rowmark" });
  const left = make("div", { class: "left", "aria-hidden": "true" });
  const below = make("div", { class: "below", "aria-hidden": "true" });
  const plane = make("div", { class: "plane" }, canvas, rowMark);
  const el = make("div", { class: "map" }, left, plane, make("span", {}), below);
  let shown = [], painted = "";
  plane.addEventListener("click", (event) => {
    const box = plane.getBoundingClientRect();
    picked(inside(Math.floor(shown.length * (event.clientY - box.top) / box.height), shown.length));
  });
  const show = ({ key, values, names, row, colours, alt }) => {
    if (key !== painted) heat(canvas, values(), names.length, colours);
    painted = key;
    canvas.setAttribute("aria-label", alt);
    const every = Math.ceil(names.length / MANY);
    const text = (name, i) => (i === row || (i % every === 0 && Math.abs(i - row) >= every)
      || every === 1 ? short(name) : "");
    if (shown !== names) {
      left.replaceChildren(...names.map(() => make("bdi", {})));
      below.replaceChildren(...names.map(() => make("bdi", {})));
      shown = names;
    }
    names.forEach((name, i) => {
      for (const line of [left, below]) {
        const label = line.children[i], now = text(name, i);
        if (label.textContent !== now) label.textContent = now;
        label.classList.toggle("here", i === row);
      }
    });
    rowMark.style.top = `${100 * row / names.length}%`;
    rowMark.style.height = `${100 / names.length}%`;
  };
  return { el, show };
}

// At most ten characters of a name.
function short(name) {
  const letters = Array.from(name);
  return letters.length > 10 ? letters.slice(0, 9).join("") + "…" : name;
}

// A name in a sentence, with its position where it stands several times.
function quoted(names, i) {
  const several = names.indexOf(names[i]) !== names.lastIndexOf(names[i]);
  return `“${names[i]}”` + (several ? ` (position ${i})` : "");
}

// The largest numbers of a row as bars with their names.
function ranking() {
  const el = make("ol", { class: "ranking extra" });
  const show = (names, values, leave, most = 5) => {
    const order = Array.from(values, (value, i) => i).filter((i) => i !== leave
      && Number.isFinite(values[i])).sort((a, b) => values[b] - values[a]).slice(0, most);
    el.replaceChildren(...order.map((i) => make("li", {}, make("span", { class: "who" },
      bdi(names[i])), make("span", { class: "length" }, make("span", { class: "fill",
      style: `width:${100 * Math.min(Math.abs(values[i]), 1)}%` })),
      make("span", { class: "value" }, told(values[i])))));
    return order;
  };
  return { el, show };
}

function rowOf(packed, state, row) {
  const wide = packed.shape[2], start = (state * packed.shape[1] + row) * wide;
  return packed.values.subarray(start, start + wide);
}

function planeOf(packed, state) {
  const size = packed.shape[1] * packed.shape[2];
  return packed.values.subarray(state * size, (state + 1) * size);
}

// ---- how alike ----------------------------------------------------------------------------------
function alikeCard(model, data) {
  const states = data.states, wordNames = data.words.map((word) => word.name);
  const tables = { tokens: states.tokens?.map(unpack), words: states.words?.map(unpack) };
  const toWord = (i) => data.pieces[i]?.word ?? -1;
  const firstOf = (word) => data.pieces.findIndex((piece) => piece.word === word);
  const kinds = ["tokens", "words"];
  const of = chooser({ label: "what is compared", items: kinds,
    chosen: (i) => put(model, "of", kinds[i]) });
  of.buttons[1].disabled = !tables.words;
  const centred = make("input", { type: "checkbox",
    onchange: () => put(model, "centred", centred.checked) });
  const map = heatMap((row) => put(model, "piece", model.get("of") === "words" && tables.words
    ? firstOf(row) : row));
  const list = ranking(), said = make("p", { class: "said" });
  const why = make("p", { class: "quiet" }, tables.words || !states.names.length ? ""
    : "Fewer than two words are named here, so only tokens are compared.");
  const body = make("div", { class: "cardbody", hidden: !states.names.length }, said,
    make("div", { class: "choices extra" }, of.el, make("label", {}, centred,
      " without what is common to all")), map.el,
    bar(SIGNED, "−1", "1", "cosine of two rows"), list.el);
  const el = make("section", { class: "card" }, make("h3", {}, "How alike"), body, why);
  const show = (is) => {
    if (!states.names.length) return;
    const words = is.of === "words" && Boolean(tables.words);
    const names = words ? wordNames : data.names, table = (words ? tables.words : tables.tokens)[
      is.centred ? 1 : 0];
    const row = words ? toWord(is.piece) : is.piece;
    of.show(words ? 1 : 0);
    centred.checked = is.centred;
    const values = row < 0 ? [] : rowOf(table, is.state, row);
    const order = list.show(names, values, row);
    const text = alikeText(data, names, values, row, order[0]);
    said.replaceChildren(bdi(text));
    map.show({ key: [is.state, words, is.centred].join(), values: () => planeOf(table, is.state),
      names, row, colours: { low: -1, high: 1,
      table: SIGNED }, alt: `cosines of ${names.length} ${words ? "words" : "tokens"}, `
        + `${states.names[is.state]}. ${text}` });
  };
  return { el, show };
}

function alikeText(data, names, values, row, best) {
  if (row < 0) return "This position belongs to no word.";
  if (best === undefined) return `“${names[row]}” has nothing to be compared with.`;
  return `Nearest to ${quoted(names, row)} is ${quoted(names, best)}, cosine `
    + `${told(values[best])}; random directions have 0 ± ${told(data.states.chance, 2)}.`;
}

// ---- where it looks -----------------------------------------------------------------------------
function lookCard(model, data) {
  const attention = data.attention, kinds = ["mean", "max"];
  const maps = attention && { mean: unpack(attention.mean), max: unpack(attention.max) };
  const depth = maps ? maps.mean.shape[0] : 0;
  const heads = chooser({ label: "heads", items: [`mean of ${attention?.heads ?? 0} heads`,
    "largest of the heads"], chosen: (i) => put(model, "heads", kinds[i]) });
  const map = heatMap((row) => put(model, "piece", row)), list = ranking();
  const said = make("p", { class: "said" }), why = make("p", {});
  const body = make("div", { class: "cardbody" }, said,
    make("div", { class: "choices extra" }, heads.el),
    map.el, bar(VIRIDIS, "0", "1", "probability (grey: not seen)"), list.el);
  const el = make("section", { class: "card", hidden: !maps }, make("h3", {}, "Where it looks"),
    why, body);
  const show = (is) => {
    const layer = is.state - 1, there = Boolean(maps) && layer >= 0 && layer < depth;
    body.hidden = !there;
    why.hidden = there;
    if (!there) {
      why.textContent = layer < 0 ? "No layer has run yet: no token has looked at another one."
        : "The closing normalisation looks at no other token: choose a layer.";
      return;
    }
    const table = maps[is.heads === "max" ? "max" : "mean"], names = data.names;
    heads.show(is.heads === "max" ? 1 : 0);
    const row = rowOf(table, layer, is.piece);
    const order = list.show(names, row.subarray(0, is.piece + 1), -1);
    const text = lookText(data, is, layer, row, order[0]);
    said.replaceChildren(bdi(text));
    const values = () => Float32Array.from(planeOf(table, layer), (value, i) =>
      (i % names.length > Math.floor(i / names.length) && value === 0 ? NaN : value));
    map.show({ key: [layer, is.heads].join(), values, names, row: is.piece,
      colours: { low: 0, high: 1 },
      alt: `attention of ${names.length} tokens, layer ${layer + 1}. ${text}` });
  };
  return { el, show };
}

function lookText(data, { piece, heads }, layer, row, best) {
  const whose = heads === "max" ? "one head of layer" : "layer";
  const seen = `it sees positions 0 to ${piece}, ${piece + 1} of `
    + `${data.names.length + Math.max(data.pads - 1, 0)}; all later ones get `
    + `${told(data.attention.later)} (causal mask).`;
  const own = quoted(data.names, piece);
  if (best === undefined) return `${own}: ${seen}`;
  return `In ${whose} ${layer + 1} ${own} looks most at ${best === piece ? "itself"
    : quoted(data.names, best)}: ${told(row[best])}; ${seen}`;
}

// ---- how far it moves ---------------------------------------------------------------------------
// A bar for each layer: how far it moves the chosen token, as a share of its length.
function moveCard(data) {
  const moves = data.moves, changes = moves && unpack(moves.changes);
  const starts = moves && unpack(moves.to_start), said = make("p", {});
  const bars = make("div", { class: "bars", role: "img" });
  const el = make("section", { class: "card extra", hidden: !moves },
    make("h3", {}, "How far each layer moves it"), said, bars,
    make("p", { class: "quiet" }, "layer by layer, × its length (bars on a logarithmic scale)"));
  const of = (table, i, piece) => table.values[i * table.shape[1] + piece];
  const show = ({ piece, state }) => {
    if (!moves) return;
    const far = Array.from({ length: changes.shape[0] }, (_, i) => of(changes, i, piece));
    const top = Math.max(...far.filter(Number.isFinite), 1e-9);
    const most = far.indexOf(Math.max(...far.filter(Number.isFinite)));
    bars.replaceChildren(...far.map((value, i) => make("div", { class: i + 1 === state ? "bar1 now"
      : "bar1" }, make("span", { class: "value" }, told(value, 2)), make("span", { class: "column",
      style: `height:${Number.isFinite(value) ? 6 * Math.log1p(value) / Math.log1p(top) : 0}em` }),
      make("span", {}, String(i + 1)))));
    const end = of(starts, starts.shape[0] - 1, piece);
    const text = most < 0 ? "Its rows are not finite." : `Layer ${most + 1} moves `
      + `“${data.names[piece]}” most, by ${told(far[most])} × its length; after the last layer `
      + `its cosine with the row before layer 1 is ${told(end)}.`;
    said.replaceChildren(bdi(text));
    bars.setAttribute("aria-label", `share of its length, layer by layer: `
      + far.map((value) => told(value, 2)).join(", "));
  };
  return { el, show };
}

// ---- pictures against captions ------------------------------------------------------------------
function pairTable(found) {
  const el = make("section", { class: "pairs extra", hidden: !found });
  if (!found) return el;
  const { values, shape } = unpack(found.matrix), wide = shape[1];
  const heads = found.captions.map((_, i) => {
    if (!found.reel) return make("th", { scope: "col" }, `picture ${i}`);
    const one = screen(found.reel, { label: "" });
    one.show(i);
    return make("th", { scope: "col" }, one.el);
  });
  const best = (row) => values.subarray(row * wide, (row + 1) * wide).reduce((a, v, i, all) =>
    (v > all[a] ? i : a), 0);
  const pictureBest = heads.map((_, i) => best(i));
  const rows = found.captions.map((caption, j) => make("tr", {}, make("th", { scope: "row" },
    bdi(caption)), heads.map((_, i) => make("td", { class: pictureBest[i] === j ? "best" : "" },
    told(values[i * wide + j], 2) + (pictureBest[i] === j ? " ★" : "")))));
  el.append(make("h3", {}, "Pictures against captions"), make("p", {}, bdi(found.told)),
    make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "table of cosines" },
      make("table", {}, make("tr", {}, make("td", {}), heads), rows)),
    make("p", { class: "quiet" }, "★ the caption with the largest cosine of each picture"));
  return el;
}

export default { render };
