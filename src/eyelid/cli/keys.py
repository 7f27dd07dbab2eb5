"""`eyelid keys new`: a key for a client of the gateway, shown once."""

from __future__ import annotations

import argparse
import json

from ..gateway import keys
from .exits import ANSWERED


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid keys`' commands."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    new = commands.add_parser(
        "new",
        help="make a key, and its entry in the configuration",
        description="Make a key. It is shown once and stored nowhere: the configuration holds its hash.",
        allow_abbrev=False,
    )
    new.add_argument("--name", metavar="NAME", default="client", help="who gets it, for audit and metrics")
    new.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print a new key and its entry in the configuration. Returns the exit code."""
    key, sha256 = keys.new()
    entry = keys.KeyConfig(args.name, sha256)  # says so if the name cannot be used
    if args.json:
        print(json.dumps({"key": key, "entry": {"name": entry.name, "sha256": sha256}}))
        return ANSWERED
    print("The key, which is not shown again (clients send it as Authorization: Bearer KEY):\n")
    print(f"    {key}\n")
    print("Its entry in the gateway's configuration:\n")
    print("    serve:")
    print("      keys:")
    print(f'        - {{name: "{entry.name}", sha256: "{sha256}"}}\n')
    print(
        "An entry may also have requests_per_minute, max_concurrent, aliases (a list), and audit: true, with which the"
    )
    print("audit page shows it the requests of every key.")
    return ANSWERED
