"""The same load against other gateways: LiteLLM's proxy and NeMo Guardrails' server, in turns, in one run.

    EYELID_LITELLM=DIR EYELID_NEMO=DIR python -m benchmarks.gateway_others [--rounds N] [--requests N] [--json FILE]

Each lives in an environment of its own, which the variable names; one that is not named is left out.

    python -m venv DIR && DIR/bin/pip install 'litellm[proxy]!=1.82.7,!=1.82.8'      (those two were compromised)
    python -m venv DIR && DIR/bin/pip install 'nemoguardrails[server]'

All of them run as one process with one worker, no database but Eyelid's own audit, no keys, no cache, telemetry off.

    passing on     Eyelid: defence `none`. LiteLLM: a model of kind `openai/`, no guardrail. NeMo: `passthrough: true`,
                   no rails.
    one check      every answer is judged by one call over HTTP to a server that answers at once. Eyelid: defence
                   `protector` with a classify endpoint. LiteLLM: its generic guardrail API, `post_call`. NeMo: one
                   output rail, whose action asks the same classify endpoint with aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gateway import aliases, progress, question, right, turns
from benchmarks.gateway_client import Burst, burst, prepared
from benchmarks.gateway_figures import Figures, ratio
from benchmarks.gateway_processes import Bench, Process, bench, environment, free_port

EYELID, LITELLM, NEMO = "eyelid", "litellm", "nemo guardrails"
ACTIONS = """
import aiohttp
from nemoguardrails.actions import action

session = None

@action(is_system_action=True)
async def judge(context=None):
    global session
    session = session or aiohttp.ClientSession()
    async with session.post("{judge}/classify", json={{"input": [context["bot_message"]]}}) as reply:
        return (await reply.json())["data"][0]["probs"][0] > 0.5
"""
RAIL = """
define bot refuse
  "No."

define flow judge output
  $fine = execute judge
  if not $fine
    bot refuse
    stop
"""


def litellm(b: Bench, home: Path, up: str, judge: str) -> list[Process]:
    """Two models of one proxy: a guardrail that is asked for by the request's body costs nothing where it is not."""
    params = {"model": "openai/served", "api_base": f"{up}/v1", "api_key": "none"}
    guard = {"guardrail": "generic_guardrail_api", "mode": "post_call", "api_base": judge, "api_key": "none"}
    config = {
        "model_list": [{"model_name": "served", "litellm_params": params}],
        "guardrails": [{"guardrail_name": "judge", "litellm_params": guard}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    file = b.folder / "litellm.json"
    file.write_text(json.dumps(config))  # JSON is YAML
    env = environment(b.folder) | {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DISABLE_ADMIN_UI": "true",
        "LITELLM_MODE": "PRODUCTION", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }  # fmt: skip
    port = free_port()
    command = [str(home / "bin/litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    found = b.start(LITELLM, command, port, ready="/health/liveliness", env=env, seconds=180, cwd=b.folder)
    return [found, dataclasses.replace(found, name=f"{LITELLM} checked")]


def nemo(b: Bench, home: Path, up: str, judge: str) -> list[Process]:
    """Two configurations of one server; the request's body names the one."""
    models = [{"type": "main", "engine": "openai", "model": "served",
               "parameters": {"base_url": f"{up}/v1", "api_key": "none"}}]  # fmt: skip
    plain, checked = b.folder / "nemo" / "plain", b.folder / "nemo" / "checked"
    for folder, rails in ((plain, {}), (checked, {"rails": {"output": {"flows": ["judge output"]}}})):
        folder.mkdir(parents=True)
        (folder / "config.yml").write_text(json.dumps({"models": models, "passthrough": True, **rails}))
    (checked / "actions.py").write_text(ACTIONS.format(judge=judge))
    (checked / "rails.co").write_text(RAIL)
    port = free_port()
    command = [str(home / "bin/nemoguardrails"), "server", "--config", str(b.folder / "nemo"), "--port", str(port)]
    command += ["--disable-chat-ui", "--default-config-id", "plain"]
    env = environment(b.folder) | {"OPENAI_API_KEY": "none", "DO_NOT_TRACK": "1", "MAIN_MODEL_ENGINE": "openai"}
    found = b.start(NEMO, command, port, ready="/v1/rails/configs", env=env, seconds=180, cwd=b.folder)
    return [found, dataclasses.replace(found, name=f"{NEMO} checked")]


def body(name: str, model: str) -> Any:
    asked: Any = question(model)
    if name == f"{LITELLM} checked":
        asked["guardrails"] = ["judge"]
    if name.startswith(NEMO):
        asked["guardrails"] = {"config_id": "checked" if name.endswith("checked") else "plain"}
    return asked


async def measure(b: Bench, rounds: int, requests: int, clients: int) -> dict[str, Any]:
    up, judge = b.part("upstream"), b.part("detector")
    own = b.eyelid(EYELID, aliases(up.url, judge.url), model="none")
    contestants = [own, dataclasses.replace(own, name=f"{EYELID} checked", model="guarded")]
    versions = {}
    for variable, opener, package in (("EYELID_LITELLM", litellm, "litellm"), ("EYELID_NEMO", nemo, "nemoguardrails")):
        if home := os.environ.get(variable):
            contestants += opener(b, Path(home), up.url, judge.url)
            versions[package] = version(Path(home), package)
        else:
            progress(f"{variable} names no environment: left out")
    for contestant in contestants:
        await check_that_it_checks(contestant, judge)
    out: dict[str, Any] = {"versions": versions, "rounds": rounds, "requests": requests, "clients": clients}
    for kind, own_name in (("passing on", EYELID), ("one check", f"{EYELID} checked")):
        group = [c for c in contestants if c.name.endswith("checked") == own_name.endswith("checked")]
        found = await turns(
            group, lambda c: body(c.name, c.model), rounds=rounds, requests=requests, clients=clients, say=kind
        )
        out[kind] = {name: told(found, name, own_name) for name in found}
    out["resident MB"] = {c.name: c.resident_bytes / 2**20 for c in contestants if not c.name.endswith("checked")}
    return out


async def check_that_it_checks(contestant: Process, judge: Process) -> None:
    """Raises RuntimeError where answers are not judged that should be, or are that should not be."""
    before = asked(judge)
    raw = prepared(contestant, body(contestant.name, contestant.model))
    await burst(contestant, [raw], right, requests=10, clients=1)
    found = asked(judge) - before
    if found != (10 if contestant.name.endswith("checked") else 0):
        raise RuntimeError(f"{contestant.name}: of 10 answers {found} were judged")


def asked(judge: Process) -> int:
    with urllib.request.urlopen(judge.url, timeout=5) as r:
        return int(json.load(r)["asked"])


def told(rounds: dict[str, list[Burst]], name: str, own: str) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(Figures)]
    compared = {n: ratio(rounds, name, own, lambda f, n=n: getattr(f, n)) for n in names}  # type: ignore[misc]
    return Figures.of(rounds[name]).json() | {"x eyelid": compared}


def version(home: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([home / "bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--requests", type=int, default=300)
    a.add_argument("--clients", type=int, default=8)
    a.add_argument("--json", type=Path, help="write all figures there too")
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)) as b:
        found = asyncio.run(measure(b, o.rounds, o.requests, o.clients))
    console = Console(width=140)
    for kind in ("passing on", "one check"):
        heads = ("p50 ms", "p99 ms", "requests/s", "CPU ms", "x eyelid: p50", "p99", "req/s", "CPU")
        table = Table("", *heads, title=f"{kind}, {found['clients']} clients")
        for name, r in found[kind].items():
            cells = [f"{r['p50']:.1f}", f"{r['p99']:.1f}", f"{r['per_second']:.0f}", f"{r['cpu_ms']:.2f}"]
            x = r["x eyelid"]
            table.add_row(name, *cells, *(f"{x[k]:.2f}" for k in ("p50", "p99", "per_second", "cpu_ms")))
        console.print(table)
    console.print("Versions:", ", ".join(f"{k} {v}" for k, v in found["versions"].items()))
    console.print("Resident memory:", ", ".join(f"{k} {v:.0f} MB" for k, v in found["resident MB"].items()))
    if o.json:
        o.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
