"""`eyelid serve`: the gateway, an OpenAI-compatible server in front of any model."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from .. import config, extras, specs
from ..errors import InputError, MissingDependency
from ..sections import DefenseName
from .exits import ANSWERED, INTERRUPTED
from .session import known
from .text import printable

if TYPE_CHECKING:
    from ..gateway.aliases import Alias

#: What the extra `serve` brings; a missing one is told with the command that installs it.
NEEDED = ("starlette", "uvicorn", "httptools", "msgspec", "pybase64", "prometheus_client")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid serve`'s options."""
    parser.add_argument("--config", metavar="FILE.yaml", help="a configuration file; flags win over it")
    parser.add_argument("--host", help="the address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=_port, metavar="N", help="the port (default 8080; 0 takes a free one)")
    about = "which model to serve, in place of the configuration's model and aliases (default: tiny)"
    parser.add_argument("--model", metavar="SPEC", help=about)
    parser.add_argument("--defense", metavar="NAME", help="the defence of that model (default: hybrid)")
    parser.add_argument(
        "--insecure", action="store_true", help="listen on other addresses than loopback although no keys are set"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it. Returns the exit code; raises what opening models and the socket raises."""
    conf = settings(args)
    _check_extra()
    from ..gateway import server
    from ..gateway.app import create

    server.check(conf, insecure=args.insecure)
    listening = server.bind(conf.serve.host, conf.serve.port)
    _say("loading ...")
    running: list[server.Server] = []

    def ready() -> None:
        host, port = listening.getsockname()[:2]
        _announce(conf, str(host), int(port), running[0].gateway.current.aliases)

    def reread() -> config.Config:
        """The file anew. One that lost its keys must not open to all the address that is listened on."""
        again = settings(args)
        listened = dataclasses.replace(again.serve, host=conf.serve.host)
        server.check(dataclasses.replace(again, serve=listened), insecure=args.insecure)
        return again

    found = server.Server(create(conf), conf, reread=reread if args.config else None, ready=ready)
    running.append(found)
    with listening, _logs(conf.serve.log):
        found.run(sockets=[listening])
    _say("ended; everything is written")
    return INTERRUPTED if found.interrupted else ANSWERED


def settings(args: argparse.Namespace) -> config.Config:
    """The configuration with the flags laid over it."""
    found = config.load(args.config) if args.config else config.Config()
    serve = found.serve
    if args.model is not None:  # nothing of the configured models, least of all a key, may reach another one
        found = dataclasses.replace(found, model=config.ModelConfig(args.model))
        serve = dataclasses.replace(serve, aliases={})
    if args.defense is not None:
        if serve.aliases:
            hint = "set the defence of each alias in the file, or name one model with --model"
            raise InputError("--defense is for one model, and the configuration has aliases", hint=hint)
        found = dataclasses.replace(found, defense=dataclasses.replace(found.defense, name=_known(args.defense)))
    if args.host is not None:
        serve = dataclasses.replace(serve, host=args.host)
    if args.port is not None:
        serve = dataclasses.replace(serve, port=args.port)
    if not args.config and serve.loopback:  # tried out on one's own machine: the playground shows the steps
        serve = dataclasses.replace(serve, allow_trace=True)
    specs.parse(found.model.spec)
    for alias in serve.aliases.values():
        if alias.model is not None:
            specs.parse(alias.model.spec)
    return dataclasses.replace(found, serve=serve)


@contextlib.contextmanager
def _logs(kind: str) -> Iterator[None]:
    """What the gateway has to say, as JSON lines or for people; requests only in JSON."""
    from ..gateway import logs

    if kind == "json" or (kind == "auto" and not sys.stderr.isatty()):
        lines = logs.Lines()
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        try:
            yield
        finally:
            lines.close()
        return
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in (logging.getLogger("uvicorn"), logs.access):
        noisy.setLevel(logging.WARNING)
    yield


def _known(name: str) -> DefenseName:
    return cast(DefenseName, known(name))


def _check_extra() -> None:
    from importlib.util import find_spec

    for module in NEEDED:
        if find_spec(module) is None:
            raise MissingDependency(f"{module} is not installed", hint=extras.install("serve"))


def _announce(conf: config.Config, host: str, port: int, aliases: dict[str, Alias]) -> None:
    """Where it listens, what can be asked for, and a request to copy."""
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"eyelid listens on {where}")
    width = max(map(len, aliases), default=0)
    for name, alias in aliases.items():
        mode = "" if alias.defense == "none" else f", streams: {alias.stream_mode}"
        guard = "not guarded" if alias.defense == "none" else f"guarded by {alias.defense}"
        print(f"  {printable(name):<{width}}  {printable(alias.upstream_name)}, {guard}{mode}")
    if conf.serve.keys:
        print(f"keys: {', '.join(k.name for k in conf.serve.keys)}")
    else:
        print("keys: none are set, everybody who reaches this address may ask (`eyelid keys new` makes one)")
    name = next(iter(aliases))
    key = " -H 'authorization: Bearer YOUR_KEY'" if conf.serve.keys else ""
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    print(f"\ncurl {where}/v1/chat/completions{key} \\")
    print(f"  -H 'content-type: application/json' -d '{body}'\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    print(f"eyelid: {text}", file=sys.stderr, flush=True)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return int(text)
