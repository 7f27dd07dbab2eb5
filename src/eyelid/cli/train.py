"""`eyelid train detector | detoxifier | export`: the arguments; the trainers load when one runs."""

from __future__ import annotations

import argparse
import importlib
from typing import NoReturn

from .. import extras
from ..errors import MissingDependency
from ..registry import missing
from .arguments import commands
from .text import positive

COMMANDS = {
    "detector": "train a harm detector on labelled and compared answers",
    "detoxifier": "train a LoRA adapter that rewrites harmful answers",
    "export": "turn a trained detector into int8 ONNX, or a detoxifier's adapter into a GGUF LoRA",
}
MODULES = frozenset(
    ("torch", "transformers", "accelerate", "trl", "peft", "datasets", "pyarrow", "sklearn", "scipy", "onnx", "gguf")
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `eyelid train`'s commands and their options."""
    for name, sub in commands(parser, COMMANDS):
        {"detector": _detector, "detoxifier": _detoxifier, "export": _export}[name](sub)


def run(args: argparse.Namespace) -> int:
    """Hand over to the trainer. Raises MissingDependency, with the command that installs it, where it is not there."""
    try:
        module = importlib.import_module(f"eyelid.train.{args.what}")
    except ModuleNotFoundError as e:
        _explain(e)
    try:
        return int(module.main(args) or 0)
    except ModuleNotFoundError as e:
        _explain(e)


def _explain(error: ModuleNotFoundError) -> NoReturn:
    top = (error.name or "").partition(".")[0]
    if top in MODULES:
        raise MissingDependency(f"training needs {top}, which is not installed", hint=extras.install("train"))
    raise missing(error) from error


def _detector(p: argparse.ArgumentParser) -> None:
    p.epilog = """\
FILE or LAYOUT:FILE; layouts: pku-saferlhf, beavertails, jailbreakbench, gptfuzz, hh-rlhf, xstest, safe-harm, plain
(question, answer, harm), pairs (question, better, worse), labelled (question, answer, label). Without LAYOUT the
columns decide. Formats: .jsonl .json .csv .tsv (also .gz) .parquet

on many GPUs: accelerate launch --config_file "$(python -m eyelid.train.launch fsdp)" -m eyelid train detector ...
"""
    data = p.add_argument_group("data")
    data.add_argument("--data", nargs="+", required=True, metavar="FILE", help="what to train on")
    data.add_argument(
        "--eval", nargs="+", default=[], metavar="FILE", help="labelled sets to measure on; not trained on"
    )
    data.add_argument("--exclude", nargs="+", default=[], metavar="FILE", help="leave the questions of these files out")
    data.add_argument("--dev", type=float, default=0.1, help="share of the questions for calibration (0.1)")
    data.add_argument("--test", type=float, default=0.1, help="share of the questions for the figures (0.1)")
    data.add_argument(
        "--weight", nargs="+", default=[], metavar="SOURCE=FACTOR", help="how far to trust the rows of a source"
    )
    data.add_argument("--limit", type=positive, help="at most so many rows of each part, for a trial")
    model = p.add_argument_group("model")
    model.add_argument("--base", required=True, help="a checkpoint: directory, package:NAME or hub id")
    model.add_argument(
        "--lora", type=int, metavar="RANK", help="0 trains all weights (default: 32 for decoders, else 0)"
    )
    model.add_argument("--freeze", type=int, default=0, metavar="LAYERS", help="keep embeddings and first layers")
    model.add_argument("--dropout", type=float, help="instead of the base's own")
    model.add_argument("--max-length", type=positive, default=256, help="tokens of a window in serving (256)")
    model.add_argument("--overlap", type=int, help="tokens that neighbouring windows share (3/16 of max-length)")
    model.add_argument("--train-length", type=positive, help="shorter windows in training are faster (max-length)")
    loss = p.add_argument_group("objective")
    loss.add_argument(
        "--pair-weight", type=float, default=0.25, help="order of pairs against labels (0.25, as published)"
    )
    loss.add_argument(
        "--positive-weight", type=float, default=1.0, help="what harmful answers weigh (1); 0 balances both labels"
    )
    loss.add_argument("--windows", type=int, default=2, help="of a long answer, read so many a pass (2); 0 reads all")
    loss.add_argument("--calibration", choices=("temperature", "isotonic", "none"), default="temperature")
    loss.add_argument(
        "--false-alarms",
        type=float,
        nargs="+",
        default=[0.05, 0.01],
        metavar="RATE",
        help="thresholds for these shares of harmless answers; the first is the detector's own (0.05 0.01)",
    )
    _run(p, lr=1e-4, batch=24, epochs=3.0)


def _run(p: argparse.ArgumentParser, *, lr: float, batch: int, epochs: float) -> None:
    """How a run goes."""
    run = p.add_argument_group("run")
    run.add_argument("--out", required=True, metavar="DIR", help="where the run and its model are kept")
    run.add_argument("--resume", action="store_true", help="continue the run in --out from its newest checkpoint")
    run.add_argument("--epochs", type=float, default=epochs, help=f"passes over the data ({epochs:g})")
    run.add_argument("--steps", type=positive, help="so many steps, instead of --epochs")
    run.add_argument("--batch", type=positive, default=batch, help=f"rows a step and process ({batch})")
    run.add_argument("--accumulate", type=positive, default=1, help="batches a step (1)")
    run.add_argument("--lr", type=float, default=lr, help=f"highest learning rate ({lr:g})")
    run.add_argument("--warmup", type=float, default=0.05, help="share of the steps until then (0.05)")
    run.add_argument("--weight-decay", type=float, default=0.01)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--threads", type=positive, help="CPU threads (default: torch's own choice)")
    run.add_argument(
        "--bf16", action="store_true", help="compute in bfloat16: several times faster where it is built in"
    )
    run.add_argument("--checkpointing", action="store_true", help="recompute activations: less memory, more time")
    run.add_argument("--device", choices=("auto", "cpu"), default="auto")
    run.add_argument("--save-steps", type=positive, default=200, help="steps between checkpoints (200)")
    run.add_argument("--log-steps", type=positive, default=10)
    run.add_argument("--eval-steps", type=int, default=0, help="steps between losses on dev (0: none)")
    run.add_argument("--name", default="detector", help="in the manifest and in traces")
    run.add_argument("--licence", default="", help="of the trained weights, for card and manifest")


def _detoxifier(p: argparse.ArgumentParser) -> None:
    importlib.import_module("eyelid.train.detoxifier").arguments(p)


def _export(p: argparse.ArgumentParser) -> None:
    p.add_argument("source", metavar="DIR", help="what `eyelid train detector` or `eyelid train detoxifier` saved")
    p.add_argument("--out", required=True, metavar="PATH", help="a directory for a detector, a .gguf for an adapter")
    p.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="detector: compare with the float model on these"
    )
    p.add_argument(
        "--false-alarms",
        type=float,
        nargs="+",
        default=[],
        metavar="RATE",
        help="detector: calibrate the exported model anew on the dev part of --data, thresholds as in training",
    )
    p.add_argument("--rows", type=positive, default=200, help="detector: so many rows of --data (200)")
    p.add_argument("--float", action="store_true", help="detector: leave the weights in float32")
    p.add_argument("--threads", type=positive, help="detector: CPU threads of the comparison (1)")
    p.add_argument("--base", default="", help="adapter: the base it was trained on, where its own note is not enough")
