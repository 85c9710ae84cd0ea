"""What container engines and clusters take: linted, and held against the schemas that the registries offer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

ROOT = Path(__file__).resolve().parents[1]
INFRA = ROOT / "infra"
KUBE = sorted((INFRA / "kuberay").glob("*.yaml"))
# Fields of KubeRay 1.6, by hand: no registry has its schema. Pod templates are held against Kubernetes' own.
CLUSTER = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
JOB = {
    "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit",
    "submissionMode", "rayClusterSpec",
}  # fmt: skip


def program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    if found := (str(beside) if beside.exists() else shutil.which(name)):
        return found
    pytest.skip(f"no {name}: it is in the dev group")


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([program("hadolint"), INFRA / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def stages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (INFRA / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if line.startswith("FROM "):
            found[line.split()[-1]] = [line]
        elif found and line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def test_both_images_run_as_nobody_and_hold_what_is_locked() -> None:
    found = stages()
    assert list(found)[-1] == "cpu"  # what `docker build` makes when it is told no target
    for name in ("cpu", "gpu"):
        assert found[name][0] == f"FROM runtime AS {name}"
        assert not any(line.startswith(("RUN", "USER")) for line in found[name])
    assert [line for line in found["runtime"] if line.startswith("USER")] == ["USER 10001:10001"]
    for name, lock in (("build-cpu", "run.txt"), ("build-gpu", "gpu.txt")):
        installs = [line for line in found[name] if "uv pip" in line]
        assert len(installs) == 2 and f"--require-hashes {lock}" in installs[0] and "--no-deps" in installs[1]


def test_the_build_context_has_all_that_the_dockerfile_copies_and_no_data() -> None:
    allowed = {
        line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        word
        for lines in stages().values()
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied and all((ROOT / one).exists() for one in copied | allowed)
    assert all(any(one == to or one.startswith(f"{to}/") for to in allowed) for one in copied)


def test_the_light_lock_has_what_runs_and_no_torch() -> None:
    texts = {name: (INFRA / "locks" / name).read_text() for name in ("run.txt", "gpu.txt", "core.txt")}
    names = {name: set(re.findall(r"^([\w.-]+)==", text, re.M)) for name, text in texts.items()}
    assert {"prefect", "ray", "s3fs", "setuptools"} <= names["run.txt"] >= names["core.txt"]
    assert not {one for one in names["run.txt"] if one.startswith(("torch", "nvidia")) and one != "tensorboardx"}
    assert {"torch", "timm"} <= names["gpu.txt"] >= names["run.txt"]
    assert not {"pytest", "mypy", "moto"} & names["gpu.txt"]


def test_compose_keeps_the_schema() -> None:
    words = [program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", INFRA / "compose.yaml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_publishes_on_loopback_and_asks_for_every_secret() -> None:
    text = (INFRA / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) == 2 and all(port.startswith("127.0.0.1:") for port in published)
    secret = re.compile(r"^\s*\w*(?:PASSWORD|SECRET|TOKEN|AUTH_STRING|PROJECT_KEY)\w*: (.*)$", re.M)
    given = [value for value in secret.findall(text) if not value.startswith("*")]
    assert given and all(":?" in value for value in given), given
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            assert other in services, f"{name} waits for {other}"
        if service["image"].startswith(("${COVSEG", "${PREFECT")):
            assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]


def test_compose_gives_prefect_settings_that_it_has() -> None:
    from prefect.settings import Settings

    text = (INFRA / "compose.yaml").read_text()
    known = {
        str(alias).upper()
        for model in walk_settings(Settings)
        for name, field in model.model_fields.items()
        for alias in [f"{model.model_config.get('env_prefix', '')}{name}", *aliases(field)]
    }
    named = set(re.findall(r"^\s*(PREFECT_(?!REDIS)\w+):", text, re.M))
    assert "PREFECT_SERVER_DATABASE_PASSWORD" in named and named <= known, named - known


def walk_settings(model: Any) -> Iterator[Any]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from walk_settings(field.annotation)


def aliases(field: Any) -> list[str]:
    choices = getattr(field.validation_alias, "choices", ())
    return [one for one in choices if isinstance(one, str)]


def kubernetes_faults(value: dict[str, Any], kind: str) -> list[tuple[Any, str]]:
    """Return where a value is not of a type of Kubernetes' own client, and what is wrong there."""
    client = pytest.importorskip("kubernetes.client", reason="the dev group is not installed")
    try:
        getattr(client, kind).model_validate(value)
    except ValidationError as error:
        return [(fault["loc"][-1], fault["type"]) for fault in error.errors()]
    return []


def test_the_check_of_fields_finds_what_is_wrong() -> None:
    container = {"name": "a", "imagee": "b", "ports": [{"containerPort": "80"}], "env": [{"value": "c"}]}
    assert sorted(kubernetes_faults({"spec": {"containers": [container]}}, "V1PodTemplateSpec")) == [
        ("containerPort", "int_type"), ("imagee", "extra_forbidden"), ("name", "missing"),
    ]  # fmt: skip


def pod_templates() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in KUBE:
        for document in documents(path):
            spec = document.get("spec", {})
            cluster = spec.get("rayClusterSpec", spec)
            for group in [cluster.get("headGroupSpec"), *cluster.get("workerGroupSpecs", ())]:
                if group:
                    yield f"{path.name} {group.get('groupName', 'head')}", group["template"]
    yield "prefect-worker-values.yaml job", job_template()["job_configuration"]["job_manifest"]["spec"]["template"]


def job_template() -> dict[str, Any]:
    values = documents(INFRA / "kuberay" / "prefect-worker-values.yaml")[0]
    return json.loads(values["worker"]["config"]["baseJobTemplate"]["configuration"])


@pytest.mark.parametrize(
    ("name", "template"), list(pod_templates()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_a_pod_has_the_fields_of_kubernetes_and_no_rights(name: str, template: dict[str, Any]) -> None:
    filled = json.loads(re.sub(r'"\{\{ (command|env) \}\}"', "[]", json.dumps(template)))
    assert kubernetes_faults(filled, "V1PodTemplateSpec") == []
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] == 10001
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"requests", "limits"} == set(container["resources"])
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "covseg"  # what the network policy lets speak


def test_the_network_policies_are_such() -> None:
    policies = documents(INFRA / "kuberay" / "networkpolicy.yaml")
    assert [fault for one in policies for fault in kubernetes_faults(one, "V1NetworkPolicy")] == []
    nothing = policies[0]["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_clusters_have_fields_of_kuberay_and_the_ray_that_is_locked() -> None:
    locked = re.search(r"^ray==(\S+)", (INFRA / "locks" / "run.txt").read_text(), re.M)
    cluster, job = (documents(INFRA / "kuberay" / f"{name}.yaml")[0] for name in ("raycluster", "rayjob"))
    assert set(job["spec"]) == JOB
    for spec in (cluster["spec"], job["spec"]["rayClusterSpec"]):
        assert set(spec) <= CLUSTER and locked and spec["rayVersion"] == locked[1]
        assert spec["authOptions"] == {"mode": "token"}
        assert all(set(group) == GROUP and group["minReplicas"] >= 1 for group in spec["workerGroupSpecs"])
        assert all(isinstance(value, str) for value in spec["headGroupSpec"]["rayStartParams"].values())


def test_the_jobs_of_the_prefect_worker_use_every_variable() -> None:
    import shlex

    template = job_template()
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    command = shlex.split(template["variables"]["properties"]["command"]["default"])
    assert command[:2] == ["sh", "-c"] and command[2].endswith("exec prefect flow-run execute")


def test_the_bucket_policy_allows_what_the_store_does_and_no_more() -> None:
    policy = json.loads((INFRA / "bucket-policy.json").read_text())
    allowed = {action for one in policy["Statement"] if one["Effect"] == "Allow" for action in one["Action"]}
    calls = set(re.findall(r"\bs3\.([a-z_0-9]+)\(", (ROOT / "covseg" / "storage" / "s3.py").read_text()))
    needed = {
        "list_objects_v2": "ListBucket", "get_object": "GetObject", "head_object": "GetObject",
        "put_object": "PutObject", "delete_object": "DeleteObject", "abort_multipart_upload": "AbortMultipartUpload",
        "list_multipart_uploads": "ListBucketMultipartUploads",
    }  # fmt: skip
    assert calls <= set(needed), calls - set(needed)
    assert allowed == {f"s3:{action}" for action in needed.values()}
    writing = [one for one in policy["Statement"] if one["Effect"] == "Allow" and "s3:PutObject" in one["Action"]]
    assert [one["Resource"] for one in writing] == [["arn:aws:s3:::scored/covseg/*"]]


def test_no_file_names_a_registry_or_a_latest_tag() -> None:
    for path in (INFRA / "Dockerfile", INFRA / "compose.yaml", *KUBE):
        images = re.findall(r"(?:image: |FROM |:-)([\w./-]+:[\w.-]+)", path.read_text())
        assert not [one for one in images if "." in one.split("/")[0].split(":")[0] or one.endswith(":latest")], path
