"""The gateway's benchmarks: their arithmetic, and each whole, on small figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gateway
from benchmarks.gateway_client import Burst
from benchmarks.gateway_figures import Figures, doubt, ratio
from benchmarks.gateway_processes import bench
from benchmarks.gateway_servers import WORDS


def burst(latency: float, *, cpu: float = 0.01, requests: int = 10) -> Burst:
    return Burst([latency] * requests, latency * requests, cpu, 0)


def test_a_ratio_is_taken_within_its_round() -> None:
    """A machine that was ten times slower in one round changes nothing."""
    rounds = {"ours": [burst(0.002), burst(0.02), burst(0.002)], "null": [burst(0.001), burst(0.01), burst(0.001)]}
    assert ratio(rounds, "ours", "null", lambda f: f.p50) == pytest.approx(2)
    assert ratio(rounds, "null", "null", lambda f: f.p50) == 1
    assert ratio(rounds, "ours", "null", lambda f: f.per_second) == pytest.approx(0.5)


def test_how_far_a_median_may_be_off_shrinks_with_the_rounds() -> None:
    """Of 16 rounds the ranks 4 and 13 (of 1 to 16) stand around the median with 95 %."""
    assert doubt([1.5]) == 0
    assert doubt([1.0, 2.0, 3.0]) == 1
    assert doubt([float(n) for n in range(1, 17)]) == pytest.approx(4.5)
    assert doubt([n / 10 for n in range(160)]) < doubt([n for n in range(16)])


def test_figures_are_medians_of_rounds_in_milliseconds() -> None:
    found = Figures.of([burst(0.001), burst(0.003), burst(0.5)])
    assert found.p50 == pytest.approx(3)
    assert found.cpu_ms == pytest.approx(1)
    assert found.per_second == pytest.approx(1000 / 3)


def test_a_stream_that_was_cut_or_mixed_is_not_taken_for_right() -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n'
    assert gateway.said(event % b"one " + event % b"two" + b"data: [DONE]\n\n") == "one two"
    assert gateway.said(event % b"one ") != "one "
    assert not gateway.right(0, b"something else")
    assert gateway.right(0, WORDS.encode())


@pytest.mark.real
async def test_the_benchmark_measures_every_contestant_and_no_answer_is_wrong(tmp_path: Path) -> None:
    sizes = gateway.Sizes(rounds=1, requests=20, clients=4, alone=10, images=2, streams=10, bursts=2)
    with bench(tmp_path) as b:
        found = await gateway.measure(b, sizes, shipped=False)
    assert found["text"].keys() == {"no proxy", "null proxy", "eyelid none", "eyelid guarded"}
    assert found["1 MB image, one at a time"]["eyelid none"]["p50"] > 0
    streams = found["10 streams at once"]
    assert {row["complete and right"] for row in streams.values()} == {"20 of 20"}
    assert found["text"]["eyelid none"]["x null proxy"]["cpu_ms"] > 0
    assert len(gateway.tables(found)) == 4
