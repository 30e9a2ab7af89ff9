"""The manifest of a run: a ConfigMap with its frozen configuration, and a Job, a JobSet or a PyTorchJob."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import yaml

from model.errors import InputError
from moss_train.config.cluster import ContainerConfig
from moss_train.config.compose import to_yaml
from moss_train.config.schema import RunConfig
from moss_train.launching.kubernetes.codes import EXIT_RETRY
from moss_train.launching.kubernetes.names import check_namespace, job_name
from moss_train.launching.kubernetes.template import CONFIG_FILE, CONFIG_FOLDER, literal, pod_failure_policy, pod_template

MakePod = Callable[..., dict[str, Any]]
"""`pod_template` with what is the same for all pods."""
NODE_JOB = "node"
"""The JobSet's only job, with a pod a node."""
MOST_CONFIG_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB."""
_TRAINING_OPERATOR_INDEX = "metadata.labels['training.kubeflow.org/replica-index']"


def render_manifest(config: RunConfig, *, config_folder: str = CONFIG_FOLDER) -> str:
    """YAML for `kubectl apply -f`, made from `launcher`, `launcher.container.image` and `launcher.kubernetes`.

    Args:
        config_folder: where the pods find the frozen configuration.

    Raises:
        InputError: a value that Kubernetes would refuse, or with which a run could not be continued.
    """
    return "---\n".join(_dump(document) for document in manifest(config, config_folder=config_folder))


def manifest(config: RunConfig, *, config_folder: str = CONFIG_FOLDER) -> list[dict[str, Any]]:
    """The same as data, in the order in which it is applied."""
    kubernetes, name = config.launcher.kubernetes, job_name(config)
    own = {"app.kubernetes.io/name": "moss-train", "app.kubernetes.io/instance": name}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": check_namespace(kubernetes.namespace),
        "labels": own | kubernetes.labels,
    }
    config_map = f"{name}-config"
    settings = {"name": config_map, "namespace": kubernetes.namespace, "labels": own}
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": settings,
        "immutable": True,
        "data": {CONFIG_FILE: _frozen(config)},
    }
    workload = {"job": _job, "jobset": _jobset, "pytorchjob": _pytorchjob}[kubernetes.api]
    pod = partial(pod_template, config, own | kubernetes.labels, config_map, config_folder=config_folder)
    return [content, workload(config, metadata, pod)]


def _frozen(config: RunConfig) -> str:
    """The configuration as the pods read it: they are the container, and start no other."""
    inside = copy.deepcopy(config)
    inside.launcher.container = ContainerConfig(image=config.launcher.container.image)
    text = to_yaml(inside)
    if len(text.encode()) > MOST_CONFIG_BYTES:
        raise InputError(
            f"the configuration is {len(text.encode())} bytes long, and a ConfigMap holds {MOST_CONFIG_BYTES}; shorten its lists"
        )
    return text


def _job(config: RunConfig, metadata: dict[str, Any], pod: MakePod) -> dict[str, Any]:
    if config.launcher.nodes > 1:
        raise InputError(
            f"launcher.kubernetes.api is job, which runs one node, and launcher.nodes is {config.launcher.nodes}; use jobset"
        )
    spec = _job_spec(config, pod(), config.launcher.kubernetes.max_restarts)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _job_spec(config: RunConfig, template: dict[str, Any], failures: int) -> dict[str, Any]:
    """Of a Job with a pod a node, which fails at the first failure that counts beyond `failures`."""
    template["spec"]["restartPolicy"] = "Never"  # rules about exit codes need it; a pod is made anew instead
    nodes = config.launcher.nodes
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": failures,
        "podFailurePolicy": pod_failure_policy(),
        "template": template,
    }


def _jobset(config: RunConfig, metadata: dict[str, Any], pod: MakePod) -> dict[str, Any]:
    launcher, name = config.launcher, metadata["name"]
    meet = []
    if launcher.nodes > 1:  # the headless service of a JobSet has its name, and a pod the name of its job and its index
        meet = [literal("MASTER_ADDR", f"{name}-{NODE_JOB}-0-0.{name}"), literal("MASTER_PORT", str(launcher.master_port))]
    template = pod(environment=meet)
    # One failed node fails them all, since its ranks are missed by the others; an elastic run waits for a new pod.
    job = _job_spec(config, template, launcher.kubernetes.max_restarts if launcher.elastic else 0)
    bad_input = {"name": "bad_input", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    spec = {
        "network": {"enableDNSHostnames": True},
        "failurePolicy": {"maxRestarts": launcher.kubernetes.max_restarts, "rules": [bad_input]},
        "replicatedJobs": [{"name": NODE_JOB, "replicas": 1, "template": {"spec": job}}],
    }
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": metadata, "spec": spec}


def _pytorchjob(config: RunConfig, metadata: dict[str, Any], pod: MakePod) -> dict[str, Any]:
    """Its operator sets MASTER_ADDR, MASTER_PORT and RANK, the number of the pod; where all pods are workers, as in an elastic
    job, it does not."""
    launcher, name = config.launcher, metadata["name"]
    spec: dict[str, Any] = {"runPolicy": {"cleanPodPolicy": "None"}}  # pods stay, with their output
    port = {"name": "pytorchjob-port", "containerPort": launcher.master_port, "protocol": "TCP"}
    meet: list[dict[str, Any]] = []
    if launcher.elastic:
        meet = [literal("MASTER_ADDR", f"{name}-worker-0"), literal("MASTER_PORT", str(launcher.master_port))]
        meet.append({"name": "NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _TRAINING_OPERATOR_INDEX}}})
        spec["elasticPolicy"] = {
            "rdzvBackend": "c10d",
            "minReplicas": launcher.least_nodes,
            "maxReplicas": launcher.nodes,
            "maxRestarts": launcher.max_restarts,
        }
    template = pod(container="pytorch", environment=meet, arguments=["--retry-code", str(EXIT_RETRY)])
    template["metadata"]["annotations"] = {"sidecar.istio.io/inject": "false"}
    template["spec"]["containers"][0]["ports"] = [port]

    def replicas(count: int) -> dict[str, Any]:
        return {"replicas": count, "restartPolicy": "ExitCode", "template": copy.deepcopy(template)}

    spec["nprocPerNode"] = str(launcher.nproc_per_node)
    spec["pytorchReplicaSpecs"] = {"Worker": replicas(launcher.nodes)} if launcher.elastic else {"Master": replicas(1)}
    if launcher.nodes > 1 and not launcher.elastic:
        spec["pytorchReplicaSpecs"]["Worker"] = replicas(launcher.nodes - 1)
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata, "spec": spec}


class _Dumper(yaml.SafeDumper):
    """Text of several lines is written as it is; nothing is written as a reference to what was written before."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _dump(document: dict[str, Any]) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
