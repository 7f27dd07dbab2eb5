"""A stream that nobody guards: every event goes on at once, under the alias's name, and is reported as not checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from ..errors import BackendUnavailable
from .endpoint import Call
from .sse import DONE, event
from .streaming import close

Json = dict[str, object]


async def relayed(
    events: AsyncIterator[Json],
    told: Callable[[Json], Awaitable[Json]],
    include_usage: bool,
    alias: str,
    call: Call,
) -> AsyncIterator[bytes]:
    """The bytes of the stream. `told` is given how each choice ended, without texts, and returns what is added to the
    last event before `[DONE]`. Errors become an event, as in guarded streams."""
    ends: dict[int, object] = {}
    usage: object = None
    held: Json | None = None
    try:
        async for chunk in events:
            if held is not None:
                yield event(held)
            held = {**chunk, "model": alias}
            usage = chunk.get("usage") or usage
            choices = chunk.get("choices")
            for choice in choices if isinstance(choices, list) else ():
                if isinstance(choice, dict) and isinstance(index := choice.get("index", 0), int):
                    ends[index] = choice.get("finish_reason") or ends.get(index)
            if not choices and usage is not None and not include_usage:  # ours alone: the client asked for no usage
                held = None
        if not ends or not all(ends.values()):
            raise BackendUnavailable("the answer broke off before its end", hint="see the server's log", code="cut")
    except Exception as e:  # noqa: BLE001 - whatever broke, the stream must not look whole
        if held is not None:
            yield event(held)
        yield event(call.failed(e))
        return
    finally:
        await close(events)
    empty = {"role": "assistant", "content": ""}
    whole = [{"index": i, "message": empty, "finish_reason": reason} for i, reason in sorted(ends.items())]
    extra = await told({"choices": whole, "usage": usage})
    yield event({**(held or {"object": "chat.completion.chunk", "model": alias, "choices": []}), **extra})
    yield DONE
