// Attention of a run: the words as buttons that light their map, and the words of one place.
// Every number is a share of the softmax: at each place all words, start, end and padding make 1.

const MOST_RANKED = 5;

// `screens` are the pictures (`marked`) that the map lies on, `at()` the shown step. Returns
// { el, ranked, paint, destroy }: the strip of words, and the words of a place.
function attention({ model, data, screens, at }) {
  const maps = data.choices.map((choice) => unpack(choice.maps));
  let pointed = -1, layer = 0, place = null, hovered = null;
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
  const ranked = make("div", { class: "ranked extra" });
  const speech = spoken();
  const el = make("div", { class: "words" }, strip.el, select, speech.el,
    data.missing ? make("p", { class: "quiet extra" }, bdi(data.missing)) : null,
    data.check ? make("p", { class: "warn" }, data.check) : null);

  // The shares of one word at the shown step, row by row; null where they hold NaN.
  const sharesOf = (word) => {
    const { values, shape: [, steps, tall, wide] } = maps[layer], step = at();
    const top = data.choices[layer].tops[word][step];
    if (typeof top !== "number") return null;
    const from = (word * steps + step) * tall * wide;
    return Float64Array.from(values.subarray(from, from + tall * wide), (v) => v / 255 * top);
  };
  const size = () => maps[layer].shape.slice(2);

  const paint = () => {
    if (!maps.length) return;
    const word = pointed >= 0 ? pointed : chosen(), choice = data.choices[layer];
    const shares = word < 0 ? null : sharesOf(word), [, wide] = size();
    const top = word < 0 ? 0 : choice.tops[word][at()];
    for (const { overlay, caption, legend } of screens) {
      overlay.hidden = !shares;
      if (shares) heat(overlay, shares, wide, { high: top || 1, alpha: () => 178 });
      legend.hidden = word < 0;
      caption.hidden = word >= 0;
      if (word < 0) continue;
      legend.children[2].textContent = told(top, 2);
      legend.children[3].replaceChildren(shares ? "probability of " : "NaN or infinity in ",
        make("b", {}, bdi(data.words[word])));
      legend.title = `${choice.reduction}; the colours end at this word's largest at this step`;
    }
    paintPlace();
  };

  // ---- one place ----
  const paintPlace = () => {
    const now = hovered ?? place, [tall, wide] = size();
    for (const { mark } of screens) {
      mark.hidden = !now;
      if (!now) continue;
      const [row, column] = cell(now);
      Object.assign(mark.style, { left: 100 * column / wide + "%", top: 100 * row / tall + "%",
        width: 100 / wide + "%", height: 100 / tall + "%" });
    }
    const index = now && cell(now)[0] * wide + cell(now)[1];
    const amounts = data.words.map((_, word) => {
      const shares = sharesOf(word);
      if (!shares) return NaN;
      return now ? shares[index] : shares.reduce((a, b) => a + b, 0) / shares.length;
    });
    const where = now ? `row ${cell(now)[0]}, column ${cell(now)[1]}` : "everywhere";
    const rows = rank(amounts);
    ranked.replaceChildren(make("span", { class: "where" }, where + ":"),
      make("ol", {}, rows.map(([name, share]) => amountOf(name, share))));
    if (place) speech.say(`${where}: ${rows.map(([n, s]) => `${n} ${percent(s)}`).join(", ")}`);
  };
  // (row, column) of a place, which is kept as shares of the picture's height and width
  const cell = (spot) => size().map((n, i) => Math.min(Math.floor(spot[i] * n), n - 1));
  // the largest words of the prompt, then what is left of them, then start, end and padding
  const rank = (amounts) => {
    const sum = (some) => some.reduce((total, i) => total + amounts[i], 0);
    const own = amounts.map((_, i) => i).filter((i) => data.kinds[i] === "word");
    own.sort((a, b) => amounts[b] - amounts[a]);
    const left = [...own.slice(MOST_RANKED),
      ...data.words.keys()].filter((i, n, all) => (n < all.length - data.words.length
        || data.kinds[i] === "other"));
    const special = [...data.words.keys()].filter((i) => data.kinds[i] === "special");
    const rows = own.slice(0, MOST_RANKED).map((i) => [data.words[i], amounts[i], "word"]);
    if (left.length) rows.push(["other words", sum(left)]);
    if (special.length) rows.push(["start/end/pad", sum(special)]);
    return rows;
  };

  if (maps.length) screens.forEach((one, i) => listen(one, i === 0));
  // Pointer and keys of a picture; the first is reached by Tab.
  function listen({ glass, canvas }, keys) {
    const spotOf = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      return x >= 0 && x < 1 && y >= 0 && y < 1 ? [y, x] : null;
    };
    const same = (a, b) => a && b && String(cell(a)) === String(cell(b));
    glass.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      hovered = spotOf(event);
      paintPlace();
    });
    glass.addEventListener("pointerleave", () => { hovered = null; paintPlace(); });
    glass.addEventListener("click", (event) => {
      const spot = spotOf(event);
      place = same(place, spot) ? null : spot;
      hovered = null;
      paintPlace();
    });
    if (!keys) return;
    const attributes = { tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true",
      "aria-label": "x0-hat: arrow keys move a place over it and tell its words, Escape ends" };
    for (const [name, value] of Object.entries(attributes)) glass.setAttribute(name, value);
    glass.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (event.key === "Escape" && place) place = null;
      else if (move[event.key]) place = moved(move[event.key]);
      else return;
      event.preventDefault();
      event.stopPropagation();
      hovered = null;
      paintPlace();
    });
  }
  // the first press shows the middle, the next ones go from cell to cell
  const moved = (by) => size().map((n, i) => {
    const to = place ? cell(place)[i] + by[i] : Math.floor(n / 2);
    return (Math.min(Math.max(to, 0), n - 1) + 0.5) / n;
  });
  const quiet = follow(model, ["word"], () => { strip.show(chosen()); paint(); });
  return { el, ranked, paint, destroy: () => { quiet(); speech.destroy(); } };
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
