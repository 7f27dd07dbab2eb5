"""Weights for Eyelid: one folder a model, each with a manifest.json. Data only; `eyelid.models` finds and checks it."""
