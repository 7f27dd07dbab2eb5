"""What LiteLLM and an agent framework do with a gateway. Runs in their environments, and so imports nothing of ours:

python clients.py litellm|agent ADDRESS  ->  one JSON object on standard output
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

KEY = "eyelid_test"
ASK: list[Any] = [{"role": "user", "content": "Hello?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def with_litellm(address: str) -> dict[str, Any]:
    import litellm

    def ask(alias: str, **more: Any) -> Any:
        given: dict[str, Any] = {"messages": ASK, **more}
        return litellm.completion(
            model=f"openai/{alias}", api_base=f"{address}/v1", api_key=KEY, num_retries=0, **given
        )

    def shown(answer: Any) -> list[Any]:
        choice = answer.choices[0]
        calls = [[c.function.name, c.function.arguments] for c in choice.message.tool_calls or ()]
        return [choice.message.content, choice.finish_reason, calls]

    def streamed(alias: str, **more: Any) -> list[Any]:
        chunks = list(ask(alias, stream=True, stream_options={"include_usage": True}, **more))
        whole = litellm.stream_chunk_builder(chunks, messages=ASK)
        return [*shown(whole), whole.usage.completion_tokens]

    def fault(**more: Any) -> list[Any]:
        try:
            ask(**more)
        except Exception as e:  # noqa: BLE001 - its kind is what is looked at
            return [type(e).__name__, getattr(e, "status_code", None)]
        return ["no error", None]

    async def later() -> list[Any]:
        answer = await litellm.acompletion(
            model="openai/ecso", api_base=f"{address}/v1", api_key=KEY, messages=ASK, num_retries=0
        )
        return shown(answer)

    page = [{"type": "text", "text": "Read it"}, {"type": "image_url", "image_url": {"url": sys.argv[3]}}]
    long = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i} " * 20} for i in range(201)]
    whole = ask("ecso")
    return {
        "passed": shown(whole),
        "eyelid": whole.model_dump().get("eyelid"),
        "streamed": streamed("ecso"),
        "window": streamed("window"),
        "async": asyncio.run(later()),
        "tool": shown(ask("ecso", tools=[WEATHER], messages=[{"role": "user", "content": "weather?"}])),
        "tool streamed": streamed("ecso", tools=[WEATHER], messages=[{"role": "user", "content": "weather?"}]),
        "image": shown(ask("ecso", messages=[{"role": "user", "content": page}])),
        "long": shown(ask("ecso", messages=long)),
        "repaired": shown(ask("ecso", messages=[{"role": "user", "content": "be bad"}])),
        "blocked": shown(ask("refuse", messages=[{"role": "user", "content": "be bad"}])),
        "no such model": fault(alias="nowhere"),
        "refused field": fault(alias="ecso", extra_body={"chat_template": "x"}),
        "server down": fault(alias="ecso", messages=[{"role": "user", "content": "fail"}]),
    }


def with_an_agent(address: str) -> dict[str, Any]:
    from pydantic import BaseModel
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class City(BaseModel):
        name: str
        people: int

    def model(alias: str) -> OpenAIChatModel:
        return OpenAIChatModel(alias, provider=OpenAIProvider(base_url=f"{address}/v1", api_key=KEY))

    async def run() -> dict[str, Any]:
        asked: list[str] = []
        agent = Agent(model("ecso"), system_prompt="Answer with the weather.")

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather in a city."""
            asked.append(city)
            return "rain"

        found = await agent.run("weather?")
        pieces: list[str] = []
        async with agent.run_stream("weather?") as stream:
            async for text in stream.stream_text(delta=True):
                pieces.append(text)
        typed = await Agent(model("ecso"), output_type=City).run("a city?")
        again = await agent.run("and now?", message_history=found.all_messages())
        return {
            "answer": found.output,
            "asked": asked,
            "streamed": "".join(pieces),
            "typed": typed.output.model_dump(),
            "again": again.output,
        }

    return asyncio.run(run())


if __name__ == "__main__":
    print(json.dumps({"litellm": with_litellm, "agent": with_an_agent}[sys.argv[1]](sys.argv[2])))
