"""A stream that nobody guards: every event goes on at once, under the alias's name, and is reported as not checked.

Only the event that ends a choice waits, until the next one with a choice or the stream's end: what is told of the
answer goes onto the last event that has a choice, as in guarded streams; the usage follows, as servers send it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ..errors import BackendError, BackendUnavailable
from .assembly import Assembly
from .call import Call
from .sse import DONE, event
from .streaming import close

Json = dict[str, object]


async def relayed(
    events: AsyncIterator[Json],
    told: Callable[[Json], Awaitable[Json]],
    include_usage: bool,
    alias: str,
    call: Call,
    *,
    keep: bool = False,
) -> AsyncIterator[bytes]:
    """The bytes of the stream. `told` is given how each choice ended, with what was written where that is to be kept,
    and returns what is added to the last event that has a choice. Errors become an event, as in guarded streams."""
    ends: dict[int, object] = {}
    usage: object = None
    written = _Written(keep)
    held: list[Json] = []  # an event that ends a choice, and those without choices behind it
    try:
        async for chunk in events:
            chunk = {**chunk, "model": alias}
            usage = chunk.get("usage") or usage
            found = chunk.get("choices")
            choices = [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []
            for choice in choices:
                if isinstance(index := choice.get("index", 0), int):
                    ends[index] = choice.get("finish_reason") or ends.get(index)
            if choices:
                written.add(chunk, choices)
                for waiting in held:
                    yield event(waiting)
                held.clear()
            elif chunk.get("usage") and not include_usage:  # ours alone: the client asked for none
                continue
            if held or any(c.get("finish_reason") for c in choices):
                held.append(chunk)
            else:
                yield event(chunk)
        if not ends or not all(ends.values()):
            raise BackendUnavailable("the answer broke off before its end", hint="see the server's log", code="cut")
    except Exception as e:  # noqa: BLE001 - whatever broke, the stream must not look whole
        for waiting in held:
            yield event(waiting)
        yield event(call.failed(e))
        return
    finally:
        await close(events)
    whole = [{"index": i, "message": written.message(i), "finish_reason": r} for i, r in sorted(ends.items())]
    extra = await told({"choices": whole, "usage": usage})
    last, *behind = held or [{"object": "chat.completion.chunk", "model": alias, "choices": []}]
    for waiting in ({**last, **extra}, *behind):
        yield event(waiting)
    yield DONE


class _Written:
    """What a stream's choices hold: their texts as far as they can be read, or, where nobody keeps those, whether there
    was anything."""

    def __init__(self, keep: bool):
        self._assembly = Assembly() if keep else None
        self._some: set[object] = set()

    def add(self, chunk: Json, choices: Sequence[Json]) -> None:
        if self._assembly is not None:
            with contextlib.suppress(BackendError):
                self._assembly.add(chunk)
            return
        for choice in choices:
            delta = choice.get("delta")
            if isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role"):
                self._some.add(choice.get("index", 0))

    def message(self, index: int) -> Json:
        if self._assembly is not None and (found := self._assembly.choices.get(index)) is not None:
            found.close()
            return found.message()
        return {"role": "assistant", "content": "(not kept)" if index in self._some else ""}
