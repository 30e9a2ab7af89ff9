"""The pod of one node: image, resources, storage, environment, and what Kubernetes does when it ends."""

from __future__ import annotations

from typing import Any

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.launching.kubernetes.codes import EXIT_AGAIN, EXIT_BAD_INPUT
from moss_train.launching.kubernetes.names import check_object_name, check_quantity, check_variable, job_name
from moss_train.launching.kubernetes.volumes import SHARED_MEMORY, volumes_of

CONFIG_FILE = "config.yaml"
CONFIG_FOLDER = "/etc/moss"
_SECONDS_FOR_THE_POD = 15
"""Of the grace period, left when the ranks must have saved."""


def pod_failure_policy() -> dict[str, Any]:
    """What a Job does about a pod that failed; the first rule that fits counts, and other failures do."""

    def by_code(action: str, code: int) -> dict[str, Any]:  # older versions want both requirements named
        return {"action": action, "onExitCodes": {"operator": "In", "values": [code]}, "onPodConditions": []}

    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {"rules": [by_code("FailJob", EXIT_BAD_INPUT), by_code("Ignore", EXIT_AGAIN), disrupted]}


def pod_template(
    config: RunConfig,
    labels: dict[str, str],
    config_map: str,
    *,
    container: str = "train",
    environment: list[dict[str, Any]] | None = None,
    arguments: list[str] | None = None,
    config_folder: str = CONFIG_FOLDER,
) -> dict[str, Any]:
    """A PodTemplateSpec without its restart policy.

    Args:
        config_map: holds the frozen configuration.
        container: name of the only container.
        environment: what it gets beside `launcher.env`.
        arguments: of `moss_train.launching.kubernetes.pod`, beside the configuration.
        config_folder: where the configuration is inside.

    Raises:
        InputError: a value that Kubernetes would refuse, or with which a run could not be continued.
    """
    kubernetes = config.launcher.kubernetes
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": config_map}},
        {
            "name": "shared-memory",
            "emptyDir": {"medium": "Memory", "sizeLimit": _quantity("shared_memory", kubernetes.shared_memory)},
        },
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": config_folder, "readOnly": True},
        {"name": "shared-memory", "mountPath": SHARED_MEMORY},
    ]
    for number, volume in enumerate(volumes_of(config, [config_folder, SHARED_MEMORY])):
        volumes.append({"name": f"volume-{number}"} | volume.source)
        mounts.append({"name": f"volume-{number}", "mountPath": volume.inside})
    python = config.launcher.python or "python3"
    command = [python, "-m", "moss_train.launching.kubernetes.pod", "--config", f"{config_folder}/{CONFIG_FILE}"]
    main: dict[str, Any] = {
        "name": container,
        "image": _image(config),
        "command": [*command, *(arguments or [])],
        "env": [*_environment(config), *(environment or [])],
        "resources": _resources(config),
        "volumeMounts": mounts,
    }
    if kubernetes.secrets:
        names = [check_object_name("launcher.kubernetes.secrets", name) for name in kubernetes.secrets]
        main["envFrom"] = [{"secretRef": {"name": name}} for name in names]
    if kubernetes.capabilities:
        main["securityContext"] = {"capabilities": {"add": list(kubernetes.capabilities)}}
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": kubernetes.grace_seconds, "containers": [main], "volumes": volumes}
    return {"metadata": {"labels": dict(labels)}, "spec": spec | _placement(config)}


def _placement(config: RunConfig) -> dict[str, Any]:
    """On which nodes, in which network, as whom."""
    kubernetes, spec = config.launcher.kubernetes, dict[str, Any]()
    if kubernetes.node_selector:
        spec["nodeSelector"] = dict(kubernetes.node_selector)
    if kubernetes.tolerations:
        spec["tolerations"] = [_toleration(text) for text in kubernetes.tolerations]
    if kubernetes.host_network:
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    if kubernetes.service_account:
        spec["serviceAccountName"] = check_object_name("launcher.kubernetes.service_account", kubernetes.service_account)
    return spec


def _toleration(text: str) -> dict[str, str]:
    key, equal, value = text.partition("=")
    return {"key": key, "operator": "Equal", "value": value} if equal else {"key": key, "operator": "Exists"}


def _image(config: RunConfig) -> str:
    container = config.launcher.container
    if not container.image:
        raise InputError("launcher.container.image is empty; name the image that the pods run")
    if container.mounts:
        raise InputError("launcher.container.mounts has no meaning in Kubernetes; use launcher.kubernetes.volumes")
    return container.image


def _environment(config: RunConfig) -> list[dict[str, Any]]:
    seconds = max(config.launcher.kubernetes.grace_seconds - _SECONDS_FOR_THE_POD, 1)
    own = {"RUN_ID": job_name(config), "PYTHONUNBUFFERED": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(seconds)}
    variables: list[dict[str, Any]] = [
        literal(check_variable(name), value) for name, value in (own | config.launcher.env).items()
    ]
    return [*variables, {"name": "MOSS_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]


def literal(name: str, value: str) -> dict[str, str]:
    """A variable with just this value: Kubernetes would put other variables in the place of `$(NAME)`."""
    return {"name": name, "value": value.replace("$(", "$$(")}


def _resources(config: RunConfig) -> dict[str, Any]:
    """Requests are limits: such a pod is the last that a node in need of memory puts out."""
    launcher = config.launcher
    kubernetes = launcher.kubernetes
    amounts = {"cpu": _quantity("cpus", kubernetes.cpus), "memory": _quantity("memory", kubernetes.memory)}
    if kubernetes.gpu_resource:
        amounts[kubernetes.gpu_resource] = str(launcher.nproc_per_node)
    amounts |= {name: _quantity(f"resources.{name}", amount) for name, amount in kubernetes.resources.items()}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _quantity(name: str, value: str) -> str:
    return check_quantity(f"launcher.kubernetes.{name}", value)
