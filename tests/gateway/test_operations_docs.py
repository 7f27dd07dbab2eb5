"""The page about operations says what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from eyelid import cli, config
from eyelid.gateway.audit.settings import AuditConfig
from tests.test_docs import flags

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_flags_exist() -> None:
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGE)) <= flags(cli.parser(["audit", "keys"]))


def test_every_setting_stands_there_and_the_example_is_read() -> None:
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    found = config.parse(example, environ={"AUDIT_SECRET": "s" * 32}).serve.audit
    assert (found.retention_days, found.path) == (365.0, Path("/var/lib/eyelid/audit.db"))
    for setting in dataclasses.fields(AuditConfig):
        assert re.search(rf"\b{setting.name}:", PAGE), setting.name


def test_every_metric_stands_there() -> None:
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: the extra [serve]")
    from eyelid.gateway.metrics import LOSSES
    from tests.gateway.test_metrics import filled

    for family in filled().registry.collect():
        short = re.sub(r"^eyelid_audit_(spilled|replayed|pruned)_records$", r"..._\1_...", family.name)
        assert f"`{family.name}" in PAGE or short in PAGE or family.name.startswith("process_"), family.name
    assert [reason for reason in LOSSES if f"`{reason}`" not in PAGE] == []
