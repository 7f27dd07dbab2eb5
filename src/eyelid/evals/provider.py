"""Eyelid inside Inspect AI: a guard as a model provider, and what carries its account to the scorer.

    inspect eval eyelid/xstest -T data=DIR --model eyelid/tiny -M defense=ecso

The model's name is a spec (`eyelid/tiny`, `eyelid/openai:http://127.0.0.1:8000/v1#NAME`); -M takes defense, detector
and prompts. The trace travels in the output's metadata, so that logs hold it and scoring again needs no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    RetryDecision,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from tenacity.wait import wait_random_exponential

from .. import images
from ..backends.retry import repeats
from ..errors import EyelidError, InputError
from ..types import Action, Message, Part, Request, TextPart, Trace, Usage
from .guards import Models, check, local
from .progress import Watch
from .records import Key, Record
from .rows import Fields, flat, step_of, verdict_of

#: Where the account of a guarded answer stands in an output's metadata, and what a sample's message says it is of.
ACCOUNT, ASKED = "eyelid", "eyelid_sample"
_STOP: dict[str, StopReason] = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter"}


class GuardAPI(ModelAPI):
    """One defence around one model, which is opened when the first sample asks."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # Inspect's own signature
        *,
        defense: str = "hybrid",
        detector: str | None = None,
        prompts: str | None = None,
    ):
        super().__init__(model_name, base_url, api_key, [], config)
        check(model_name, [defense])
        self.defense, self.detector, self.prompts = defense, detector, prompts
        self._done: Mapping[Key, Record] = {}
        self._models: Models | None = None
        self._owned = True
        self._opening = asyncio.Lock()
        self._again: dict[str, int] = {}
        self._watch: Watch | None = None

    def hold(self, models: Models, done: Mapping[Key, Record], watch: Watch | None = None) -> None:
        """Use a model that somebody else opened and closes, and give what `done` has instead of asking it.

        `watch` hears of every attempt.
        """
        self._models, self._done, self._owned, self._watch = models, done, False, watch

    async def opened(self) -> Models:
        """The guard's models, loaded with the first sample that asks."""
        async with self._opening:
            if self._models is None:
                make = partial(Models, self.model_name, [self.defense], detector=self.detector, prompts=self.prompts)
                self._models = await asyncio.to_thread(make)
        return self._models

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Inspect's call: one answer under the defence. Raises InputError for tools, and what the guard raises."""
        if tools:
            raise InputError("an Eyelid guard takes no tools here", hint="run a task without tools")
        asked = next((m.metadata[ASKED] for m in reversed(input) if m.metadata and ASKED in m.metadata), None)
        task, sample = (str(asked["task"]), str(asked["id"])) if isinstance(asked, dict) else ("", "")
        if (known := self._done.get(Key(task, sample, self.defense))) is not None:
            return _output(self.model_name, known.answer, "stop", {"replayed": True}, Usage())
        request = await to_request(input, config)
        place = f"{task}/{sample}" if asked else ""
        models = await self.opened()
        with repeats() as own:
            try:
                answer = await models.ask(request, self.defense, place)
            except BaseException as e:  # whoever asks again begins another attempt
                self._again[place] = self._again.get(place, 0) + own.count + 1
                if self._watch and isinstance(e, EyelidError):
                    self._watch.failed(e)
                raise
        if self._watch:
            self._watch.answered()
        r, trace = answer.response, answer.response.trace
        account = (account_of(trace) if trace else {}) | {"seconds": answer.seconds, "model": r.model}
        if place and (again := self._again.pop(place, 0) + own.count):
            account["retries"] = again
        usage = trace.usage if trace else r.usage
        return _output(self.model_name, r.text, _STOP.get(r.finish_reason, "stop"), account, usage)

    def should_retry(self, ex: Exception) -> RetryDecision:
        """Inspect asks again where the error says that the same call may work later."""
        return RetryDecision.transient() if isinstance(ex, EyelidError) and ex.retryable else RetryDecision.no()

    def retry_wait(self) -> wait_random_exponential:
        """Full jitter from half a second, as `backends.retry`: local servers come back sooner than Inspect assumes."""
        return wait_random_exponential(multiplier=0.5, max=8)

    def max_connections(self) -> int:
        """One for a model of this process, as it answers in turn; eight for a server."""
        return 1 if local(self.model_name) else 8

    async def aclose(self) -> None:
        if self._owned and self._models is not None:
            await self._models.aclose()


async def to_request(messages: Sequence[ChatMessage], config: GenerateConfig) -> Request:
    """Inspect's messages as a request; every image goes through `eyelid.images`. Raises InputError, ImageError."""
    found = []
    for m in messages:
        if isinstance(m, ChatMessageTool):
            raise InputError("an Eyelid guard takes no tool messages here", hint="run a task without tools")
        role = "system" if isinstance(m, ChatMessageSystem) else "user"
        role = "assistant" if isinstance(m, ChatMessageAssistant) else role
        parts: list[Part] = []
        for c in [m.content] if isinstance(m.content, str) else m.content:
            if isinstance(c, str):
                parts.append(TextPart(c))
            elif isinstance(c, ContentText):
                parts.append(TextPart(c.text))
            elif isinstance(c, ContentImage):
                parts.append(await asyncio.to_thread(images.load_image, c.image))
            else:
                raise InputError(f"an Eyelid guard takes no {c.type} content", hint="run a task of texts and images")
        found.append(Message(role, tuple(parts)))  # type: ignore[arg-type]
    return Request(
        tuple(found),
        max_tokens=config.max_tokens or 512,
        temperature=config.temperature or 0.0,
        top_p=config.top_p if config.top_p is not None else 1.0,
        seed=config.seed,
        stop=tuple(config.stop_seqs or ()),
    )


def account_of(trace: Trace) -> dict[str, Any]:
    """What a record takes from a trace, as JSON's types."""
    return flat(trace) | {"checked": trace.checked, "steps": [flat(s) for s in trace.steps]}


def fields_of(output: ModelOutput) -> dict[str, object]:
    """`Record`'s fields from an output of this provider; from another one's, just the answer."""
    account = (output.metadata or {}).get(ACCOUNT)
    if not isinstance(account, dict):
        return {"answer": output.completion, "calls": 1, "seconds": output.time}
    f = Fields(account)
    steps = tuple(step_of(i) for i in f.items("steps"))
    known = [s.usage for s in steps if s.usage.prompt_tokens is not None]
    return {
        "answer": output.completion,
        "original": account.get("original"),
        "action": f.maybe("action", lambda n: f.choice(n, Action)),
        "checked": account.get("checked"),
        "failure": account.get("failure"),
        "refused_by": f.maybe("refused_by", f.refused_by),
        "verdict": f.maybe("verdict", lambda n: verdict_of(f.inner(n))),
        "final_verdict": f.maybe("final_verdict", lambda n: verdict_of(f.inner(n))),
        "calls": sum(s.role not in ("classify", "detect", "repair") for s in steps),
        "prompt_tokens": sum(u.prompt_tokens or 0 for u in known) if known else None,
        "completion_tokens": sum(u.completion_tokens or 0 for u in known) if known else None,
        "seconds": account.get("seconds"),
        "retries": account.get("retries", 0),
        "cached": any(s.shared for s in steps),
        "steps": steps,
    }


def _output(model: str, text: str, stop: StopReason, account: dict[str, Any], usage: Usage) -> ModelOutput:
    message = ChatMessageAssistant(content=text, model=model, source="generate")
    return ModelOutput(
        model=model,
        choices=[ChatCompletionChoice(message=message, stop_reason=stop)],
        usage=ModelUsage(
            input_tokens=usage.prompt_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
            total_tokens=(usage.prompt_tokens or 0) + (usage.completion_tokens or 0),
        ),
        metadata={ACCOUNT: account},
    )
