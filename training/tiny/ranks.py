"""One training run in several processes, a core or a GPU each: gradients are averaged after every step.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m training.tiny.connect ...

Two processes of one thread are faster than one of two on a CPU: what lies between the products does not scale with
threads. Processes draw different pages and begin with the same weights, which stay the same by the averaging.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist


def join() -> None:
    """Meet the other processes, if the launcher made any. Without one this process is alone, and nothing changes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(minutes=20))


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def average(params: Sequence[torch.nn.Parameter], share: float) -> float:
    """Average the gradients of `params` over all processes, in place; returns the largest `share` of any.

    `share` is how much of its time a process has used: all have to stop after the same step, by the furthest clock.
    """
    if world() == 1:
        return share
    for p in params:  # a batch without pages gives the tower none
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.view(-1) for p in params if p.grad is not None])
    dist.all_reduce(flat)
    flat /= world()
    at = 0
    for p in params:
        assert p.grad is not None
        p.grad.copy_(flat[at : at + p.numel()].view_as(p))
        at += p.numel()
    furthest = torch.tensor([share])
    dist.all_reduce(furthest, op=dist.ReduceOp.MAX)
    return float(furthest)


def leave() -> None:
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
