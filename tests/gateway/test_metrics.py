"""Prometheus metrics and the dashboard that reads them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: the extra [serve]")
promql = pytest.importorskip("promql_parser", reason="promql-parser is not installed: the group test")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from eyelid.gateway.audit.counts import Stats  # noqa: E402
from eyelid.gateway.metrics import MAX_REASONS, Metrics  # noqa: E402
from eyelid.gateway.record import Sink  # noqa: E402
from tests.gateway.records import FAILED, OPEN, PASSED, record, varied  # noqa: E402

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "eyelid.json"
ALIASES = {"qwen-hybrid", "qwen"}


class Audit:
    """What a writer shows of itself."""

    def __init__(self) -> None:
        self.stats, self.queued, self.spilled_bytes = Stats(up=True, written=5, spilled=2), 3, 77
        self.stats.lost["queue_full"] = 4
        self.stats.failures["locked"] = 1


def filled() -> Metrics:
    metrics = Metrics(ALIASES)
    metrics.watch_audit(Audit())
    metrics.watch_in_flight(lambda: 2)
    for r in varied():
        metrics.put(r)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def total(metrics: Metrics, name: str, **labels: str) -> float:
    """Of all series that have these labels."""
    samples = [s for f in metrics.registry.collect() for s in f.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def test_outcomes_actions_and_errors_are_kinds_of_their_own() -> None:
    m = filled()
    assert isinstance(m, Sink)
    assert total(m, "eyelid_requests_total") == 9
    assert total(m, "eyelid_requests_total", outcome="upstream_error", status="502") == 1
    assert total(m, "eyelid_requests_total", outcome="shed", status="503") == 1
    actions = {a: total(m, "eyelid_choices_total", action=a) for a in ("passed", "repaired", "refused", "failed")}
    assert actions == {"passed": 2, "repaired": 1, "refused": 3, "failed": 1}
    assert total(m, "eyelid_choices_total", action="not_guarded", defense="none", alias="qwen") == 1
    assert value(m, "eyelid_refusals_total", alias="qwen-hybrid", by="guard") == 2
    assert value(m, "eyelid_refusals_total", alias="qwen-hybrid", by="upstream") == 1
    assert total(m, "eyelid_verdicts_total", label="harmful") == 3
    assert value(m, "eyelid_unchecked_total", alias="qwen", reason="no defence") == 1
    assert value(m, "eyelid_guard_failures_total", alias="qwen-hybrid", failure="judge: BackendTimeout") == 1
    assert value(m, "eyelid_tokens_total", alias="qwen-hybrid", kind="prompt") == 7 * 650
    assert total(m, "eyelid_upstream_duration_seconds_count") == 7  # no model was asked by the two others
    assert total(m, "eyelid_guard_duration_seconds_count", alias="qwen") == 0
    assert total(m, "eyelid_guard_duration_seconds_sum") == pytest.approx(6 * 0.031)
    assert value(m, "eyelid_requests_in_flight") == 2


def test_the_audit_is_seen() -> None:
    m = filled()
    assert value(m, "eyelid_audit_up") == 1
    assert value(m, "eyelid_audit_queue_records") == 3
    assert value(m, "eyelid_audit_spill_bytes") == 77
    assert value(m, "eyelid_audit_written_records_total") == 5
    assert value(m, "eyelid_audit_lost_records_total", reason="queue_full") == 4
    assert value(m, "eyelid_audit_lost_records_total", reason="torn") == 0  # an alert needs no first loss
    assert value(m, "eyelid_audit_failures_total", reason="locked") == 1


def test_what_clients_choose_makes_no_series() -> None:
    """Aliases that are not there, texts in every field, any status: the number of series is bounded."""
    m = Metrics(ALIASES)
    for i in range(300):
        word = f"swordfish-{i}"
        choice: Any = dataclasses.replace(
            FAILED, label=word, final_label=word, unchecked_because=word, failure=word, text=word, original=word
        )
        m.put(record(word, alias=word, key=word, upstream=word, error=word, query=word, images=(word,), status=i * 7,
                     endpoint=word, stream_mode=word, choices=(choice,), defense=word, outcome=word))  # fmt: skip
    series = [s for f in m.registry.collect() for s in f.samples if not s.name.endswith(("_bucket", "_created"))]
    assert len(series) < 500
    assert value(m, "eyelid_unchecked_total", alias="other", reason="other") == 300 - MAX_REASONS
    assert {s.labels["alias"] for s in series if "alias" in s.labels} == {"other"}
    text = m.render().decode()
    free = [line for line in text.splitlines() if "swordfish" in line]
    assert all(line.startswith(("eyelid_unchecked_", "eyelid_guard_failures_")) for line in free)


def test_nothing_of_a_request_stands_in_the_metrics() -> None:
    m = Metrics(ALIASES)
    choice = dataclasses.replace(PASSED, text="swordfish", original="swordfish")
    m.put(record("swordfish", alias="swordfish", key="swordfish", upstream="swordfish", error="swordfish",
                 query="swordfish", images=("swordfish",), choices=(choice,)))  # fmt: skip
    assert "swordfish" not in m.render().decode()


def test_put_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    m = Metrics(ALIASES)
    m.put(record(milliseconds="no number"))
    m.put(None)  # type: ignore[arg-type]
    assert caplog.text.count("this is a defect") == 2


def test_names_follow_the_conventions() -> None:
    families = {f.name: f for f in text_string_to_metric_families(filled().render().decode())}
    ours = {n: f for n, f in families.items() if n.startswith("eyelid_")}
    assert len(ours) >= 18
    for name, family in ours.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert family.documentation
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples)


def expressions() -> list[str]:
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [t["expr"] for p in found["panels"] for t in p.get("targets", ())]


def names_in(node: object) -> set[str]:
    """Metrics that a parsed expression reads."""
    if isinstance(node, promql.VectorSelector):
        return {node.name}
    if isinstance(node, promql.MatrixSelector):
        return {node.vector_selector.name}
    if isinstance(node, promql.Call):
        return set().union(*map(names_in, node.args))
    if isinstance(node, promql.BinaryExpr):
        return names_in(node.lhs) | names_in(node.rhs)
    if isinstance(node, promql.NumberLiteral):
        return set()
    return names_in(node.expr)


def test_the_dashboard_reads_metrics_and_labels_that_exist() -> None:
    samples = [s for f in filled().registry.collect() for s in f.samples]
    there = {s.name for s in samples}
    labels = {s.name: set(s.labels) for s in samples}
    used: set[str] = set()
    assert len(expressions()) >= 20
    for text in expressions():
        plain = text.replace("$__rate_interval", "5m").replace("$alias", ".*")
        assert "$" not in plain
        names = names_in(promql.parse(plain))
        assert names, text
        assert names <= there, text
        used |= names
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", plain):
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", matchers)) <= labels[name], text
        for group in re.findall(r"by \(([^)]*)\)", plain):
            known = set().union(*(labels[n] for n in names)) | {"instance", "job"}  # those come from the scrape
            assert set(group.replace(" ", "").split(",")) <= known, text
    ours = {f.name for f in filled().registry.collect() if f.name.startswith("eyelid_")}
    unseen = {n for n in ours if not any(u.startswith(n) for u in used)}
    assert unseen == set()  # whatever is measured can be looked at


def test_the_dashboard_hangs_together() -> None:
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(found)
    ids = [p["id"] for p in found["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for p in found["panels"]
        for g in [p["gridPos"]]
        for x in range(g["x"], g["x"] + g["w"])
        for y in range(g["y"], g["y"] + g["h"])
    ]
    assert len(set(cells)) == len(cells)  # no panel lies on another
    assert max(x for x, _ in cells) < 24
    sources = {
        json.dumps(t["datasource"]) for p in found["panels"] for t in [p, *p.get("targets", ())] if "datasource" in t
    }
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    assert [v["name"] for v in found["templating"]["list"]] == ["datasource", "alias"]


def test_records_without_choices_and_streams() -> None:
    m = Metrics(ALIASES)
    m.put(record(stream=True, stream_mode="window", choices=(OPEN,)))
    assert value(m, "eyelid_request_duration_seconds_count", alias="qwen-hybrid", stream="true") == 1
