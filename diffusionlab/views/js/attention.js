// Attention of a run: the words as buttons that light their map, and the words of one place.
// Every number is a share of the softmax: at each place all words, start, end and padding make 1.

const MOST_RANKED = 5;

// `screens` are the pictures (`marked`) on which a place can be pointed at, the map lies on those
// that are `lit`; `at()` is the shown step. Returns { el, ranked, paint, destroy }: the strip of
// words, and the words of a place.
function attention({ model, data, screens, lit, at }) {
  const maps = data.choices.map((choice) => unpack(choice.maps));
  let pointed = -1, layer = 0;
  const chosen = () => data.words.indexOf(model.get("word"));
  const strip = chooser({ label: "words of the prompt", items: data.words, loose: true,
    chosen: (index) => put(model, "word", index < 0 ? "" : data.words[index]),
    pointed: (index) => { pointed = index; paint(); } });
  strip.buttons.forEach((button, i) => {
    button.classList.toggle("special", data.kinds[i] !== "word");
    button.disabled = maps.length === 0;
  });
  const select = data.choices.length > 1 ? make("select", { class: "extra",
    "aria-label": "layers of the maps", "data-lm-suppress-shortcuts": "true",
    onchange: () => { layer = select.selectedIndex; paint(); } },
    data.choices.map((c) => make("option", {}, c.label))) : null;
  const pieces = make("p", { class: "word-pieces extra" });
  const ranked = make("div", { class: "ranked extra" });
  const speech = spoken();
  const el = make("div", { class: "words" }, strip.el, select, pieces, speech.el,
    data.missing ? make("p", { class: "quiet extra" }, bdi(data.missing)) : null,
    data.check ? make("p", { class: "warn" }, data.check) : null);

  // One word at the shown step: its bytes, row by row, and what each unit is worth (NaN: nothing).
  const bytesOf = (word) => {
    const { values, shape: [, steps, tall, wide] } = maps[layer], step = at();
    const top = data.choices[layer].tops[word][step], from = (word * steps + step) * tall * wide;
    const bytes = values.subarray(from, from + tall * wide);
    return { bytes, worth: typeof top === "number" ? top / 255 : NaN };
  };
  const size = () => maps[layer].shape.slice(2);

  // What the model reads of the word: its pieces and their ids; the line is never empty.
  const paintPieces = (word) => {
    const own = data.pieces[word] ?? [];
    pieces.replaceChildren(...(word >= 0 && own.length ? [bdi(data.words[word]), " is read as ",
      ...own.flatMap(([name, id], i) => [i ? " + " : "", make("b", {}, bdi(name)),
        make("small", {}, ` ${id}`)])]
      : [maps.length ? "Choose a word: its map, its pieces and their ids." : "\u00a0"]));
  };

  const paint = () => {
    const word = pointed >= 0 ? pointed : chosen();
    paintPieces(word);
    if (!maps.length) return;
    const choice = data.choices[layer];
    const { bytes, worth } = word < 0 ? { worth: NaN } : bytesOf(word), [, wide] = size();
    const good = Number.isFinite(worth);
    for (const { overlay, caption, legend } of lit) {
      overlay.hidden = !good;
      if (good) heat(overlay, bytes, wide, { high: 255, alpha: (unit) => 90 + 110 * unit });
      legend.hidden = word < 0;
      caption.hidden = word >= 0;
      if (word < 0) continue;
      legend.children[2].textContent = good ? told(255 * worth, 2) : "–";
      legend.children[3].replaceChildren(good ? "probability of " : "NaN or infinity in ",
        make("b", {}, bdi(data.words[word])));
      legend.title = `${choice.reduction}; the colours end at this word's largest at this step`;
    }
    paintPlace();
  };

  const paintPlace = () => {
    const cell = place.cell(), [tall, wide] = size();
    for (const { mark } of screens) {
      mark.hidden = !cell;
      if (!cell) continue;
      Object.assign(mark.style, { left: 100 * cell[1] / wide + "%", top: 100 * cell[0] / tall + "%",
        width: 100 / wide + "%", height: 100 / tall + "%" });
    }
    const amounts = data.words.map((_, word) => {
      const { bytes, worth } = bytesOf(word);
      if (cell) return bytes[cell[0] * wide + cell[1]] * worth;
      let sum = 0;
      for (const byte of bytes) sum += byte;
      return sum / bytes.length * worth;
    });
    const where = cell ? `row ${cell[0]}, column ${cell[1]}` : "everywhere";
    const rows = ranking(data, amounts);
    ranked.replaceChildren(make("span", { class: "where" }, where + ":"),
      make("ol", {}, rows.map(([name, share]) => amountOf(name, share))));
    if (place.kept()) {
      speech.say(`${where}: ${rows.map(([n, s]) => `${n} ${percent(s)}`).join(", ")}`);
    }
  };
  const place = placeOn(maps.length ? screens : [], size, paintPlace);
  const quiet = follow(model, ["word"], () => { strip.show(chosen()); paint(); });
  return { el, ranked, paint, destroy: () => { quiet(); speech.destroy(); } };
}

// The place that a person points at on any of the screens: hovering shows it, a tap or click keeps
// it (a second one lets go), arrow keys move it. `size()` is rows and columns; `changed` is called.
// Returns { cell, kept }: (row, column) or null, and whether it stays.
function placeOn(screens, size, changed) {
  let place = null, hovered = null; // shares of the picture's height and width
  const cellOf = (spot) => size().map((n, i) => Math.min(Math.floor(spot[i] * n), n - 1));
  const same = (a, b) => a && b && String(cellOf(a)) === String(cellOf(b));
  // the first press shows the middle, the next ones go from cell to cell
  const moved = (by) => size().map((n, i) => {
    const to = place ? cellOf(place)[i] + by[i] : Math.floor(n / 2);
    return (Math.min(Math.max(to, 0), n - 1) + 0.5) / n;
  });
  const set = (hover, kept) => { hovered = hover; place = kept; changed(); };
  const pointer = ({ glass, canvas }) => {
    const spotOf = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      return x >= 0 && x < 1 && y >= 0 && y < 1 ? [y, x] : null;
    };
    glass.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") set(spotOf(event), place);
    });
    glass.addEventListener("pointerleave", () => set(null, place));
    glass.addEventListener("click", (event) => {
      const spot = spotOf(event);
      set(null, same(place, spot) ? null : spot);
    });
  };
  const keys = ({ glass }) => {
    const attributes = { tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true",
      "aria-label": "x0-hat: arrow keys move a place over it and tell its words, Escape ends" };
    for (const [name, value] of Object.entries(attributes)) glass.setAttribute(name, value);
    glass.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      const ends = event.key === "Escape" && place;
      if (!ends && !move[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      set(null, ends ? null : moved(move[event.key]));
    });
  };
  screens.forEach(pointer);
  screens.filter((_, i) => i !== 1).forEach(keys); // those that stand in the middle
  const now = () => hovered ?? place;
  return { cell: () => now() && cellOf(now()), kept: () => Boolean(place) };
}

// [name, share] of the largest words of the prompt, of the others, and of start, end and padding.
function ranking(data, amounts) {
  const sum = (some) => some.reduce((total, i) => total + amounts[i], 0);
  const ofKind = (kind) => [...data.words.keys()].filter((i) => data.kinds[i] === kind);
  const own = ofKind("word").sort((a, b) => amounts[b] - amounts[a]), special = ofKind("special");
  const left = [...own.slice(MOST_RANKED), ...ofKind("other")];
  const rows = own.slice(0, MOST_RANKED).map((i) => [data.words[i], amounts[i]]);
  if (left.length) rows.push(["other words", sum(left)]);
  if (special.length) rows.push(["start/end/pad", sum(special)]);
  return rows;
}

// One word of the ranking: a bar as long as its share, its name and its share in percent.
function amountOf(name, share) {
  const fill = make("span", { class: "fill" });
  fill.style.width = Number.isFinite(share) ? 100 * share + "%" : "0";
  return make("li", {}, make("span", { class: "amount" }, fill), bdi(name), " ",
    make("b", {}, percent(share)));
}

function percent(share) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %` : "NaN";
}
