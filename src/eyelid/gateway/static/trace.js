// A guard's account as a person reads it: badge, verdicts, steps. For a live answer and for one of the audit.

import { el, icon } from "./dom.js";
import { ACTIONS, duration, harm, number, plural } from "./words.js";

export function badge(action) {
  const known = ACTIONS[action] ? action : "error";
  return el("span", { class: "badge", data: { action: known }, title: ACTIONS[action]?.[1] }, icon(known), ACTIONS[action]?.[0] ?? action);
}

/** Said wherever a text was delivered that no detector cleared. */
export function unchecked(because) {
  return el("p", { class: "unchecked" }, el("strong", { text: "Not checked" }), because ? `: ${because}.` : ".");
}

/** A bar from 0 to 1, with the bound as a tick where there is one. An unknown verdict has an empty bar and says so. */
export function meter(name, value, label, threshold = null) {
  const known = value !== null && value !== undefined;
  const bound = compared(label, threshold);
  const says = known ? `harm ${harm(value)}, ${label ?? "no verdict"}${bound}` : `${label ?? "no verdict"}`;
  const bar = el("div", {
    class: "bar",
    role: "meter",
    "aria-label": `${name}: harm`,
    "aria-valuemin": 0,
    "aria-valuemax": 1,
    "aria-valuenow": known ? value : 0,
    "aria-valuetext": says,
  });
  const fill = el("span", { class: "bar-fill" });
  fill.style.setProperty("--share", known ? String(value) : "0");
  bar.append(fill);
  if (bound) {
    const tick = el("span", { class: "bar-tick" });
    tick.style.setProperty("--share", String(threshold));
    bar.append(tick);
  }
  return el(
    "div",
    { class: "meter", data: { label: label ?? "none" } },
    el("div", { class: "meter-head" }, el("span", { text: name }), el("span", { class: "meter-says", text: known ? `harm ${harm(value)}, ${label ?? "no verdict"}` : says })),
    bar,
  );
}

/** The verdicts of one choice: of the model's own answer, and of the one that a remedy gave. */
export function verdicts(choice) {
  const found = [];
  const threshold = choice.steps?.find((s) => !s.verifies && s.threshold != null)?.threshold;
  const blind = choice.defense === "blind"; // it judges nothing: the eyes are closed to every image
  if (choice.label != null && !blind) found.push(meter("The model's own answer", choice.harm, choice.label, threshold));
  const second = choice.action === "repaired" || choice.steps?.some((s) => s.verifies);
  if (second && choice.final_label != null) {
    const name = choice.action === "repaired" ? "The new answer, delivered" : "The new answer, withheld too";
    found.push(meter(name, choice.final_harm, choice.final_label, threshold));
  }
  return found.length ? el("div", { class: "verdicts" }, ...found) : null;
}

/** The steps in order. What was `delivered` is not written again below the step that it came from. */
export function steps(choice, delivered = null, open = matchMedia("(min-width: 44rem)").matches) {
  const list = choice.steps ?? [];
  if (!list.length) return null;
  const described = list.some((s) => s.role === "caption");
  const items = list.map((s) => step(s, described, choice, delivered));
  return el(
    "details",
    { class: "steps", open },
    el("summary", {}, "Steps ", el("span", { class: "count", text: String(list.length) })),
    el("ol", {}, ...items),
  );
}

function step(s, described, choice, delivered) {
  const costs = [duration(s.ms ?? s.milliseconds)];
  if (s.prompt_tokens !== null && s.prompt_tokens !== undefined) {
    costs.push(`${number(s.prompt_tokens)} tokens read, ${number(s.completion_tokens ?? 0)} written`);
  }
  if (s.model) costs.push(s.model);
  const always = s.role === "detect" && s.model === "always";
  const judged = s.label !== null && s.label !== undefined && !always;
  return el(
    "li",
    { class: "step", data: { role: s.role, broken: s.error ? "yes" : "no" } },
    el("p", { class: "step-title", text: s.error ? `${NAMES[s.role] ?? s.role} broke: ${s.error}` : sentence(s, described) }),
    judged ? el("p", { class: "found" }, el("span", { class: "verdict", data: { label: s.label } }, s.label === "unknown" ? "cannot tell" : s.label), said(s)) : null,
    s.reason ? el("p", { class: "reason", text: s.reason }) : null,
    wrote(s, choice, delivered),
    el("p", { class: "costs", text: costs.join(" · ") }),
  );
}

/** The probability behind a verdict, and what it was compared with. */
function said(s) {
  if (s.harm === null || s.harm === undefined) return "";
  return ` with harm ${harm(s.harm)}${compared(s.label, s.threshold)}`;
}

/** A cascade has two bounds, and a verdict names the one that decided. */
function compared(label, threshold) {
  if (threshold === null || threshold === undefined) return "";
  return label === "harmful" ? `, harmful from ${harm(threshold)}` : `, harmless below ${harm(threshold)}`;
}

function sentence(s, described) {
  switch (s.role) {
    case "answer":
      return s.images ? `The model answered, seeing ${plural(s.images, "image")}` : "The model answered";
    case "judge":
      return s.verifies ? "The model judged the new answer" : "The model judged its own answer";
    case "classify":
    case "detect":
      if (s.model === "always") return "The eyes are closed to every image, whatever it shows";
      return s.verifies ? "The trained classifier read the new answer" : "The trained classifier read question and answer";
    case "caption":
      return "The model described the image for the question";
    case "safe_answer":
      return described ? "It answered again from the description, without any image" : "It answered again, asked to be harmless";
    case "detoxify":
      return "A rewriter took the harm out of the answer";
    case "repair":
      return s.model === "refuse" ? "A fixed refusal took the answer's place" : "The remedy gave another answer";
    default:
      return s.role;
  }
}

const NAMES = {
  answer: "The model's answer",
  judge: "The judge",
  classify: "The classifier",
  detect: "The detector",
  caption: "The description of the image",
  safe_answer: "The answer without images",
  detoxify: "The rewriter",
  repair: "The remedy",
};

/** What the model wrote in this step. A withheld answer stays folded away: whoever wants to read it unfolds it. */
function wrote(s, choice, delivered) {
  if (!s.text || s.role === "repair" || s.text === delivered) return null;
  if (s.role === "judge") return el("p", { class: "wrote", text: `It wrote: “${s.text.trim()}”` });
  const withheld = s.role === "answer" && ["repaired", "refused", "failed"].includes(choice.action);
  const name = s.role === "caption" ? "Description" : withheld ? "What it wrote (withheld)" : "What it wrote";
  return el("details", { class: "wrote", open: s.role === "caption" }, el("summary", { text: name }), el("p", { class: "text", text: s.text }));
}
