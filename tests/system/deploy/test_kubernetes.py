"""The manifests of deploy/ are built, held against schemas, and against the service they deploy."""

import ast
import copy
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.entrance.services import Host
from service.http.app import App, create_app
from service.metrics.instruments import QUEUE_ROWS
from service.process.signals import GRACE_S
from service.settings import PREFIX, Settings
from service.settings.split import Split
from tests.support.toys import save_toy

pytestmark = pytest.mark.deploy

Document = dict[str, Any]

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy/kubernetes"
KSERVE = ROOT / "deploy/kserve/inferenceservice.yaml"
KUBECTL = os.environ.get("KUBECTL", "kubectl")
KUBERNETES_VALIDATE = os.environ.get("KUBERNETES_VALIDATE", "kubernetes-validate")
OLDEST, NEWEST = "1.30.0", "1.37.0"  # the first with preStop's `sleep` on, the newest schemas
KINDS = {
    *("ServiceAccount", "Deployment", "Service", "PodDisruptionBudget"),
    *("HorizontalPodAutoscaler", "NetworkPolicy"),
}
DEFAULT_GRACE_S = 30  # a pod's, where nothing else is said
QUANTITIES = {"m": 1e-3, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

# The operator's types ignore what they do not know: it is missing from what they give back.
ROUND_TRIP = """
import json, sys
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
for line in sys.stdin:
    read = ServiceMonitor.model_validate(json.loads(line))
    print(json.dumps(read.model_dump(mode="json", by_alias=True, exclude_unset=True)))
"""


def run(*command: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@cache
def _built() -> subprocess.CompletedProcess[str]:
    return run(KUBECTL, "kustomize", KUBERNETES)


def built() -> dict[str, Document]:
    """Return the documents of the kustomization, by kind."""
    documents = list(yaml.safe_load_all(_built().stdout))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


def service_monitor() -> Document:
    return yaml.safe_load((KUBERNETES / "servicemonitor.yaml").read_text())


def inference_service(*, of_a_volume: bool = False) -> Document:
    text = KSERVE.read_text()
    if of_a_volume:
        text = with_variant(text, "- name: STORAGE_URI")
    return yaml.safe_load(text)


def comment(text: str, first: str) -> str:
    """Return the commented-out YAML that begins with `first`, as far as comments continue it."""
    found = re.search(rf"^( *)# {re.escape(first)}\n(?:\1# (?: |- ).*\n)*", text, re.M)
    assert found is not None, first
    return found[0]


def uncommented(text: str) -> str:
    return re.sub(r"^( *)# ", r"\1", text, flags=re.M)


def with_variant(text: str, first: str) -> str:
    """Return a file with that YAML in force."""
    said = comment(text, first)
    return text.replace(said, uncommented(said))


def pod_template() -> Document:
    return built()["Deployment"]["spec"]["template"]


def containers(pod: Document) -> list[Document]:
    return pod["containers"] + pod.get("initContainers", [])


def pods() -> dict[str, Document]:
    """Return the pod specs of all manifests."""
    return {
        "deployment": pod_template()["spec"],
        "kserve": inference_service()["spec"]["predictor"],
        "kserve with a volume": inference_service(of_a_volume=True)["spec"]["predictor"],
    }


@pytest.fixture(params=["deployment", "kserve", "kserve with a volume"])
def pod(request: pytest.FixtureRequest) -> Document:
    return pods()[request.param]


def settings_of(pod: Document) -> Settings:
    (container,) = containers(pod)
    return Settings.from_env({each["name"]: each["value"] for each in container["env"]})


def matches(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a selector of `matchLabels` only, and not an empty one, takes these labels."""
    assert set(selector) == {"matchLabels"}
    assert selector["matchLabels"]
    return selector["matchLabels"].items() <= labels.items()


def quantity(text: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(\D*)", text).groups()  # type: ignore[union-attr]
    return float(number) * QUANTITIES[unit]


def last_answer_s(settings: Settings) -> float:
    """How long after SIGTERM a worker may still answer what it accepted (service/worker.py)."""
    longest = int(max(settings.request_timeout_s, settings.receive_timeout_s))
    return settings.drain_s + GRACE_S + longest


# Schemas


def validate(folder: Path, version: str, *documents: Document) -> str:
    """Return what kubernetes-validate finds wrong; it must have looked at every document."""
    path = folder / "documents.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    done = run(KUBERNETES_VALIDATE, "-k", version, "--strict", path)
    said = done.stdout + done.stderr
    errors = re.findall(r"^ERROR .*", said, re.M)
    assert len(re.findall("^INFO .* passed", said, re.M)) + len(errors) == len(documents), said
    assert bool(errors) == bool(done.returncode), said
    return "\n".join(errors)


def of_validate() -> Path:
    """Return the Python of kubernetes-validate: requirements.txt is installed beside it."""
    program = shutil.which(KUBERNETES_VALIDATE)
    assert program is not None, f"KUBERNETES_VALIDATE: no program {KUBERNETES_VALIDATE}"
    return Path(program).with_name("python")


def with_queue_depth() -> Document:
    text = (KUBERNETES / "hpa.yaml").read_text()
    return yaml.safe_load(with_variant(text, "- type: Pods"))


def split_map() -> Document:
    return yaml.safe_load((KUBERNETES / "split.yaml").read_text())


def with_split() -> Document:
    """Return the deployment with what split.yaml says that it needs."""
    said = re.findall(r"^#   (.*)$", (KUBERNETES / "split.yaml").read_text(), re.M)
    needed = yaml.safe_load("\n".join(said))
    deployment = copy.deepcopy(yaml.safe_load((KUBERNETES / "deployment.yaml").read_text()))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = containers(pod)
    container["env"] += needed["env"]
    container["volumeMounts"], pod["volumes"] = needed["volumeMounts"], needed["volumes"]
    return deployment


def as_pod(document: Document) -> Document:
    """Return the pod inside an InferenceService, as a Pod."""
    fields = types_of_kserve("custom_predictor")
    predictor = document["spec"]["predictor"]
    spec = {name: value for name, value in predictor.items() if name in fields}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": document["metadata"], "spec": spec}


def types_of_kserve(model: str) -> dict[str, str]:
    """Return the types of the fields of one of KServe's models, read without importing it."""
    packages = of_validate().parents[1].glob("lib/*/site-packages")
    (path,) = [each / f"kserve/models/v1beta1_{model}.py" for each in packages]
    literals = {
        target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names = literals["attribute_map"]
    return {names[field]: kind for field, kind in literals["openapi_types"].items()}


def unknown_to_kserve(document: Document) -> Iterator[str]:
    """Yield what KServe's types refuse in an InferenceService, apart from its pod."""
    numbers = {"int": int, "str": str, "bool": bool}
    spec = document["spec"]
    levels = [
        ("inference_service", document),
        ("inference_service_spec", spec),
        ("predictor_spec", spec["predictor"]),
    ]
    for model, values in levels:
        types = types_of_kserve(model)
        for name, value in values.items():
            if name not in types:
                yield f"{name}: no such field"
            elif types[name] in numbers and type(value) is not numbers[types[name]]:
                yield f"{name}: expected {types[name]}, got {value!r}"


def round_trip(*documents: Document) -> list[Document]:
    """Return what is left of ServiceMonitors after the operator's types have read them."""
    lines = "\n".join(json.dumps(document) for document in documents)
    done = run(of_validate(), "-c", ROUND_TRIP, stdin=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def changed(document: Document, change: Callable[[Document], object]) -> Document:
    copied = copy.deepcopy(document)
    change(copied)
    return copied


def test_kustomization_builds_without_warnings() -> None:
    assert (_built().returncode, _built().stderr) == (0, "")
    assert set(built()) == KINDS


def test_every_manifest_is_in_the_kustomization_or_said_to_be_left_out() -> None:
    listed = (KUBERNETES / "kustomization.yaml").read_text()
    named = set(re.findall(r"^  (?:# )?- (\S+\.yaml)$", listed, re.M))
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert named == files


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_documents_are_valid(tmp_path: Path, version: str) -> None:
    documents = [
        *built().values(),
        with_queue_depth(),
        split_map(),
        with_split(),
        as_pod(inference_service()),
        as_pod(inference_service(of_a_volume=True)),
    ]
    assert validate(tmp_path, version, *documents) == ""


def test_misspelt_fields_are_refused(tmp_path: Path) -> None:
    def misspell(pod: Document) -> None:
        context = containers(pod)[0]["securityContext"]
        context["readOnlyRootFilesytem"] = context.pop("readOnlyRootFilesystem")

    deployment = changed(built()["Deployment"], lambda it: misspell(it["spec"]["template"]["spec"]))
    predictor = changed(inference_service(), lambda it: misspell(it["spec"]["predictor"]))
    errors = validate(tmp_path, OLDEST, deployment, as_pod(predictor))
    assert errors.count("'readOnlyRootFilesytem' was unexpected") == 2


def test_service_monitor_is_valid() -> None:
    monitor = service_monitor()
    misspelt = changed(monitor, lambda it: it["spec"]["endpoints"][0].update(intervall="15s"))
    assert round_trip(monitor, misspelt) == [monitor, monitor]


def test_inference_service_is_valid() -> None:
    document = inference_service()
    assert list(unknown_to_kserve(document)) == []
    misspelt = changed(document, lambda it: it["spec"]["predictor"].update(minReplica=1))
    assert list(unknown_to_kserve(misspelt)) == ["minReplica: no such field"]
    quoted = changed(document, lambda it: it["spec"]["predictor"].update(minReplicas="1"))
    assert list(unknown_to_kserve(quoted)) == ["minReplicas: expected int, got '1'"]


# The service they deploy


def asked(app: App) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://pod")


def test_variables_are_settings(pod: Document) -> None:
    settings = settings_of(pod)
    assert settings.drain_s > 0
    (container,) = containers(pod)
    names = [each["name"] for each in container["env"]]
    assert sum(name.startswith(PREFIX) for name in names) >= 3
    assert len(names) == len(set(names))


def test_the_weights_of_the_config_map_are_where_the_setting_says() -> None:
    pod = with_split()["spec"]["template"]["spec"]
    path = settings_of(pod).split_file
    assert path is not None
    ((mount,), (volume,)) = containers(pod)[0]["volumeMounts"], pod["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], str(path.parent))
    assert "subPath" not in mount
    assert volume["configMap"]["name"] == split_map()["metadata"]["name"]
    assert Split(split_map()["data"][path.name]).names


def test_image_is_of_this_version(pod: Document) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert [each["image"] for each in containers(pod)] == [f"torchlit:{version}"]


def test_the_port_is_the_image_s(pod: Document) -> None:
    (port,) = re.findall(r"\bPORT=(\d+)", (ROOT / "Dockerfile").read_text())
    assert [each["containerPort"] for each in containers(pod)[0]["ports"]] == [int(port)]


@pytest.mark.anyio
async def test_probes_ask_what_they_mean(pod: Document, tmp_path: Path) -> None:
    """Draining, or with a model that failed, a pod is live and not ready: it must not restart."""
    save_toy(tmp_path)
    host = Host()
    app = create_app(Settings(models_dir=tmp_path), host=host)
    (container,) = containers(pod)
    (port,) = container["ports"]
    probes = {name: probe["httpGet"] for name, probe in container.items() if "Probe" in name}
    assert set(probes) >= {"livenessProbe", "readinessProbe"}
    assert {probe["port"] for probe in probes.values()} <= {port["containerPort"], port.get("name")}

    async with app.lifespan(), asked(app) as client:
        serving = {name: await client.get(probe["path"]) for name, probe in probes.items()}
        host.is_draining = True
        draining = {name: await client.get(probe["path"]) for name, probe in probes.items()}
    assert {reply.status_code for reply in serving.values()} == {200}
    assert {name for name, reply in draining.items() if reply.status_code == 503} == {
        "readinessProbe"
    }


@pytest.mark.anyio
async def test_prometheus_is_told_the_path_of_metrics(tmp_path: Path) -> None:
    monitor = service_monitor()["spec"]["endpoints"]
    annotations = inference_service()["metadata"]["annotations"]
    paths = {each["path"] for each in monitor}
    paths |= {text for name, text in annotations.items() if name.endswith("/path")}
    async with asked(create_app(Settings(models_dir=tmp_path))) as client:
        (reply,) = [await client.get(path) for path in paths]
    assert reply.status_code == 200
    assert QUEUE_ROWS.name in reply.text


def test_kserve_speaks_v2_and_scrapes_the_port() -> None:
    document = inference_service()
    (container,) = document["spec"]["predictor"]["containers"]
    (port,) = container["ports"]
    assert container["name"] == "kserve-container"
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
    annotations = document["metadata"]["annotations"]
    ports = {text for name, text in annotations.items() if name.endswith("/port")}
    assert ports == {str(port["containerPort"])}


def test_kserve_speaks_grpc_where_the_port_is_named_so() -> None:
    document = inference_service()
    (container,) = document["spec"]["predictor"]["containers"]
    (shown,) = re.findall(r"```yaml\n(.*?)```", (KSERVE.parent / "README.md").read_text(), re.S)
    (changes,) = yaml.safe_load(shown)["spec"]["predictor"]["containers"]
    kept = [each for each in container["env"] if each["name"] != "PROTOCOL"]
    container |= changes | {"env": [*changes["env"], *kept]}
    assert list(unknown_to_kserve(document)) == []
    assert container["ports"][0] == {"name": "h2c", "containerPort": 8080, "protocol": "TCP"}
    assert settings_of(document["spec"]["predictor"]).grpc is not False


def test_models_of_a_volume_are_where_kserve_mounts_them() -> None:
    predictor = inference_service(of_a_volume=True)["spec"]["predictor"]
    (container,) = predictor["containers"]
    told = {each["name"]: each["value"] for each in container["env"]}
    assert told["STORAGE_URI"].startswith("pvc://")
    assert settings_of(predictor).models_dir == Path("/mnt/models")


def test_a_pod_has_time_to_answer_what_it_accepted(pod: Document) -> None:
    (container,) = containers(pod)
    waited_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace_s = pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    settings = settings_of(pod)
    assert waited_s + settings.drain_s >= 10  # for endpoints to be forgotten, and clients to leave
    assert grace_s > waited_s + last_answer_s(settings)


def test_links_of_services_are_off(pod: Document) -> None:
    assert pod["enableServiceLinks"] is False


def test_a_worker_for_each_cpu(pod: Document) -> None:
    (container,) = containers(pod)
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert settings_of(pod).workers == quantity(limits["cpu"])
    assert set(limits) == set(requests) == {"cpu", "memory"}
    assert all(quantity(requests[each]) <= quantity(limits[each]) for each in limits)


# One another


def test_selectors_take_the_pods() -> None:
    documents, labels = built(), pod_template()["metadata"]["labels"]
    spec = documents["Deployment"]["spec"]
    assert matches(spec["selector"], labels)
    assert matches(documents["PodDisruptionBudget"]["spec"]["selector"], labels)
    assert matches(documents["NetworkPolicy"]["spec"]["podSelector"], labels)
    assert matches({"matchLabels": documents["Service"]["spec"]["selector"]}, labels)
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    assert [matches(each["labelSelector"], labels) for each in spread] == [True, True]
    assert matches(
        service_monitor()["spec"]["selector"], documents["Service"]["metadata"]["labels"]
    )


def test_ports_are_named_alike() -> None:
    documents = built()
    (container,) = containers(pod_template()["spec"])
    named = [each["name"] for each in container["ports"]]
    assert {each["targetPort"] for each in documents["Service"]["spec"]["ports"]} == {*named}
    (rule,) = documents["NetworkPolicy"]["spec"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == named
    spoken = {each["name"]: each["appProtocol"] for each in documents["Service"]["spec"]["ports"]}
    assert spoken == {"http": "http", "grpc": "kubernetes.io/h2c"}
    assert [each["port"] for each in service_monitor()["spec"]["endpoints"]] == ["http"]


def test_pods_call_nobody_and_only_some_call_them() -> None:
    policy = built()["NetworkPolicy"]["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert not policy.get("egress")
    assert all(
        rule["from"] and all(each.values()) for rule in policy["ingress"] for each in rule["from"]
    )


def test_autoscaler_scales_the_deployment_and_alone() -> None:
    documents = built()
    deployment, scaler = documents["Deployment"], documents["HorizontalPodAutoscaler"]["spec"]
    target = {name: deployment[name] for name in ("apiVersion", "kind")}
    assert scaler["scaleTargetRef"] == target | {"name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]  # each apply would undo what the autoscaler chose
    (metric,) = scaler["metrics"]
    (container,) = containers(pod_template()["spec"])
    one_process = quantity(container["resources"]["limits"]["cpu"])
    assert 0 < quantity(metric["resource"]["target"]["averageValue"]) < one_process


def test_a_rollout_or_a_drained_node_leaves_pods_that_serve() -> None:
    documents = built()
    strategy = documents["Deployment"]["spec"]["strategy"]
    assert strategy == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    evicted = documents["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert 1 <= evicted < documents["HorizontalPodAutoscaler"]["spec"]["minReplicas"]


def test_queue_depth_is_a_metric_of_the_service() -> None:
    metric = with_queue_depth()["spec"]["metrics"][1]["pods"]
    assert metric["metric"]["name"] == QUEUE_ROWS.name
    assert quantity(metric["target"]["averageValue"]) == Settings().max_batch_size
    text = (KUBERNETES / "hpa.yaml").read_text()
    (rule,) = yaml.safe_load(uncommented(comment(text, "rules:")))["rules"]
    assert rule["seriesQuery"].startswith(QUEUE_ROWS.name + "{")
    assert "<<.LabelMatchers>>" in rule["metricsQuery"]


# Pod Security Standards, "Restricted": https://kubernetes.io/docs/concepts/security/pod-security-standards/


def missing_of_restricted(pod: Document) -> Iterator[str]:
    """Yield what that standard asks and a pod does not have, and a root file system to write."""
    of_pod = pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes", []):
        kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"}
        kinds |= {"persistentVolumeClaim", "projected", "secret"}
        if not set(volume) - {"name"} <= kinds:
            yield f"volume {volume['name']}"
    for container in containers(pod):
        context = of_pod | container.get("securityContext", {})
        if context.get("runAsNonRoot") is not True:
            yield "runAsNonRoot"
        if not context.get("runAsUser"):
            yield "runAsUser"
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield "seccompProfile"
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield "allowPrivilegeEscalation"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or capabilities.get("add"):
            yield "capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield "readOnlyRootFilesystem"
        if any("hostPort" in port for port in container["ports"]):
            yield "hostPort"


def test_pods_are_restricted(pod: Document) -> None:
    assert list(missing_of_restricted(pod)) == []


def test_pods_have_no_token() -> None:
    documents = built()
    pod = pod_template()["spec"]
    assert pod["serviceAccountName"] == documents["ServiceAccount"]["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is False
    assert documents["ServiceAccount"]["automountServiceAccountToken"] is False
