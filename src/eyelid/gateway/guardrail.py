"""LiteLLM's generic guardrail API: who runs LiteLLM's proxy adds Eyelid with one URL.

    guardrails:
      - guardrail_name: eyelid
        litellm_params:
          guardrail: generic_guardrail_api
          mode: post_call
          api_base: http://eyelid:8080        # LiteLLM adds PATH
          api_key: os.environ/EYELID_KEY      # sent as x-api-key

What LiteLLM hands over is judged: after the model answered (`post_call`) the answer's content and tool calls, without
the question; before (`pre_call`) the texts of the conversation, system prompts left out. It hands over no reasoning
and no refusals, and images are not looked at: the response says so in `eyelid.not_scanned`.

A detector that breaks must be an error and never `NONE`, and with a status that LiteLLM does not take for "unreachable"
(502, 503, 504), which `unreachable_fallback: fail_open` would let pass: `errors.describe` makes it a 500.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..types import Label, Verdict
from . import hazards
from .errors import BadRequest
from .moderations import Classify, Item, Json, Unknown, judged, text_and_images

#: Where LiteLLM expects the endpoint, below the address that it is given.
PATH = "/beta/litellm_basic_guardrail_api"
_BLOCKED = "withheld by Eyelid: the {what} was found harmful"
_UNSURE = "withheld by Eyelid: the detector could not tell whether the {what} is harmful"


async def check(
    body: Mapping[str, object],
    classify: Classify,
    *,
    refusal: str,
    unknown: Unknown = "harmful",
    max_texts: int = 256,
) -> Json:
    """The answer to a decoded request body: `action` NONE, BLOCKED, or GUARDRAIL_INTERVENED with `texts`.

    The last is given where the guardrail is configured with `additional_provider_specific_params: {on_harm: replace}`:
    harmful texts of an answer are replaced by `refusal`. A harmful tool call, or request, is blocked all the same.
    unknown: what a verdict that is neither is taken as. Raises BadRequest; errors of `classify` are passed on.
    """
    kind = body.get("input_type")
    if kind not in ("request", "response"):
        raise BadRequest("input_type must be request or response", param="input_type")
    texts, calls = _texts(body), _calls(body.get("tool_calls"))
    if len(texts) + len(calls) > max_texts:
        raise BadRequest(f"more than {max_texts} texts and tool calls", param="texts", hint="send fewer at once")
    replace = _replaces(body.get("additional_provider_specific_params")) and kind == "response"
    items = _of_answer(texts, calls) if kind == "response" else _of_request(body, texts, calls)
    verdicts = await judged(items, classify)
    found = [hazards.flagged(v, unknown=unknown) for v in verdicts]
    told = _account(body, verdicts)
    if not any(found):
        return {"action": "NONE", "eyelid": told}
    if replace and not calls:
        given = [refusal if harmful else text for text, harmful in zip(texts, found, strict=True)]
        return {"action": "GUARDRAIL_INTERVENED", "texts": given, "eyelid": told}
    sure = any(v.label is Label.HARMFUL for v in verdicts)
    reason = (_BLOCKED if sure else _UNSURE).format(what="answer" if kind == "response" else "request")
    return {"action": "BLOCKED", "blocked_reason": reason, "eyelid": told}


def _of_answer(texts: Sequence[str], calls: Sequence[str]) -> list[Item]:
    """An answer with one text is judged with its calls; of several choices nobody says whose the calls are."""
    if len(texts) <= 1 or not calls:
        both = ["\n".join((*texts, *calls))] if calls else list(texts)
        return [Item(text) for text in both]
    return [*(Item(text) for text in texts), Item("\n".join(calls))]


def _of_request(body: Mapping[str, object], texts: Sequence[str], calls: Sequence[str]) -> list[Item]:
    """Each text alone. `texts` names no roles, `structured_messages` does: with it, system prompts are left out."""
    messages = body.get("structured_messages")
    if isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages):
        prompts = set[str]()
        for place, message in enumerate(messages):
            if message.get("role") in ("system", "developer"):
                prompts |= _said(message.get("content"), f"structured_messages.{place}.content")
        texts = [t for t in texts if t not in prompts]
    return [Item(text) for text in (*dict.fromkeys(texts), *calls)]


def _said(content: object, param: str) -> set[str]:
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return {text_and_images([p], param)[0] for p in parts if isinstance(p, dict) and p.get("type") == "text"}


def _texts(body: Mapping[str, object]) -> list[str]:
    texts = body.get("texts")
    if texts is None:
        return []
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise BadRequest("texts must be a list of strings", param="texts")
    return texts


def _calls(calls: object) -> list[str]:
    """Tool calls as `Response.written` writes them."""
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise BadRequest("tool_calls must be a list", param="tool_calls")
    return [_call(call, place) for place, call in enumerate(calls)]


def _call(call: object, place: int) -> str:
    function = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise BadRequest(f"tool_calls.{place} holds no function", param=f"tool_calls.{place}")
    given = function.get("arguments", function.get("input"))
    arguments = given if isinstance(given, str) else json.dumps(given) if given is not None else ""
    return f"{function.get('name') or ''}({arguments})"


def _replaces(params: object) -> bool:
    """Of the parameters, which clients of LiteLLM can set too, only what loosens nothing is read."""
    wish = params.get("on_harm") if isinstance(params, dict) else None
    if wish not in (None, "block", "replace"):
        where = "additional_provider_specific_params.on_harm"
        raise BadRequest("on_harm must be block or replace", param=where)
    return wish == "replace"


def _account(body: Mapping[str, object], verdicts: Sequence[Verdict]) -> Json:
    known = [v.harm for v in verdicts if v.harm is not None]
    return {
        "judged": len(verdicts),
        "labels": [v.label.value for v in verdicts],
        "harm": max(known, default=None),
        "not_scanned": ["image"] if body.get("images") else [],
    }
