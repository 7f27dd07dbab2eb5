// What all pages share: theme, key, and how a trouble is shown.

import { key, setKey } from "./api.js";
import { byId, el, icon, show } from "./dom.js";

/** Wires the header. `changed` is called when a key was entered or forgotten. */
export function start(changed) {
  theme();
  const dialog = byId("key-dialog");
  byId("key-open").addEventListener("click", () => askForKey());
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = byId("key-value").value.trim();
    if (!value) return;
    setKey(value, byId("key-keep").checked);
    byId("key-value").value = "";
    dialog.close();
    changed();
  });
  byId("key-forget").addEventListener("click", () => {
    setKey(null);
    dialog.close();
    changed();
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
}

export function askForKey(why = "") {
  const dialog = byId("key-dialog");
  byId("key-why").textContent = why || "Keys are set on this gateway. Yours goes nowhere but to it.";
  show(byId("key-open"), true);
  show(byId("key-forget"), key() !== null);
  if (!dialog.open) dialog.showModal();
  byId("key-value").focus();
}

/** Who this page asks as: the name of a key, or nobody. */
export function knownAs(name) {
  const button = byId("key-open");
  show(button, name !== null || key() !== null);
  byId("key-name").textContent = name ?? "Key";
}

function theme() {
  const choice = byId("theme");
  choice.value = document.documentElement.dataset.theme ?? "system";
  choice.addEventListener("change", () => {
    if (choice.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice.value;
    try {
      localStorage.setItem("eyelid-theme", choice.value);
    } catch {
      // It holds until the page is left.
    }
  });
}

/** A box that says what is wrong and what to do; `again` adds a button. */
export function troubleBox(error, again = null) {
  const known = typeof error.title === "string";
  const title = known ? error.title : "This page has a defect";
  const advice = known ? error.advice : "Reload it and try again.";
  const needsKey = error.status === 401;
  return el(
    "div",
    { class: "trouble", role: "alert" },
    el("p", { class: "trouble-title" }, icon("error"), title),
    el("p", {}, advice),
    error.message && known && !needsKey ? el("p", { class: "said", text: `The gateway said: ${error.message}` }) : null,
    again || needsKey
      ? el(
          "p",
          { class: "row" },
          needsKey ? el("button", { type: "button", class: "quiet", on: { click: () => askForKey() } }, "Enter a key") : null,
          again ? el("button", { type: "button", class: "quiet", on: { click: again } }, "Try again") : null,
        )
      : null,
  );
}
