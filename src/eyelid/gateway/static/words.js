// Numbers, times and outcomes as people read them.

/** Action -> [badge, what it means]. Four outcomes and one that is none; none of them may look like another. */
export const ACTIONS = {
  passed: ["Passed", "The model's answer, as it was."],
  repaired: ["Repaired", "The model's answer was withheld; a safe one stands here instead."],
  refused: ["Refused", "The answer was withheld, and no other could be given."],
  failed: ["Guard failed", "The guard itself broke. This says nothing about the answer."],
  not_guarded: ["Not guarded", "No guard stands around this model."],
};

export const OUTCOMES = {
  answered: "answered",
  client_error: "wrong request",
  upstream_error: "model's server failed",
  guard_error: "guard failed",
  shed: "turned away",
  disconnected: "client left",
};

export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const harm = (value) => (value === null || value === undefined ? "unknown" : number(value, 2));

export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 0.05) return "under 0.1 ms";
  if (milliseconds < 10) return `${number(milliseconds, 1)}\u00a0ms`;
  return milliseconds < 1000 ? `${number(milliseconds)}\u00a0ms` : `${number(milliseconds / 1000, 1)}\u00a0s`;
}

export function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  return count < 1024 * 1024 ? `${number(count / 1024)} KiB` : `${number(count / 1024 / 1024, 1)} MiB`;
}

export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

const CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const when = (seconds) => CLOCK.format(new Date(seconds * 1000));
export const iso = (seconds) => new Date(seconds * 1000).toISOString();
