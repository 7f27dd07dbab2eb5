"""What is deployed: image, compose file, Kubernetes manifests. Read, rendered and held against each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from eyelid import config

ROOT = Path(__file__).resolve().parent.parent
COMPOSE, KUBERNETES = ROOT / "deploy" / "compose", ROOT / "deploy" / "kubernetes"
ENVIRON = {
    "VLLM_API_KEY": "a-key",
    "DB_PASSWORD": "a-password",
    "AUDIT_SECRET": "s" * 32,
    "AUDIT_POSTGRES": "postgresql://eyelid:a-password@postgres:5432/eyelid",
}
Json = dict[str, Any]


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def variables(text: str) -> set[str]:
    """The `${NAME}`s that are read, comments left out."""
    lines = "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    return set(re.findall(r"\$\{(\w+)", lines))


def manifests() -> Iterator[Json]:
    """The manifests as they lie there."""
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name not in ("kustomization.yaml", "eyelid.yaml"):
            yield from yaml.safe_load_all(path.read_text())


def of(kind: str) -> Json:
    (found,) = [m for m in manifests() if m["kind"] == kind]
    return found


# --- configurations ---


@pytest.mark.parametrize("folder", [COMPOSE, KUBERNETES], ids=["compose", "kubernetes"])
def test_the_gateways_configuration_is_accepted_and_lets_nobody_in_as_it_is(folder: Path) -> None:
    text = (folder / "eyelid.yaml").read_text()
    found = config.parse(text, folder=Path("/etc/eyelid"), environ=ENVIRON).serve
    assert set(found.aliases) == {"served", "served-ecso", "served-undefended"}
    assert not found.loopback
    assert [k.sha256 for k in found.keys] == ["0" * 64]
    assert str(found.audit.database).startswith("postgresql://")
    assert str(found.audit.spill_folder).startswith("/var/lib/eyelid/")
    assert variables(text) <= ENVIRON.keys()


def test_every_variable_of_the_compose_files_is_in_the_example_and_none_has_a_password_in_it() -> None:
    example = dict(line.split("=", 1) for line in (COMPOSE / ".env.example").read_text().splitlines() if "=" in line
                   and not line.startswith("#"))  # fmt: skip
    compose = (COMPOSE / "compose.yaml").read_text()
    assert variables(compose) == example.keys()
    assert {k for k, v in example.items() if v} == {"MODEL"}
    asked = variables((COMPOSE / "eyelid.yaml").read_text())
    given = loaded(COMPOSE / "compose.yaml")["services"]["eyelid"]["environment"]
    assert given.keys() == asked
    for name in ("DB_PASSWORD", "AUDIT_SECRET", "VLLM_API_KEY", "GRAFANA_PASSWORD", "MODEL"):
        assert f"${{{name}:?" in compose, f"{name} missing is told, not replaced by nothing"


def test_the_secret_of_the_example_has_what_the_configuration_reads() -> None:
    secret = of("Secret")["stringData"]
    assert secret.keys() == variables((KUBERNETES / "eyelid.yaml").read_text())
    config.parse((KUBERNETES / "eyelid.yaml").read_text(), environ=secret)  # long enough, and addresses are addresses


# --- compose ---


def test_the_compose_file_is_one() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    found = PyCompose.from_yaml(text)
    found.validate()
    assert set(found.service_names()) == {"eyelid", "vllm", "postgres", "prometheus", "grafana"}
    with pytest.raises(Exception, match="stop_grace_perod"):
        PyCompose.from_yaml(text.replace("stop_grace_period", "stop_grace_perod"))


def test_the_compose_file_mounts_files_that_are_there_and_opens_only_the_gateway() -> None:
    compose = loaded(COMPOSE / "compose.yaml")
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            place = volume.split(":")[0]
            if place.startswith("."):
                assert (COMPOSE / place).exists(), f"{name}: {place}"
            else:
                assert place in compose["volumes"], f"{name}: {place}"
        open_to_all = [p for p in service.get("ports", ()) if not p.startswith("127.0.0.1:")]
        assert open_to_all == (["8080:8080"] if name == "eyelid" else []), name
    assert (COMPOSE / compose["services"]["eyelid"]["build"]["context"]).resolve() == ROOT


def test_the_gateway_has_longer_to_stop_than_its_requests_have() -> None:
    compose = loaded(COMPOSE / "compose.yaml")["services"]["eyelid"]
    own = config.parse((COMPOSE / "eyelid.yaml").read_text(), environ=ENVIRON).serve
    assert int(compose["stop_grace_period"].removesuffix("s")) > own.drain_seconds + own.drain_delay_seconds
    pod = of("Deployment")["spec"]["template"]["spec"]
    own = config.parse((KUBERNETES / "eyelid.yaml").read_text(), environ=ENVIRON).serve
    assert pod["terminationGracePeriodSeconds"] > own.drain_seconds + own.drain_delay_seconds
    assert own.drain_delay_seconds > 0, "a pod stays among the endpoints for a moment"


def test_prometheus_and_grafana_find_what_they_read() -> None:
    targets = {t for job in loaded(COMPOSE / "prometheus.yml")["scrape_configs"]
               for s in job["static_configs"] for t in s["targets"]}  # fmt: skip
    assert targets == {"eyelid:8080", "vllm:8000"}
    mounts = loaded(COMPOSE / "compose.yaml")["services"]["grafana"]["volumes"]
    (provider,) = loaded(COMPOSE / "grafana" / "dashboards.yaml")["providers"]
    assert f"../grafana:{provider['options']['path']}:ro" in mounts
    boards = [json.loads(p.read_text()) for p in (ROOT / "deploy" / "grafana").glob("*.json")]
    assert boards
    (source,) = loaded(COMPOSE / "grafana" / "datasource.yaml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"


# --- Kubernetes ---


@pytest.mark.parametrize("manifest", list(manifests()), ids=lambda m: m["kind"])
def test_every_manifest_is_one(manifest: Json) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_the_kustomization_names_every_file() -> None:
    found = loaded(KUBERNETES / "kustomization.yaml")
    there = {p.name for p in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "eyelid.yaml", "secret.example.yaml"}
    assert set(found["resources"]) == there
    assert found["configMapGenerator"] == [{"name": "eyelid", "files": ["eyelid.yaml"]}]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl, which renders the base")
def test_the_base_renders_and_its_selectors_find_its_pods() -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES)]
    rendered = list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for manifest in rendered:
        kubernetes_validate.validate(manifest, "1.33", strict=True)
    by_kind = {m["kind"]: m for m in rendered}
    assert all(m["metadata"].get("namespace") == "eyelid" for m in rendered if m["kind"] != "Namespace")
    pods = by_kind["Deployment"]["spec"]["template"]
    labels = pods["metadata"]["labels"].items()
    for kind, path in {
        "Deployment": ("selector", "matchLabels"),
        "Service": ("selector",),
        "PodDisruptionBudget": ("selector", "matchLabels"),
        "NetworkPolicy": ("podSelector", "matchLabels"),
    }.items():
        found = by_kind[kind]["spec"]
        for name in path:
            found = found[name]
        assert found.items() <= labels, kind
    others = [to["podSelector"] for rule in by_kind["NetworkPolicy"]["spec"]["egress"] for to in rule["to"]]
    assert {"matchLabels": {"k8s-app": "kube-dns"}} in others, "name servers carry none of our labels"
    (volume,) = [v for v in pods["spec"]["volumes"] if "configMap" in v]
    assert volume["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"]
    config.parse(by_kind["ConfigMap"]["data"]["eyelid.yaml"], environ=ENVIRON)


def test_pods_run_without_rights_and_are_probed_where_the_gateway_answers() -> None:
    pod = of("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    own = container["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    paths = {p: container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    assert "replicas" not in of("Deployment")["spec"], "an apply would undo what the autoscaler did"


# --- the image ---


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines]


def test_the_image_runs_as_nobody_in_particular_and_gets_signals_itself() -> None:
    found = instructions()
    last = {name: value for name, value in found if name in ("USER", "ENTRYPOINT", "CMD", "STOPSIGNAL", "HEALTHCHECK")}
    pod = of("Deployment")["spec"]["template"]["spec"]
    assert last["USER"] == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert json.loads(last["ENTRYPOINT"]) == ["eyelid"], "the exec form: a shell would keep SIGTERM to itself"
    assert json.loads(last["CMD"]) == pod["containers"][0]["args"]
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert "/healthz" in last["HEALTHCHECK"]


def test_the_image_is_made_of_files_that_are_there_and_of_no_others() -> None:
    copied = {p for name, value in instructions() if name == "COPY" and "--from" not in value
              for p in value.split()[:-1]}  # fmt: skip
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert all((ROOT / p).exists() for p in copied)
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
