"""Eyelid protects multimodal LLMs at inference time: it notices a harmful answer, closes the model's eyes, still helps.

    import eyelid

    response = eyelid.guard_sync("What does this page ask for?", ["page.png"], model="tiny", defense="hybrid")
    print(response.text, response.trace.action)

Importing this imports no model runtime.
"""

from .assembly import assemble
from .errors import EyelidError
from .guard import Guard, GuardSettings
from .images import load_image
from .presets import DEFENSES, Options, build
from .sync import Sync, guard_sync
from .types import Action, Label, Request, Response, Trace, Verdict, assistant, system, user

__all__ = [
    "DEFENSES", "Action", "EyelidError", "Guard", "GuardSettings", "Label", "Options", "Request", "Response", "Sync",
    "Trace", "Verdict", "assemble", "assistant", "build", "guard_sync", "load_image", "system", "user",
]  # fmt: skip

__version__ = "0.1.0"
