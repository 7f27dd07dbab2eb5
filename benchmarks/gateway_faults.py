"""The soak's other side: a model and a detector that misbehave as each question asks, and what must come of it.

Every question carries a mark and the name of its kind; a right answer is made of the mark alone, so that a single piece
of somebody else's answer shows, in whatever way it got there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gateway_servers import body_of, start, whole

MARK = re.compile(r"MARK-\d{8}")
HARM, DETECTOR_DOWN = "HARMHARM", "DETECTORDOWN"
WORDS, CHOICES = 40, 3
SSE = b"text/event-stream"
Json = dict[str, Any]
Send = Callable[[Json], Awaitable[None]]


def text_of(mark: str, choice: int = 0) -> str:
    """What a choice says."""
    return " ".join(f"{mark}-{choice}-{i}" for i in range(WORDS))


def repaired(mark: str) -> str:
    return f"Nothing of the kind, {mark}."


def call_of(mark: str) -> Json:
    return {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": f'{{"q":"{mark}"}}'}}


# --- what must come of a question ---


@dataclass(slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    def events(self) -> list[Json]:
        lines = self.body.decode().split("\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    @property
    def ended(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")


#: None, or what is wrong.
Check = Callable[[str, Answer], str | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """`leaves`: seconds after which the client goes away. `delivers`: the answer's text is the model's own."""

    name: str
    alias: str
    weight: int
    check: Check
    stream: bool = False
    image: bool = False
    more: Json = field(default_factory=dict)
    leaves: float | None = None


def answered(choices: int = 1) -> Check:
    def check(mark: str, a: Answer) -> str | None:
        if a.status != 200:
            return f"status {a.status}"
        found = {c["index"]: c["message"]["content"] for c in json.loads(a.body)["choices"]}
        return None if found == {i: text_of(mark, i) for i in range(choices)} else "another text"

    return check


def streamed(choices: int = 1) -> Check:
    def check(mark: str, a: Answer) -> str | None:
        if a.status != 200 or not a.ended:
            return f"status {a.status}, ended: {a.ended}"
        return None if said(a, choices) == [text_of(mark, i) for i in range(choices)] else "another text"

    return check


def said(a: Answer, choices: int = 1) -> list[str]:
    texts = [""] * choices
    for event in a.events():
        for c in event.get("choices", ()):
            texts[c["index"]] += c["delta"].get("content") or ""
    return texts


def called(mark: str, a: Answer) -> str | None:
    if a.status != 200:
        return f"status {a.status}"
    calls = json.loads(a.body)["choices"][0]["message"].get("tool_calls") or []
    same = [{**c, "id": call_of(mark)["id"]} for c in calls] == [
        call_of(mark)
    ]  # ids of guarded answers are the gateway's
    return None if same else "another call"


def acted(action: str, reason: str, *, own: bool) -> Check:
    """A 200 by the guard's action; `own`: its text has the mark."""

    def check(mark: str, a: Answer) -> str | None:
        if a.status != 200:
            return f"status {a.status}"
        found = json.loads(a.body)
        (choice,), (told,) = found["choices"], found["eyelid"]["choices"]
        text = choice["message"]["content"]
        if told["action"] != action or choice["finish_reason"] != reason:
            return f"{told['action']}, {choice['finish_reason']}"
        return "harm got out" if HARM in text else "another text" if own != (mark in text) else None

    return check


def stopped(mark: str, a: Answer) -> str | None:
    """A stream that the guard ended, after some of the model's own text, or repaired before any of it had left."""
    if a.status != 200 or not a.ended:
        return f"status {a.status}, ended: {a.ended}"
    reasons = [c["finish_reason"] for e in a.events() for c in e.get("choices", ()) if c.get("finish_reason")]
    (text,) = said(a)
    right = {"content_filter": text_of(mark).startswith(text.strip()), "stop": text == repaired(mark)}
    if HARM in text:
        return "harm got out"
    return None if len(reasons) == 1 and right.get(reasons[0]) else f"ended {reasons} after {len(text)} characters"


def failed(status: int, *codes: str) -> Check:
    def check(mark: str, a: Answer) -> str | None:
        if a.status != status:
            return f"status {a.status}: {a.body[:80]!r}"
        code = json.loads(a.body)["error"]["code"]
        return None if code in codes else f"code {code}"

    return check


def cut_off(mark: str, a: Answer) -> str | None:
    """A stream that broke must not look whole, and what left of it is its own."""
    if a.status == 502:
        return None
    if a.status != 200 or a.ended or "error" not in a.events()[-1]:
        return f"status {a.status}, ended: {a.ended}"
    return None if text_of(mark).startswith(said(a)[0].strip()) else "another text"


def anything(mark: str, a: Answer) -> str | None:
    return None


KINDS = (
    Kind("plain", "none", 20, answered()),
    Kind("plain", "guarded", 20, answered()),
    Kind("plain", "none", 10, streamed(), stream=True),
    Kind("plain", "guarded", 10, streamed(), stream=True),
    Kind("plain", "windowed", 10, streamed(), stream=True),
    Kind("plain", "guarded", 6, answered(CHOICES), more={"n": CHOICES}),
    Kind("plain", "windowed", 4, streamed(CHOICES), stream=True, more={"n": CHOICES}),
    Kind("plain", "none", 4, answered(), image=True),
    Kind("plain", "guarded", 4, answered(), image=True),
    Kind("tools", "guarded", 5, called, more={"tools": [{"type": "function", "function": {"name": "find"}}]}),
    Kind("slow", "guarded", 3, answered()),
    Kind("slow", "windowed", 3, streamed(), stream=True),
    Kind("harm", "guarded", 5, acted("repaired", "stop", own=True)),
    Kind("harm", "windowed", 3, stopped, stream=True),
    Kind("judge", "guarded", 1, acted("failed", "content_filter", own=False)),
    Kind("cut", "none", 2, failed(502, "cut", "broken_off")),
    Kind("cut", "guarded", 2, failed(502, "cut", "broken_off")),
    Kind("cut", "none", 2, cut_off, stream=True),
    Kind("cut", "guarded", 2, cut_off, stream=True),
    Kind("cut", "windowed", 2, cut_off, stream=True),
    Kind("down", "guarded", 2, failed(502, "upstream_error")),
    Kind("busy", "none", 1, failed(503, "upstream_overloaded")),
    Kind("limited", "guarded", 1, failed(429, "upstream_rate_limited")),
    Kind("garbage", "guarded", 2, failed(502, "not_json")),
    Kind("garbage", "windowed", 2, cut_off, stream=True),
    Kind("page", "none", 1, failed(502, "wrong_type")),
    Kind("stalled", "guarded", 1, failed(504, "silent", "timeout")),
    Kind("plain", "guarded", 3, failed(400, "too_many_choices"), more={"n": 99}),
    Kind("plain", "nobody", 2, failed(404, "model_not_found")),
    Kind("slow", "guarded", 3, anything, leaves=0.1),
    Kind("slow", "windowed", 3, anything, stream=True, leaves=0.2),
    Kind("slow", "none", 3, anything, stream=True, leaves=0.2),
)


# --- the model and the detector ---


def answer_of(mark: str, kind: str, choices: int) -> list[Json]:
    if kind == "tools":
        return [{"role": "assistant", "content": None, "tool_calls": [call_of(mark)]}]
    tail = {"harm": f" {HARM}", "judge": f" {DETECTOR_DOWN}"}.get(kind, "")
    return [{"role": "assistant", "content": text_of(mark, i) + tail} for i in range(choices)]


async def model(scope: Json, receive: Any, send: Send) -> None:
    if scope["type"] != "http":
        return
    raw = await body_of(receive)
    if not raw:
        return await whole(send, b"{}")
    body, text = json.loads(raw), raw.decode()
    mark = found[0] if (found := MARK.search(text)) else "MARK-00000000"
    kind = kinds[1] if (kinds := re.search(r"KIND-(\w+)", text)) else "plain"
    if HARM in text:  # a remedy's question quotes the answer; a copy of that would be no remedy
        return await whole(send, _completion([{"role": "assistant", "content": repaired(mark)}]))
    refused = {"down": 500, "busy": 503, "limited": 429}.get(kind)
    if refused is not None:
        return await whole(send, b'{"error": {"message": "no", "type": "server_error"}}', status=refused)
    if kind == "page":
        return await whole(send, b"<html>sign in</html>", kind=b"text/html")
    if kind == "slow":
        await asyncio.sleep(0.3)
    if kind == "stalled":
        await asyncio.sleep(30)
    messages = answer_of(mark, kind, body.get("n", 1))
    if body.get("stream"):
        return await _streamed(send, messages, kind)
    answer = _completion(messages)
    if kind == "garbage":
        return await whole(send, answer[: len(answer) // 2])
    if kind == "cut":
        await start(send, b"application/json", len(answer))
        await send({"type": "http.response.body", "body": answer[: len(answer) // 2], "more_body": True})
        raise ConnectionAbortedError("on purpose")
    await whole(send, answer)


def _completion(messages: list[Json]) -> bytes:
    reasons = ["tool_calls" if m.get("tool_calls") else "stop" for m in messages]
    choices = [
        {"index": i, "message": m, "finish_reason": r} for i, (m, r) in enumerate(zip(messages, reasons, strict=True))
    ]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served", "choices": choices}
    return json.dumps({**head, "usage": {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}}).encode()


async def _streamed(send: Send, messages: list[Json], kind: str) -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    await start(send, SSE, None)

    async def event(index: int, delta: Json, reason: str | None = None) -> None:
        obj = {**head, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}
        await send({"type": "http.response.body", "body": f"data: {json.dumps(obj)}\n\n".encode(), "more_body": True})

    words = [str(m["content"]).split(" ") for m in messages]
    for at in range(0, max(map(len, words)), 8):
        for index, own in enumerate(words):
            piece = " ".join(own[at : at + 8]) + (" " if at + 8 < len(own) else "")
            if at < len(own):
                await event(index, {"content": piece})
        if at >= 16 and kind == "cut":
            raise ConnectionAbortedError("on purpose")
        if at >= 16 and kind == "garbage":
            await send({"type": "http.response.body", "body": b'data: {"choices": [{]}\n\n', "more_body": True})
        await asyncio.sleep(0.1 if kind == "slow" else 0.005)
    for index in range(len(messages)):
        await event(index, {}, "stop")
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def detector(scope: Json, receive: Any, send: Send) -> None:
    if scope["type"] != "http":
        return
    raw = await body_of(receive)
    texts = json.loads(raw)["input"] if raw else []
    if any(DETECTOR_DOWN in t for t in texts):
        return await whole(send, b"{}", status=400)
    rows = [
        {"index": i, "label": "x", "probs": [0.01, 0.99] if HARM in t else [0.99, 0.01], "num_classes": 2}
        for i, t in enumerate(texts)
    ]
    await whole(send, json.dumps({"data": rows}).encode())


def main() -> None:
    import uvicorn

    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("what", choices=("model", "detector"))
    a.add_argument("--port", type=int, required=True)
    o = a.parse_args()
    app: Any = {"model": model, "detector": detector}[o.what]
    uvicorn.run(
        app, host="127.0.0.1", port=o.port, log_level="critical", access_log=False, lifespan="off", backlog=2048
    )


if __name__ == "__main__":
    main()
