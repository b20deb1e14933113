// with: kit.js, quiz.css
// Questions with choices: choose, then mark; each answer is told with its reason. Nothing is sent
// anywhere; Python, where there is one, hears how many were answered and how many were right.

function render({ model, el }) {
  const data = model.get("data"), questions = data.questions;
  const { root, body, destroy } = shell({
    model, el, title: data.title,
    keys: { m: () => mark(), r: () => again() },
    help: "Keys: Tab to a question, arrows choose, m mark, r start again, p present, "
      + "t light or dark.",
  });
  const asked = questions.map((question, index) => oneQuestion(question, index, () => count()));
  const marking = make("button", { type: "button", class: "mark", onclick: () => mark() },
    "Mark my answers (m)");
  const anew = make("button", { type: "button", hidden: true, onclick: () => again() },
    "Start again (r)");
  const score = make("p", { class: "score", role: "status" });
  body.append(make("ul", { class: "questions" }, asked.map((one) => one.el)),
    make("div", { class: "row ending" }, marking, anew, score));

  const chosen = () => asked.filter((one) => one.chosen() >= 0).length;
  const count = () => {
    score.textContent = `${chosen()} of ${questions.length} answered`;
  };
  const mark = () => {
    const right = asked.map((one) => one.mark()).filter(Boolean).length;
    put(model, "answered", chosen());
    put(model, "right", right);
    anew.hidden = chosen() === 0;
    const left = questions.length - chosen();
    score.textContent = `${right} of ${questions.length} right`
      + (left ? `, ${left} not answered` : "");
  };
  const again = () => {
    for (const one of asked) one.clear();
    put(model, "answered", 0);
    put(model, "right", 0);
    anew.hidden = true;
    count();
    root.querySelector("input")?.focus();
  };
  count();
  return destroy;
}

let groups = 0; // radio buttons of one question share a name, on whatever page they stand

// One question as a list item: its choices, and a place for the verdict.
function oneQuestion(question, index, changed) {
  const name = `dl-quiz-${groups++}-${index}`;
  const verdict = make("p", { class: "verdict", hidden: true });
  const boxes = question.choices.map((_, i) => make("input", { type: "radio", name,
    value: String(i), onchange: () => { hush(); changed(); } }));
  const rows = question.choices.map((choice, i) => make("label", { class: "option" }, boxes[i],
    make("span", {}, bdi(choice))));
  const el = make("li", {}, make("fieldset", {},
    make("legend", {}, `${index + 1}. `, bdi(question.asks)), rows, verdict));
  const chosen = () => boxes.findIndex((box) => box.checked);
  const hush = () => {
    verdict.hidden = true;
    verdict.textContent = "";
    delete el.dataset.marked;
  };
  const mark = () => {
    const at = chosen();
    if (at < 0) return false;
    const right = at === question.right;
    el.dataset.marked = right ? "right" : "wrong";
    verdict.replaceChildren(make("b", {}, right ? "✓ Right. " : "✗ Not so. "),
      bdi(question.because));
    verdict.hidden = false;
    return right;
  };
  const clear = () => {
    for (const box of boxes) box.checked = false;
    hush();
  };
  return { el, chosen, mark, clear };
}

export default { render };
