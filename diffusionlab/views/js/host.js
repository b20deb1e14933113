// The page's host: the model that a module knows (get, set, on, off, save_changes), kept in here.
const root = document.getElementById("root");
const state = JSON.parse(document.getElementById("state").textContent);
const listeners = {};
const model = {
  get: (name) => state[name],
  set(name, value) {
    if (Object.is(state[name], value)) return;
    state[name] = value;
    for (const heard of [...(listeners["change:" + name] ?? [])]) heard();
  },
  on(event, heard) { (listeners[event] ??= []).push(heard); },
  off(event, heard) { listeners[event] = (listeners[event] ?? []).filter((f) => f !== heard); },
  save_changes() {},
  standalone: true,
};
try {
  render({ model, el: root });
} catch (error) {
  root.textContent = "This view could not start: " + error.message;
  throw error;
}
