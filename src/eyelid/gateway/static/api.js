// Talking to the gateway: the key, requests, streams, and what goes wrong in words that say what to do.

const KEY = "eyelid-key";
let held = null;

/** The key, from memory or from this tab's storage; never from anywhere that outlives the tab. */
export function key() {
  if (held === null) {
    try {
      held = sessionStorage.getItem(KEY);
    } catch {
      held = null;
    }
  }
  return held;
}

/** `keep`: until the tab is closed, for all pages here; else until this page is left. Null forgets it. */
export function setKey(value, keep = false) {
  held = value;
  try {
    if (value !== null && keep) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // No storage: it stays in memory.
  }
}

/** Something went wrong. `title` and `advice` are for people; `message` is what the gateway said, if it said anything. */
export class Trouble extends Error {
  constructor(title, advice, { message = "", code = "", status = 0, id = null } = {}) {
    super(message);
    Object.assign(this, { title, advice, code, status, id });
  }
}

export async function getJSON(path, signal) {
  const response = await sent(path, { headers: authorized(), signal, cache: "no-store" });
  try {
    return await response.json();
  } catch (error) {
    throw cut(error);
  }
}

/**
 * A chat completion as it streams. Yields the objects of its events, and null for each sign of life.
 * `answered` is given the audit id once the head of the answer is there.
 */
export async function* chat(body, signal, answered = () => {}) {
  const response = await sent("v1/chat/completions", {
    method: "POST",
    headers: { ...authorized(), "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const id = response.headers.get("x-eyelid-id");
  answered(id);
  let whole = false;
  for await (const data of events(response.body)) {
    if (data === null) yield null;
    else if (data === "[DONE]") whole = true;
    else {
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        throw new Trouble("The answer is garbled", "Something between this page and the gateway changed it. Ask again.", { id });
      }
      if (event.error) throw told(event.error, 0, { id });
      yield event;
    }
  }
  if (!whole) throw new Trouble("The answer broke off", "The gateway went away in the middle of it. What is shown is not the whole answer. Ask again.", { id });
}

/** The `data` of a stream's events; null for each comment. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  let data = [];
  try {
    while (true) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        throw cut(error);
      }
      if (piece.done) return;
      const lines = (left + piece.value).split(/\r\n|\n|\r(?!$)/);
      left = lines.pop();
      for (const line of lines) {
        if (line.startsWith(":")) yield null;
        else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function authorized() {
  return key() === null ? {} : { authorization: `Bearer ${key()}` };
}

async function sent(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The gateway does not answer", "Is `eyelid serve` still running? Start it again, or check the network, then try again.");
  }
  if (response.ok) return response;
  let found = {};
  try {
    found = (await response.json()).error ?? {};
  } catch {
    // Not ours: a proxy in between, perhaps.
  }
  const id = response.headers.get("x-eyelid-id");
  throw told(found, response.status, { id, wait: response.headers.get("retry-after") });
}

function cut(error) {
  if (error.name === "AbortError") return error;
  return new Trouble("The answer broke off", "The connection to the gateway was lost. What is shown is not the whole answer. Ask again.");
}

/** An error object of the gateway, and its HTTP status, in words. */
function told(error, status, { id = null, wait = null } = {}) {
  const code = String(error.code ?? "");
  const [title, advice] = words(String(error.type ?? ""), code, status, wait);
  return new Trouble(title, advice, { message: String(error.message ?? ""), code, status, id });
}

const CODES = {
  invalid_api_key: ["This gateway needs a key", "Enter a key that the operator gave you."],
  model_not_allowed: ["This key may not use that model", "Choose another model, or ask the operator."],
  defense_not_allowed: ["That defence cannot be chosen here", "The operator can allow it: allow_request_choice."],
  trace_not_allowed: ["The steps cannot be shown here", "The operator can allow it: allow_trace. Reload the page and ask again."],
  model_not_found: ["That model is gone", "The gateway's configuration has changed. Reload the page."],
  invalid_image: ["The image cannot be used", "Choose another one: a still PNG, JPEG, WebP, GIF or BMP."],
  too_many_images: ["Too many images", "Remove some of them and ask again."],
  overloaded: ["The gateway is busy", "Too many requests at once, or it is shutting down. Try again in a moment."],
  upstream_overloaded: ["The model is busy", "Its server has too much to do. Try again in a moment."],
  upstream_rate_limited: ["The model's server asks us to slow down", "Wait a little, then try again."],
  audit_unreadable: ["The audit cannot be read just now", "The gateway's log says why. Try again in a moment."],
  not_in_audit: ["The audit has no such request", "It may have been deleted by age, or belong to another key. Go back to the list."],
  no_audit: ["The audit is switched off", "The operator can switch it on: audit.enabled."],
};

function words(type, code, status, wait) {
  if (CODES[code]) return CODES[code];
  if (status === 413 || code === "request_too_large") {
    return ["The request is too large", "Use fewer or smaller images, or a shorter question."];
  }
  if (status === 429 || type === "rate_limit_error") {
    const when = wait ? `Try again in ${wait} s.` : "Wait a little, then try again.";
    return ["Too many requests with this key", when];
  }
  if (code.startsWith("unsupported_")) {
    return ["The model cannot do that", "Choose another model, or leave out what it cannot take, such as images."];
  }
  if (code.startsWith("upstream_rejected")) {
    return ["The model's server refused the request", "Is the question too long for it, or can it not take images? Change that and ask again."];
  }
  if (status === 504 || code.includes("timeout")) return ["It took too long", "Try again, or ask for a shorter answer."];
  if (type === "upstream_error") return ["The model could not be reached", "Its server does not answer as it should. The operator can see why in its log."];
  if (type === "guard_error" || type === "internal_error") {
    return ["The gateway broke while answering", "Nothing was delivered. Try again; if it stays, the operator's log has this request."];
  }
  if (status === 403) return ["That is not allowed here", "Ask the operator."];
  if (status === 404) return ["There is no such thing here", "Reload the page."];
  if (status >= 500) return ["Something between here and the gateway does not work", "Try again in a moment."];
  return ["The gateway did not take the request", "Change what it names, and ask again."];
}
