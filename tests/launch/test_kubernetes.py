"""Manifests: valid against the schemas of Kubernetes and JobSet, and their pods run here as processes on a tiny model."""

from __future__ import annotations

import copy
import functools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubeflow_trainer_api import models

from model.errors import InputError
from moss_train.checkpoint.description import newest_checkpoint, step_of
from moss_train.config.build import to_plain
from moss_train.config.cluster import ContainerConfig
from moss_train.config.compose import compose, from_plain
from moss_train.config.schema import RunConfig
from moss_train.guards.ending import DATA_ENDED, FAILED, FINISHED, TOLD, Ending, read_ending, write_ending
from moss_train.launching.kubernetes import launch_kubernetes, pod, render_manifest
from moss_train.launching.kubernetes.codes import EXIT_AGAIN, EXIT_RETRY, Stamp, exit_code, nothing_left
from moss_train.launching.kubernetes.failures import retry_code
from moss_train.launching.kubernetes.manifest import manifest
from moss_train.launching.kubernetes.names import LONGEST, job_name
from moss_train.parallel.ports import hold_port
from moss_train.preflight.findings import BAD, Finding, Verdict
from moss_train.preflight.report import EXIT_BAD_NODE, write_report
from tests.moss_train.runs import run_config, write_data

POD = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pod"}}


@functools.cache
def _composed() -> dict[str, Any]:
    volumes = "launcher.kubernetes.volumes=['claim:training:/data']"
    return dict(
        to_plain(
            compose(["stage=pt2", "launcher=kubernetes", "run_dir=/data/runs/pt2", "launcher.container.image=moss:1", volumes])
        )
    )


def _config(api: str = "jobset", change: dict[str, Any] | None = None, /, **launcher: Any) -> RunConfig:
    """The composed run with other values of `launcher.kubernetes`, of the run, and of `launcher`."""
    values = copy.deepcopy(_composed())
    group = values["launcher"]
    group["kubernetes"] |= {"api": api} | launcher.pop("kubernetes", {})
    group |= launcher
    return from_plain(values | (change or {}))


def _valid(document: dict[str, Any], kind: type[Any]) -> None:
    """Required and known fields, types, and values out of lists, as the API's own schema says them."""
    read = kind.from_dict(document)
    assert read is not None
    assert read.to_dict() == document, "a field is unknown"


def _pods(workload: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a manifest's second document."""
    spec = workload["spec"]
    if workload["kind"] == "PyTorchJob":
        return [replica["template"] for replica in spec["pytorchReplicaSpecs"].values()]
    job = spec if workload["kind"] == "Job" else spec["replicatedJobs"][0]["template"]["spec"]
    return [job["template"]]


ALL = {
    "preflight": {"enabled": True},
    "cache": {"folder": "/nvme/moss"},
    "kubernetes": {
        "volumes": ["claim:training:/data", "host:/mnt/disk:/nvme", "empty:/scratch"],
        "resources": {"rdma/hca": "1"},
        "labels": {"kueue.x-k8s.io/queue-name": "team"},
        "host_network": True,
        "capabilities": ["IPC_LOCK"],
        "node_selector": {"gpu": "h100"},
        "tolerations": ["nvidia.com/gpu", "dedicated=training"],
        "service_account": "trainer",
        "secrets": ["wandb", "s3.keys"],
    },
}


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("api", ["job", "jobset", "pytorchjob"])
@pytest.mark.parametrize("more", [{}, ALL], ids=["plain", "all"])
def test_manifests_are_what_the_schemas_say(api: str, elastic: bool, more: dict[str, Any]) -> None:
    nodes = 1 if api == "job" else 4
    config = _config(api, nodes=nodes, min_nodes=nodes // 2, elastic=elastic, **copy.deepcopy(more))
    settings, workload = list(yaml.safe_load_all(render_manifest(config)))
    _valid(settings, models.IoK8sApiCoreV1ConfigMap)
    if api == "job":
        _valid(workload, models.IoK8sApiBatchV1Job)
    if api == "jobset":
        _valid(workload, models.JobsetV1alpha2JobSet)
    templates = _pods(workload)
    assert len(templates) == (2 if api == "pytorchjob" and not elastic else 1)
    for template in templates:
        _valid(POD | {"spec": {"template": template}}, models.IoK8sApiBatchV1Job)


def test_jobset_meets_at_the_first_pod_and_restarts_as_a_whole() -> None:
    _, workload = manifest(_config("jobset", nodes=4, master_port=1234, kubernetes={"name": "my-run", "max_restarts": 5}))
    job = workload["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"], job["backoffLimit"]) == ("Indexed", 4, 4, 0)
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert _literals(job["template"])["MASTER_ADDR"] == "my-run-node-0-0.my-run"
    assert _literals(job["template"])["MASTER_PORT"] == "1234"
    actions = [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in job["podFailurePolicy"]["rules"]]
    assert actions == [("FailJob", [2]), ("Ignore", [75]), ("Ignore", None)]
    assert workload["spec"]["failurePolicy"]["maxRestarts"] == 5
    assert workload["spec"]["failurePolicy"]["rules"][0]["action"] == "FailJobSet"
    # An elastic run stands the loss of a pod, and takes the new one.
    elastic = manifest(_config("jobset", nodes=4, elastic=True, min_nodes=2))[1]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert elastic["backoffLimit"] == 3


def test_pytorchjob_is_numbered_by_its_operator() -> None:
    spec = manifest(_config("pytorchjob", nodes=4, master_port=1234))[1]["spec"]
    assert {name: replica["replicas"] for name, replica in spec["pytorchReplicaSpecs"].items()} == {"Master": 1, "Worker": 3}
    main = spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    assert main["name"] == "pytorch"
    assert main["ports"] == [{"name": "pytorchjob-port", "containerPort": 1234, "protocol": "TCP"}]
    assert main["command"][-2:] == ["--retry-code", "138"]
    assert "elasticPolicy" not in spec
    assert list(manifest(_config("pytorchjob", nodes=1))[1]["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    spec = manifest(_config("pytorchjob", nodes=4, elastic=True, min_nodes=2))[1]["spec"]
    assert spec["elasticPolicy"] | {"rdzvBackend": "c10d", "minReplicas": 2, "maxReplicas": 4} == spec["elasticPolicy"]
    assert list(spec["pytorchReplicaSpecs"]) == ["Worker"]
    assert _literals(_pods({"kind": "PyTorchJob", "spec": spec})[0])["MASTER_ADDR"] == "moss-pt2-worker-0"


def test_pod_has_what_the_settings_say() -> None:
    template = _pods(manifest(_config(**copy.deepcopy(ALL)))[1])[0]
    spec = template["spec"]
    main = spec["containers"][0]
    amounts = {"cpu": "96", "memory": "800Gi", "nvidia.com/gpu": "8", "rdma/hca": "1"}
    assert main["resources"] == {"requests": amounts, "limits": amounts}
    places = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    assert places == {
        "config": "/etc/moss",
        "shared-memory": "/dev/shm",
        "volume-0": "/data",
        "volume-1": "/nvme",
        "volume-2": "/scratch",
    }
    sources = {volume.pop("name"): volume for volume in spec["volumes"]}
    assert sources["shared-memory"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}}
    assert sources["volume-0"] == {"persistentVolumeClaim": {"claimName": "training"}}
    assert sources["volume-1"]["hostPath"]["path"] == "/mnt/disk"
    assert main["envFrom"] == [{"secretRef": {"name": "wandb"}}, {"secretRef": {"name": "s3.keys"}}]
    assert spec["tolerations"][1] == {"key": "dedicated", "operator": "Equal", "value": "training"}
    assert (spec["terminationGracePeriodSeconds"], _literals(template)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) == (120, "105")
    on_cpu = _pods(manifest(_config(kubernetes={"gpu_resource": ""}))[1])[0]["spec"]["containers"][0]
    assert set(on_cpu["resources"]["limits"]) == {"cpu", "memory"}


def test_pods_read_the_frozen_configuration() -> None:
    config = _config("jobset", {"train": {"steps": 17}}, container={"runtime": "pyxis", "image": "moss:1"})
    settings, _ = yaml.safe_load_all(render_manifest(config))
    assert settings["immutable"] is True
    inside = from_plain(yaml.safe_load(settings["data"]["config.yaml"]))
    assert inside.train.steps == 17 and inside.launcher.kubernetes.api == "jobset"
    assert inside.launcher.container == ContainerConfig(image="moss:1")  # the pod is the container
    inside.launcher.container = config.launcher.container
    assert inside == config


def _literals(template: dict[str, Any]) -> dict[str, str]:
    """The variables of a pod as the kubelet gives them: `$$` before a bracket means one sign."""
    variables = template["spec"]["containers"][0]["env"]
    return {variable["name"]: variable["value"].replace("$$(", "$(") for variable in variables if "value" in variable}


@given(
    value=st.text(st.characters(exclude_categories=["Cs", "Cc"])), sign=st.sampled_from(["$(HOME)", "$HOME", "yes", "1e3", ": #"])
)
def test_variables_keep_their_values(value: str, sign: str) -> None:
    variables = {"MOSS_A": value + sign, "MOSS_B": sign + value}
    _, workload = yaml.safe_load_all(render_manifest(_config(env=dict(variables))))
    template = _pods(workload)[0]
    assert variables.items() <= _literals(template).items()
    raw = {variable["name"]: variable.get("value", "") for variable in template["spec"]["containers"][0]["env"]}
    assert "$(" not in raw["MOSS_A"].replace("$$(", "")


@given(folder=st.text(min_size=1), other=st.text(min_size=1))
def test_made_names_are_names(folder: str, other: str) -> None:
    names, config = [], _config()
    for text in (folder, other):
        text = text.replace("/", "-").replace("\0", "-")
        config.run_dir = f"/data/{text}"
        name = job_name(config)
        assert len(name) <= LONGEST
        assert all(sign in "abcdefghijklmnopqrstuvwxyz0123456789-" for sign in name)
        assert name[0].isalpha() and name[-1] != "-"
        names.append((Path(config.run_dir).name.lower().replace("_", "-").replace(".", "-"), name))
    if names[0][0] != names[1][0]:
        assert names[0][1] != names[1][1]


@pytest.mark.parametrize(
    ("api", "change", "launcher", "words"),
    [
        ("job", {}, {"nodes": 2}, "launcher.kubernetes.api is job, which runs one node, and launcher.nodes is 2; use jobset"),
        ("jobset", {}, {"container": {"image": ""}}, "launcher.container.image is empty"),
        ("jobset", {}, {"container": {"image": "a", "mounts": ["/a"]}}, "launcher.container.mounts has no meaning"),
        ("jobset", {"run_dir": "runs/a"}, {}, "run_dir is runs/a, which would be gone with its pod"),
        ("jobset", {"run_dir": "/data/../a"}, {}, "would be gone with its pod"),
        ("jobset", {}, {"kubernetes": {"volumes": ["empty:/data"]}}, "would be gone with its pod"),
        ("jobset", {}, {"kubernetes": {"volumes": ["claim:training"]}}, "has 'claim:training'; write claim:NAME:/inside"),
        ("jobset", {}, {"kubernetes": {"volumes": ["claim:Bad_Name:/data"]}}, "is 'Bad_Name', which no object can be called"),
        ("jobset", {}, {"kubernetes": {"volumes": ["claim:a:/data", "claim:b:/data/"]}}, "/data is taken"),
        ("jobset", {}, {"kubernetes": {"volumes": ["claim:a:/dev/shm"]}}, "/dev/shm is taken"),
        ("jobset", {}, {"cache": {"folder": "/nvme"}}, "launcher.cache.folder is /nvme, on no disk of the node"),
        ("jobset", {}, {"kubernetes": {"name": "My_Run"}}, "launcher.kubernetes.name is 'My_Run'"),
        ("jobset", {}, {"kubernetes": {"name": "a" * 46}}, "at most 45"),
        ("jobset", {}, {"kubernetes": {"namespace": "a.b"}}, "launcher.kubernetes.namespace is 'a.b'"),
        ("jobset", {}, {"kubernetes": {"memory": "800 GB"}}, "launcher.kubernetes.memory is '800 GB'"),
        ("jobset", {}, {"kubernetes": {"resources": {"rdma/hca": "one"}}}, "launcher.kubernetes.resources.rdma/hca is 'one'"),
        ("jobset", {}, {"env": {"A B": "1"}}, "launcher.env has 'A B'"),
        ("jobset", {"data": {"skip_samples": "x" * 1_000_000}}, {}, "a ConfigMap holds 1000000"),
    ],
)
def test_what_a_cluster_would_refuse_is_one_sentence(
    api: str, change: dict[str, Any], launcher: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        render_manifest(_config(api, change, **copy.deepcopy(launcher)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "told", "ending", "expected"),
    [
        (0, False, Ending(FINISHED, 0, step=9), 0),
        (0, False, Ending(DATA_ENDED, 0, step=5), 0),
        (0, False, Ending(TOLD, 0, step=5), EXIT_AGAIN),  # another pod was told
        (1, True, Ending(TOLD, 0, step=5), EXIT_AGAIN),
        (1, True, Ending(FINISHED, 0, step=9), 0),
        (1, False, Ending(FAILED, 3, "lost"), 3),
        (1, False, Ending(FAILED, 2, "bad"), 2),
        (5, True, Ending(FAILED, 5, "not saved in time"), 5),
        (-15, True, None, EXIT_AGAIN),
        (-9, False, None, 137),
        (2, False, None, 2),
        (0, False, None, 1),
    ],
)
def test_exit_codes(tmp_path: Path, code: int, told: bool, ending: Ending | None, expected: int) -> None:
    write_ending(tmp_path, Ending(TOLD, 0, step=1))  # of an earlier start
    stamp = Stamp.of(tmp_path)
    assert stamp.ending is None
    if ending is not None:
        write_ending(tmp_path, ending)
    assert stamp.ending == ending
    assert exit_code(code, told, stamp.ending) == expected
    assert nothing_left(ending, 9) == (ending is not None and ending.outcome == FINISHED)


def test_failures_in_a_row_end_a_pytorchjob(tmp_path: Path) -> None:
    config = _config("pytorchjob", {"run_dir": str(tmp_path)}, kubernetes={"max_restarts": 2})
    assert [retry_code(code, EXIT_RETRY, config, 0) for code in (0, 2, EXIT_AGAIN)] == [0, 2, EXIT_RETRY]
    assert [retry_code(3, EXIT_RETRY, config, 1) for _ in range(3)] == [EXIT_RETRY, EXIT_RETRY, 3]
    assert retry_code(137, EXIT_RETRY, config, 1) == 127  # one that the operator does not take for a reason to start again
    folder = tmp_path / "checkpoints" / "step_00000010"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")
    assert [retry_code(3, EXIT_RETRY, config, 1) for _ in range(3)] == [EXIT_RETRY, EXIT_RETRY, 3]


def test_faults_of_no_single_node_are_bad_input(tmp_path: Path) -> None:
    config, out = _config("jobset", {"run_dir": str(tmp_path)}), tmp_path / "launch" / "preflight"
    assert pod.not_fit(EXIT_BAD_NODE, config) == EXIT_BAD_NODE  # no report
    verdict = Verdict(["gpu-1", "gpu-2", "gpu-3"])
    verdict.faults.append("no node can read /data/shards")
    write_report(out, verdict, {}, None, began=0.0, code=EXIT_BAD_NODE)
    assert pod.not_fit(EXIT_BAD_NODE, config) == 2
    assert pod.not_fit(2, config) == 2
    verdict.add(1, Finding("clock", BAD, "+9 s", "its clock is wrong"))
    write_report(out, verdict, {}, None, began=0.0, code=EXIT_BAD_NODE)
    assert pod.not_fit(EXIT_BAD_NODE, config) == EXIT_BAD_NODE


def test_first_pod_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_port() as port:
        with pytest.raises(OSError, match=f"127.0.0.1, the first pod, does not answer on port {port} after 0 s"):
            _wait_shortly(monkeypatch, "127.0.0.1", port)
        with socket.create_server(("127.0.0.1", 0)) as server:
            _wait_shortly(monkeypatch, "127.0.0.1", server.getsockname()[1])
    with pytest.raises(OSError, match=r"nowhere\.invalid, the first pod, has no address after 0 s"):
        _wait_shortly(monkeypatch, "nowhere.invalid")
    with pytest.raises(InputError, match="MASTER_ADDR is not set"):
        _wait_shortly(monkeypatch, "")
    told = pod.Phases()
    told.told = True
    pod.wait_for("nowhere.invalid", told)  # a pod that is told to end does not wait


def _wait_shortly(monkeypatch: pytest.MonkeyPatch, host: str, port: int = 0) -> None:
    monkeypatch.setattr(pod, "SECONDS_FOR_THE_FIRST", 0.0)
    pod.wait_for(host, pod.Phases(), port)


class _Cluster:
    """Starts the pods of a manifest as processes of this machine, with what a kubelet would give them."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        mounted = folder / "etc"
        settings, workload = yaml.safe_load_all(render_manifest(config, config_folder=str(mounted)))
        mounted.mkdir(exist_ok=True)
        (mounted / "config.yaml").write_text(settings["data"]["config.yaml"], encoding="utf-8")
        self._template = _pods(workload)[0]
        self._folder = folder

    def start(self, index: int, port: int = 0) -> subprocess.Popen[bytes]:
        """A pod; the name of the first one is known as 127.0.0.1."""
        literals, given = _literals(self._template), {"JOB_COMPLETION_INDEX": str(index)}
        if "MASTER_ADDR" in literals:
            assert literals["MASTER_ADDR"] == "moss-pt2-run-node-0-0.moss-pt2-run"
            given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        system = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with (self._folder / f"pod_{index}.txt").open("ab") as output:
            return subprocess.Popen(
                self._template["spec"]["containers"][0]["command"],
                env=system | literals | given,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("pod_*.txt")))


def _until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.ranks
def test_pods_train_are_told_to_end_and_another_goes_on(tmp_path: Path) -> None:
    """Two pods, of which one is evicted: both save and ask for a new start. A Job of one pod ends the run; once more, it has
    nothing left to do."""
    write_data(tmp_path / "data", count=12)
    run_dir = tmp_path / "run"
    launcher = {
        "kind": "kubernetes",
        "nodes": 2,
        "python": sys.executable,
        "container": {"image": "moss:1"},
        "kubernetes": {"volumes": [f"host:{tmp_path}:{tmp_path}"], "gpu_resource": ""},
    }
    lean = {"train__eval_batches": 0, "logging__report": False, "logging__wandb": "disabled"}
    config = run_config(tmp_path / "data", run_dir, steps=9, device="cpu", launcher=launcher, **lean)
    cluster = _Cluster(config, tmp_path)
    with hold_port() as port:
        pods = [cluster.start(index, port) for index in (0, 1)]
        _until(lambda: (run_dir / "metrics.jsonl").is_file() or any(pod.poll() is not None for pod in pods))
        pods[1].send_signal(signal.SIGTERM)
        assert [pod.wait(timeout=60) for pod in pods] == [EXIT_AGAIN, EXIT_AGAIN], cluster.output()
    saved = newest_checkpoint(run_dir)
    assert saved is not None and 0 < step_of(saved) < 9
    ending = read_ending(run_dir)
    assert ending is not None and (ending.outcome, ending.step, ending.world_size) == (TOLD, step_of(saved), 2)
    config.launcher.nodes, config.launcher.kubernetes.api = 1, "job"
    job = _Cluster(config, tmp_path)
    assert job.start(0).wait(timeout=120) == 0, job.output()
    starts = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines() if '"started"' in line]
    assert [start["step"] for start in starts] == [0, step_of(saved)]
    ending = read_ending(run_dir)
    assert ending is not None and (ending.outcome, ending.step, ending.world_size) == (FINISHED, 9, 1)
    assert job.start(0).wait(timeout=60) == 0
    assert "all 9 steps are done" in job.output()


def test_launch_prints_or_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config("jobset", {"run_dir": str(tmp_path / "run")}, kubernetes={"volumes": [f"claim:a:{tmp_path}"]})
    text = render_manifest(config)
    assert launch_kubernetes(config, dry_run=True) == 0
    assert capsys.readouterr().out == text
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="kubectl is not on PATH"):
        launch_kubernetes(config, dry_run=False)
    assert not (tmp_path / "run").exists()
    kubectl, calls = tmp_path / "kubectl", tmp_path / "calls"
    kubectl.write_text(
        f'#!/bin/sh\necho "$@" >> {shlex.quote(str(calls))}\n[ "$3" != - ] || /bin/cat >> {shlex.quote(str(calls))}\nexit 3\n'
    )
    kubectl.chmod(0o755)
    assert launch_kubernetes(config, dry_run=False) == 3
    path = tmp_path / "run" / "launch" / "manifest.yaml"
    assert path.read_text(encoding="utf-8") == text
    assert calls.read_text() == f"apply -f {path}\n"
    calls.unlink()
    far = _config("jobset", {"run_dir": f"{tmp_path}/not/here/run"}, kubernetes={"volumes": [f"claim:a:{tmp_path}"]})
    assert launch_kubernetes(far, dry_run=False) == 3
    assert calls.read_text() == "apply -f -\n" + render_manifest(far)


def test_file_of_the_page_renders(tmp_path: Path) -> None:
    """The settings for a cluster that docs/kubernetes.md shows, over those of conf/launcher/kubernetes.yaml."""
    page = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "my_cluster.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    config = compose(["stage=pt2", "launcher=my_cluster", "run_dir=/data/runs/pt2"], extra_dir=tmp_path)
    settings, workload = manifest(config)
    assert settings["metadata"]["namespace"] == "training"
    assert workload["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    template = _pods(workload)[0]
    assert {"NCCL_IB_HCA": "mlx5", "OMP_NUM_THREADS": "1"}.items() <= _literals(template).items()
    assert template["spec"]["containers"][0]["securityContext"] == {"capabilities": {"add": ["IPC_LOCK"]}}
    _valid(workload, models.JobsetV1alpha2JobSet)
