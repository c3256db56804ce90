"""deploy/ as far as it can be checked without a cluster: forms, names that must agree, and commands that parse."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gaussianverse import __version__
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.policy import ordered_shards
from gaussianverse.pipeline.run.events import RayMetrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
KUBERAY = ("eks.yaml", "gke.yaml")
DEFINITIONS = ROOT.parent / "shared" / "data" / "kuberay_crd"


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_ray_accepts_the_cluster_file() -> None:
    """Against the schema of the Ray that is installed."""
    jsonschema = pytest.importorskip("jsonschema")
    ray = pytest.importorskip("ray")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = loaded("cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    spot = config["available_node_types"]["spot"]
    assert spot["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert spot["resources"]["GPU"] == 1


def documents(name: str) -> dict[str, Any]:
    """The documents of a manifest by their kind."""
    return {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / name).read_text())}


@pytest.mark.parametrize("name", KUBERAY)
def test_the_rayjob_has_what_a_run_needs(name: str) -> None:
    found = documents(name)
    job, account = found["RayJob"]["spec"], found["ServiceAccount"]["metadata"]["name"]
    cluster = job["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        assert pod["serviceAccountName"] == account
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert cluster["rayVersion"] == pinned[1], "driver and cluster must have the same Ray"
    # events lie on the volume that outlives the pod, and the weights where the image has them
    (claim,) = [v for v in cluster["headGroupSpec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v]
    assert claim["persistentVolumeClaim"]["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    mounts = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    (place,) = [mount["mountPath"] for mount in mounts if mount["name"] == claim["name"]]
    words = shlex.split(job["entrypoint"])
    assert words[words.index("--events") + 1].startswith(f"{place}/")
    assert "COPY deploy/weights /opt/weights" in (DEPLOY / "Containerfile").read_text()
    assert any(word.startswith("fit.loss.lpips_weights=/opt/weights/") for word in words)


@pytest.mark.parametrize("name", KUBERAY)
def test_every_object_carries_the_same_label_of_costs(name: str) -> None:
    found = documents(name)
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    pods = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    labels = [one["metadata"]["labels"]["cost-centre"] for one in (*found.values(), *pods)]
    assert len(labels) == 5
    assert len(set(labels)) == 1
    for kind in loaded("cluster.yaml")["available_node_types"].values():
        ((tags,),) = [[spec["Tags"] for spec in kind["node_config"]["TagSpecifications"]]]
        assert {tag["Key"]: tag["Value"] for tag in tags}["cost-centre"] == labels[0]


def test_the_clouds_differ_in_spot_nodes_and_credentials_alone() -> None:
    """Each names its own labels and none of the other's; without them the manifests are the same."""
    texts = {name: (DEPLOY / name).read_text() for name in KUBERAY}
    assert "cloud.google.com" not in texts["eks.yaml"]
    assert "amazonaws.com/capacityType" not in texts["gke.yaml"]
    jobs = []
    for name in KUBERAY:
        job = documents(name)["RayJob"]
        cluster = job["spec"]["rayClusterSpec"]
        workers = cluster["workerGroupSpecs"][0]["template"]["spec"]
        head = cluster["headGroupSpec"]["template"]["spec"]
        ((label, value),) = workers.pop("nodeSelector").items()
        (term,) = head.pop("affinity")["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        (kept_away,) = term["matchExpressions"]
        assert kept_away["key"] == label, "the driver's node is none of the spot nodes"
        assert kept_away.get("values", [value]) == [value]
        workers["tolerations"] = [one for one in workers["tolerations"] if one["key"] != label]
        for pod in (head, workers):
            pod["volumes"] = [volume for volume in pod.get("volumes", ()) if "projected" not in volume]
            (container,) = pod["containers"]
            container["env"] = [one for one in container["env"] if one["name"] == "AWS_DEFAULT_REGION"]
            container["volumeMounts"] = [
                one for one in container.get("volumeMounts", ()) if one["name"] != "aws-token"
            ]
        jobs.append(job)
    assert jobs[0] == jobs[1]


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_accepts_the_manifests(name: str) -> None:
    """Against the schema of KubeRay's own definitions, which has no place for unknown names."""
    pytest.importorskip("jsonschema")
    job = documents(name)["RayJob"]
    validator = kuberays_validator(job["apiVersion"])
    assert [error.message for error in validator.iter_errors(job)] == []
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParam"] = {}
    (error,) = validator.iter_errors(job)
    assert "rayStartParam" in error.message


@cache
def kuberays_validator(version: str) -> Any:
    """Of RayJobs of a version of the API, such as "ray.io/v1"."""
    from jsonschema import Draft202012Validator

    path = DEFINITIONS / "ray.io_rayjobs.yaml"
    if not path.is_file():
        pytest.skip(f"no {path}: KubeRay's definitions, of helm-chart/kuberay-operator/crds")
    spec = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
    (schema,) = [
        one["schema"]["openAPIV3Schema"]
        for one in spec["versions"]
        if f"{spec['group']}/{one['name']}" == version and one["served"]
    ]
    return Draft202012Validator(closed(schema))


def closed(schema: Any) -> Any:
    """A Kubernetes schema as a JSON schema: names that it lacks are refused, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        made["additionalProperties"] = False
    return made


def test_the_commands_are_ones_that_the_command_line_takes() -> None:
    entries = [shlex.split(documents(name)["RayJob"]["spec"]["entrypoint"]) for name in KUBERAY]
    script = (DEPLOY / "slurm.sh").read_text().replace("\\\n", " ")
    array = shlex.split(re.findall(r"^gaussianverse .+$", script, re.M)[0].rstrip("& "))
    assert array.pop() == "$@"
    page = (ROOT / "docs" / "clusters.md").read_text().replace("\\\n", " ")
    shown = [
        shlex.split(found, comments=True) for found in re.findall(r"^    (?:\$ )?(gaussianverse .+)$", page, re.M)
    ]
    assert len(shown) >= 3
    for command in (*entries, array, *shown):
        assert command[0] == "gaussianverse"
        parser = argparse.ArgumentParser(exit_on_error=False)
        for add_options in cli._VERBS[command[1]].options:
            add_options(parser)
        parser.parse_args([word.replace("${SLURM_CPUS_PER_TASK:-8}", "8") for word in command[2:]])


@pytest.mark.parametrize(("shards", "tasks"), [(804, 32), (5, 8), (1, 1), (7, 7), (100, 33)])
def test_the_array_takes_every_shard_once(shards: int, tasks: int, tmp_path: Path) -> None:
    fake = tmp_path / "gaussianverse"
    fake.write_text('#!/bin/bash\nwhile [ "$1" != --shards ]; do shift; done; echo "shards $2"\n')
    fake.chmod(0o755)
    taken: list[int] = []
    for task in range(tasks):
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_ARRAY_TASK_COUNT": str(tasks),
            "SLURM_ARRAY_TASK_ID": str(task),
        }
        command = ["bash", str(DEPLOY / "slurm.sh"), "m", "o", str(shards)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        if done.stdout.startswith("shards "):
            taken += ordered_shards(done.stdout.split()[1], range(shards))
    assert taken == list(range(shards))


def test_clusters_run_the_image_of_this_version() -> None:
    texts = [(DEPLOY / name).read_text() for name in ("cluster.yaml", *KUBERAY)]
    tags = [re.findall(r"image: REGISTRY/gaussianverse:(\S+)", text) for text in texts]
    assert [set(found) for found in tags] == [{__version__}] * 3


def exported() -> tuple[dict[str, set[str]], set[str]]:
    """Names of the metrics in Prometheus with their labels, as Ray exports them; and the names without suffixes."""
    names: dict[str, set[str]] = {}
    stems = set()

    def made(*suffixes: str) -> Any:
        def make(name: str, tag_keys: tuple[str, ...] = (), **_: object) -> None:
            stems.add(f"ray_{name}")
            for suffix in suffixes:
                names[f"ray_{name}{suffix}"] = {*tag_keys, *(["le"] if suffix == "_bucket" else [])}

        return make

    RayMetrics(SimpleNamespace(Counter=made("_total"), Gauge=made(""), Histogram=made("_bucket", "_sum", "_count")))
    return names, stems


def check_expression(expression: str) -> set[str]:
    """Names of our metrics in an expression, all of which exist, with labels that exist."""
    names, _ = exported()
    used = set(re.findall(r"ray_gaussianverse_\w+", expression))
    assert used <= set(names)
    labels = {label for name in used for label in names[name]}
    asked = re.findall(r"by \((.*?)\)", expression) + re.findall(r"\{(\w+)=", expression)
    assert {label.strip() for text in asked for label in text.split(",")} <= labels
    assert all(expression.count(one) == expression.count(other) for one, other in ("()", "{}", "[]"))
    return used


def test_the_dashboard_draws_metrics_that_exist_and_all_of_them() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    drawn: set[str] = set()
    variables = {variable["name"] for variable in board["templating"]["list"]}
    for panel in board["panels"]:
        assert panel["targets"]
        for target in panel["targets"]:
            drawn |= check_expression(target["expr"])
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(
                ",".join(re.findall(r"by \((.*?)\)", target["expr"])).replace(" ", "").split(",")
            )
    _, stems = exported()
    assert all(any(name.startswith(stem) for name in drawn) for stem in stems)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_alerts_are_rules_of_prometheus_on_metrics_that_exist() -> None:
    (group,) = loaded("alerts.yaml")["groups"]
    assert set(group) == {"name", "rules"}
    for rule in group["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {
            "alert", "expr", "for", "labels", "annotations",
        }  # fmt: skip
        assert check_expression(rule["expr"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert all(text.endswith(".") for text in rule["annotations"].values())
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) >= 4
    told = {
        word for rule in group["rules"] for word in re.findall(r"gaussianverse (\S+) --", str(rule["annotations"]))
    }
    assert told <= set(cli._VERBS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")
def test_prometheus_accepts_the_alerts(tmp_path: Path) -> None:
    def checked(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "alerts.yaml").write_text(text)
        command = ["promtool", "check", "rules", str(tmp_path / "alerts.yaml")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    text = (DEPLOY / "alerts.yaml").read_text()
    accepted = checked(text)
    assert accepted.returncode == 0, accepted.stderr
    assert f"{text.count('- alert:')} rules found" in accepted.stdout
    assert checked(text.replace("histogram_quantile(", "histogram_quantity(")).returncode != 0


@pytest.mark.parametrize("page", ["guarantees.md", "reading.md"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`(?:tests/)?(test_\w+)(?:\.py)?(?:::(\w+))?`", text)
    assert len(named) > 10
    for file, test in named:
        source = (ROOT / "tests" / f"{file}.py").read_text()
        assert not test or f"def {test}(" in source, f"{file}::{test}"
