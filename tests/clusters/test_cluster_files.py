"""Cluster files pass the checks that Ray and Kubernetes make before a launch, and ours; broken copies do not.

No cloud is called: `ray up` prepares and validates its file offline before its first call, and the KubeRay operator's
schemas are read from NEUROLM_KUBERAY_CRDS (default ../shared/schemas/kuberay-crds).
"""

import copy
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "clusters"
RAY_VERSION = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
CRDS = Path(os.environ.get("NEUROLM_KUBERAY_CRDS", ROOT / "../shared/schemas/kuberay-crds")).resolve()

LAUNCHER_FILES = sorted(path.name for path in CLUSTERS.glob("*.yaml"))
RAY_KINDS = ("RayJob", "RayCluster", "RayService", "RayCronJob")
PROVIDER_KEYS = {
    "local": {"type", "head_ip", "worker_ips", "external_head_ip"},
    "aws": {"type", "region", "availability_zone", "use_internal_ips", "cache_stopped_nodes", "security_group"},
}


# Rules for `ray up` files


def launcher_problems(text: str) -> list[str]:
    """What is wrong with a `ray up` file."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load(text)
    try:
        validate_config(prepare_config(copy.deepcopy(cluster)))
    except Exception as error:  # Ray raises jsonschema's, its own and plain errors here
        return [f"ray up refuses it: {str(error).splitlines()[0]}"]
    return [problem for rule in LAUNCHER_RULES for problem in rule(cluster, text)]


def provider_keys(cluster: dict[str, Any], text: str) -> Iterator[str]:
    provider = cluster["provider"]
    for key in sorted(set(provider) - PROVIDER_KEYS.get(provider["type"], set())):
        yield f"provider.{key} is no key of {provider['type']}; Ray would ignore it"
    if provider.get("cache_stopped_nodes", provider["type"] == "aws"):
        yield "cache_stopped_nodes: stopped nodes keep costing"


def nothing_is_open(cluster: dict[str, Any], text: str) -> Iterator[str]:
    if "0.0.0.0" in text or "[::]" in text:
        yield "something is bound to every interface"
    head = cluster["head_start_ray_commands"][-1]
    if "ray start --head" not in head or "--dashboard-host=127.0.0.1" not in head:
        yield "the head's dashboard is not bound to 127.0.0.1"


def token_is_wired(cluster: dict[str, Any], text: str) -> Iterator[str]:
    options = " ".join(cluster.get("docker", {}).get("run_options", []))
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        command = next((line for line in cluster[name] if "ray start" in line), "")
        if "RAY_AUTH_MODE=token" not in (options if cluster.get("docker") else command):
            yield f"{name}: Ray starts without RAY_AUTH_MODE=token"
    if cluster.get("docker"):
        path = re.search(r"RAY_AUTH_TOKEN_PATH=(\S+)", options)
        if path is None or f"-v {Path(path[1]).parent}:" not in options:
            yield "the token's folder does not reach the container"
        elif path[1] not in " ".join(cluster.get("initialization_commands", [])):
            yield f"no initialization command writes {path[1]}"
    elif "~/.ray/auth_token" not in cluster.get("file_mounts", {}):
        yield "the token is not copied to the nodes"


def nothing_is_installed(cluster: dict[str, Any], text: str) -> Iterator[str]:
    for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        if cluster.get(name) != []:
            yield f"{name} must be written out and empty: Ray's default installs a development build"
    if re.search(r"dev0|nightly|:latest|ray-wheels|pip install", text):
        yield "something is not pinned"


def images_are_pinned(cluster: dict[str, Any], text: str) -> Iterator[str]:
    for image in re.findall(r"image: (\S+)", text):
        if not re.search(rf":[^:/]*ray{re.escape(RAY_VERSION)}\b", image):
            yield f"{image} does not name Ray {RAY_VERSION} of constraints.txt"
    if cluster["provider"]["type"] != "local" and not cluster.get("docker", {}).get("image"):
        yield "no image"


def head_does_not_work(cluster: dict[str, Any], text: str) -> Iterator[str]:
    if cluster["provider"]["type"] == "local":
        if cluster["provider"]["worker_ips"] and "--num-cpus=0" not in cluster["head_start_ray_commands"][-1]:
            yield "head CPU: a cluster of several machines needs --num-cpus=0 on the head"
    elif cluster["available_node_types"][cluster["head_node_type"]]["resources"].get("CPU") != 0:
        yield "head CPU must be 0: work there endangers the job"


def aws_nodes_are_closed(cluster: dict[str, Any], text: str) -> Iterator[str]:
    if cluster["provider"]["type"] != "aws":
        return
    if not cluster["provider"].get("use_internal_ips"):
        yield "nodes would have public addresses"
    for name, kind in cluster["available_node_types"].items():
        node = kind["node_config"]
        if not node.get("SecurityGroupIds"):
            yield f"{name}: without SecurityGroupIds Ray opens SSH to the world"
        if not node.get("IamInstanceProfile"):
            yield f"{name}: without IamInstanceProfile Ray gives the nodes full EC2 and S3 access"
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: MetadataOptions.HttpTokens must be required"
        if not all(disk["Ebs"].get("Encrypted") for disk in node.get("BlockDeviceMappings", [{"Ebs": {}}])):
            yield f"{name}: disks must be encrypted"


def spot_falls_back(cluster: dict[str, Any], text: str) -> Iterator[str]:
    kinds = cluster.get("available_node_types", {})
    if not kinds:
        return
    gpu = {name: kind for name, kind in kinds.items() if kind["resources"].get("GPU")}
    is_spot = {name: "InstanceMarketOptions" in kind["node_config"] for name, kind in gpu.items()}
    spot = [gpu[name] for name in gpu if is_spot[name]]
    firm = [gpu[name] for name in gpu if not is_spot[name]]
    if not spot or not firm:
        yield "GPU nodes: spot with an on-demand fallback expected"
        return
    if min(kind.get("priority", 0) for kind in spot) <= max(kind.get("priority", 0) for kind in firm):
        yield "spot must have the higher priority"
    if any(kind["resources"] != firm[0]["resources"] for kind in [*spot, *firm]):
        yield "spot and on-demand resources differ, so one cannot stand in for the other"
    for name, kind in kinds.items():
        named = kind.get("labels", {}).get("ray.io/market-type")
        if named and (named == "spot") != ("InstanceMarketOptions" in kind["node_config"]):
            yield f"{name}: label ray.io/market-type says {named}"


LAUNCHER_RULES: tuple[Callable[[dict[str, Any], str], Iterator[str]], ...] = (
    provider_keys,
    nothing_is_open,
    token_is_wired,
    nothing_is_installed,
    images_are_pinned,
    head_does_not_work,
    aws_nodes_are_closed,
    spot_falls_back,
)


# Rules for KubeRay manifests


def strict(schema: Any) -> Any:
    """The schema with unknown keys refused: Kubernetes drops them silently."""
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    if (
        schema.get("type") == "object"
        and "properties" in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        schema["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if name in schema:
            schema[name] = strict(schema[name])
    return schema


@pytest.fixture(scope="module")
def schemas() -> dict[tuple[str, str], Any]:
    """Strict schemas by apiVersion and kind."""
    if not CRDS.is_dir():
        pytest.skip(f"NEUROLM_KUBERAY_CRDS={CRDS} is not there: no KubeRay schemas to check against")
    found = {}
    for path in CRDS.glob("*.yaml"):
        spec = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def manifest_problems(text: str, schemas: dict[tuple[str, str], Any]) -> list[str]:
    """What is wrong with a KubeRay manifest."""
    import jsonschema

    problems = ["something is bound to every interface"] if "0.0.0.0" in text else []
    for document in yaml.safe_load_all(text):
        key = (document["apiVersion"], document["kind"])
        if key not in schemas:
            return [*problems, f"{key}: no such kind"]
        errors = jsonschema.Draft202012Validator(schemas[key]).iter_errors(document)
        broken = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
        problems += broken or list(rayjob_rules(document["spec"]))
    return problems


def rayjob_rules(spec: dict[str, Any]) -> Iterator[str]:
    """What the operator refuses or does wrong although the schema allows it."""
    cluster = spec["rayClusterSpec"]
    if spec.get("submissionMode") not in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"):
        yield f"submissionMode: {spec.get('submissionMode')} is not known"
    if not spec.get("shutdownAfterJobFinishes"):
        yield "the cluster would stay after the job"
    if cluster.get("rayVersion") != RAY_VERSION:
        yield f"rayVersion: {cluster.get('rayVersion')}, constraints.txt has {RAY_VERSION}"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode must be token"
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield "head CPU must be 0"
    if cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "autoscalerOptions.version: priorities need v2"
    groups = cluster["workerGroupSpecs"]
    for group in [cluster["headGroupSpec"], *groups]:
        pod = group["template"]["spec"]
        name = group.get("groupName", "head")
        if pod.get("restartPolicy") != "Never":
            yield f"{name}: autoscaler v2 needs restartPolicy Never"
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            yield f"{name}: minReplicas above maxReplicas"
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            if not re.search(rf":[^:/]*ray{re.escape(RAY_VERSION)}\b", container["image"]):
                yield f"{name}: {container['image']} does not name Ray {RAY_VERSION}"
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{name}: no volume {mount['name']}"
            if container.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
                yield f"{name}: allowPrivilegeEscalation must be false"
    priority = {
        group["labels"].get("ray.io/market-type"): group.get("priority", 0) for group in groups if "labels" in group
    }
    if priority.get("spot", 0) <= priority.get("on-demand", 0):
        yield "spot must have the higher priority"


# The files themselves


def read(name: str) -> str:
    return (CLUSTERS / name).read_text()


def test_the_places_are_covered() -> None:
    assert LAUNCHER_FILES == ["aws-a100.yaml", "local.yaml"]
    readme = read("README.md")
    files = [path.relative_to(CLUSTERS).as_posix() for path in CLUSTERS.rglob("*") if path.suffix == ".yaml"]
    assert [name for name in files if name not in readme] == []


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_launcher_files_are_sound(name: str) -> None:
    assert launcher_problems(read(name)) == []


def test_manifests_are_sound(schemas: dict[tuple[str, str], Any]) -> None:
    assert manifest_problems(read("kuberay/rayjob.yaml"), schemas) == []


def test_the_jobs_of_the_manifest_exist() -> None:
    job = yaml.safe_load(read("kuberay/rayjob.yaml"))
    for path in re.findall(r"/opt/neurolm/(\S+)", job["spec"]["entrypoint"]):
        assert (ROOT / path).is_file(), path
    assert "WORKDIR /opt/neurolm" in read("Dockerfile")


def test_only_the_namespace_and_the_operator_reach_ray() -> None:
    policy = yaml.safe_load(read("kuberay/network-policy.yaml"))
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert set(policy["spec"]) == {"podSelector", "policyTypes", "ingress"} and policy["spec"]["policyTypes"] == [
        "Ingress"
    ]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    (rule,) = policy["spec"]["ingress"]
    own, operator = rule["from"]
    assert own == {"podSelector": {}} and operator["namespaceSelector"]["matchLabels"]


def dockerfile_problems(text: str) -> list[str]:
    problems = []
    if f"ARG RAY_VERSION={RAY_VERSION}\n" not in text or "FROM rayproject/ray:${RAY_VERSION}-py311-" not in text:
        problems.append(f"the image is not built on Ray {RAY_VERSION}")
    if "--constraint constraints.txt" not in text or re.search("nightly|latest|dev0", text):
        problems.append("something is not pinned")
    if "RAY_AUTH_MODE=token" not in text:
        problems.append("the image starts Ray without a token")
    return problems


def test_the_image_is_pinned_to_the_tested_versions() -> None:
    text = read("Dockerfile")
    assert dockerfile_problems(text) == []
    for old, new in (("2.60.0\n", "2.59.0\n"), ("--constraint constraints.txt ", ""), ("RAY_AUTH_MODE=token", "A=b")):
        assert old in text and len(dockerfile_problems(text.replace(old, new, 1))) == 1
    copied = re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE)
    kept = {line[1:] for line in read("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    assert {name for line in copied for name in line.split()} == kept


# Broken copies: every rule finds what it is for


@pytest.mark.parametrize(
    ("name", "old", "new", "finding"),
    [
        ("aws-a100.yaml", "idle_timeout_s: 180", "idle_timeout: 180", "ray up refuses"),
        ("aws-a100.yaml", "{CPU: 32}", "{CPU: 0.5}", "ray up refuses"),
        ("aws-a100.yaml", "head_node_type: head", "head_node_type: haed", "ray up refuses"),
        ("aws-a100.yaml", "  region:", "  regionn: x\n  region:", "provider.regionn"),
        ("aws-a100.yaml", "cache_stopped_nodes: false", "cache_stopped_nodes: true", "keep costing"),
        ("aws-a100.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "every interface"),
        ("aws-a100.yaml", "--dashboard-host=127.0.0.1 ", "", "dashboard"),
        ("aws-a100.yaml", "    - --env RAY_AUTH_MODE=token\n", "", "without RAY_AUTH_MODE=token"),
        ("aws-a100.yaml", "    - -v /run/neurolm:/run/neurolm:ro\n", "", "does not reach the container"),
        ("aws-a100.yaml", "/dev/stdin /run/neurolm/auth_token", "/dev/stdin /run/neurolm/token", "no initialization"),
        ("aws-a100.yaml", "\nsetup_commands: []", "", "setup_commands must be written out"),
        ("aws-a100.yaml", "head_setup_commands: []", "head_setup_commands: [pip install ray]", "not pinned"),
        ("aws-a100.yaml", "ray2.60.0-gpu", "latest", "does not name Ray"),
        ("aws-a100.yaml", "0.1.0-ray2.60.0-cpu", "0.1.0-ray2.59.0-cpu", "does not name Ray"),
        ("aws-a100.yaml", "resources: {CPU: 0}", "resources: {CPU: 8}", "head CPU"),
        ("aws-a100.yaml", "use_internal_ips: true", "use_internal_ips: false", "public addresses"),
        ("aws-a100.yaml", "      SecurityGroupIds: [sg-REPLACE]\n", "", "SSH to the world"),
        ("aws-a100.yaml", "HttpTokens: required", "HttpTokens: optional", "HttpTokens"),
        ("aws-a100.yaml", "Encrypted: true", "Encrypted: false", "encrypted"),
        ("aws-a100.yaml", "priority: 10 ", "priority: 0 ", "higher priority"),
        ("aws-a100.yaml", "{CPU: 96, GPU: 8}", "{CPU: 96, GPU: 4}", "stand in"),
        ("aws-a100.yaml", "ray.io/market-type: on-demand", "ray.io/market-type: spot", "label"),
        ("local.yaml", "RAY_AUTH_MODE=token RAY_JOB", "RAY_JOB", "head_start_ray_commands: Ray starts without"),
        ("local.yaml", "RAY_AUTH_MODE=token; ulimit", "A=b; ulimit", "worker_start_ray_commands: Ray starts without"),
        ("local.yaml", "worker_ips: []", "worker_ips: [10.0.0.2]", "head CPU"),
        ("local.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token", "  ~/a: ~/a", "token is not copied"),
        ("local.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "every interface"),
        ("local.yaml", "cluster_name:", "clustername: a\ncluster_name:", "ray up refuses"),
    ],
)  # fmt: skip
def test_a_broken_launcher_file_is_found(name: str, old: str, new: str, finding: str) -> None:
    text = read(name)
    assert old in text
    problems = launcher_problems(text.replace(old, new, 1))
    assert any(finding in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("maxReplicas: 8", "maxReplica: 8", "maxReplica"),
        ("idleTimeoutSeconds: 300", "idleTimeoutSeconds: soon", "idleTimeoutSeconds"),
        ("mountPath: /shared", "mountpath: /shared", "mountpath"),
        ("kind: RayJob", "kind: RayJobs", "no such kind"),
        ("submissionMode: K8sJobMode", "submissionMode: k8s", "submissionMode"),
        ("shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "would stay"),
        ('rayVersion: "2.60.0"', 'rayVersion: "2.59.0"', "rayVersion"),
        ("    authOptions:\n      mode: token\n", "", "authOptions"),
        ('num-cpus: "0"', 'num-cpus: "4"', "head CPU"),
        ("ray2.60.0-gpu", "latest", "does not name Ray"),
        ("restartPolicy: Never", "restartPolicy: Always", "restartPolicy"),
        ("minReplicas: 0", "minReplicas: 9", "minReplicas above"),
        ("{name: memory, emptyDir", "{name: other, emptyDir", "no volume memory"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"),
        ("priority: 10", "priority: 0", "higher priority"),
        ("version: v2", "version: v1", "need v2"),
        ('value: "90"', 'value: "0.0.0.0"', "every interface"),
    ],
)  # fmt: skip
def test_a_broken_manifest_is_found(old: str, new: str, finding: str, schemas: dict[tuple[str, str], Any]) -> None:
    text = read("kuberay/rayjob.yaml")
    assert old in text
    problems = manifest_problems(text.replace(old, new, 1), schemas)
    assert any(finding in problem for problem in problems), problems
