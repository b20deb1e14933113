// A step's update as a line: x_next = 0.93 · x_t + 0.07 · x0-hat, with this step's numbers.

const SYMBOLS = { x_t: ["x_t", "held"], x0: ["x0-hat", "belief"], eps: ["eps-hat", "noise"],
  draw: ["fresh noise", "fresh"] };
const REST = 1e-6; // of the largest weight: what is below is left over from rounding

// The terms of Python's `update_facts`: [weight, kind, which call or draw]. `calls` is how many
// network calls the step makes.
function termsOf(update, calls) {
  const readings = update.terms.map((t) => [t.weight, t.reading, whichCall(t.ago, calls)]);
  const draws = update.noise.map((n) =>
    [n.weight, "draw", update.noise.length > 1 ? `draw ${n.draw + 1}` : ""]);
  return [[update.a, "x_t", ""], ...readings, ...draws];
}

function whichCall(ago, calls) {
  if (ago > 0) return ago === 1 ? "1 call ago" : `${ago} calls ago`;
  return calls > 1 ? `call ${1 - ago}` : "";
}

// Nodes of the line; numbers have three digits; terms other than x_t that are zero, or a rest of
// rounding, are left out.
function equation(name, update, calls) {
  const nodes = [make("span", { class: "made" }, name), " = "];
  const terms = termsOf(update, calls);
  const sizes = terms.map(([weight]) => Math.abs(weight)).filter(Number.isFinite);
  const least = REST * Math.max(...sizes, 0);
  let first = true;
  for (const [amount, kind, which] of terms) {
    const weight = Math.abs(amount) < least ? 0 : amount; // "NaN" and "∞" stay
    if (weight === 0 && kind !== "x_t") continue;
    const text = told(weight), minus = text.startsWith("−") && text !== "−∞";
    if (!first || minus) nodes.push(first ? "−" : minus ? " − " : " + ");
    const [symbol, role] = SYMBOLS[kind];
    nodes.push(make("span", { class: "term" }, make("b", {}, minus ? text.slice(1) : text), " · ",
      make("span", { class: "symbol " + role }, symbol),
      which ? make("small", {}, ` (${which})`) : null));
    first = false;
  }
  return nodes;
}
