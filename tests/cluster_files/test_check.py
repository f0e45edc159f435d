"""What is wrong in a file is found: the line, the field, the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from lerobot_ray.cluster_files import Report, check_file, line_of
from lerobot_ray.on_ray.ray_up_schema import ray_up_verdict

CLUSTERS = Path(__file__).parents[2] / "clusters"
MISTAKES = {
    # file: (text in it, text in its place, what is said: level, field, words)
    "a tab": ("aws", "  type: aws", "\ttype: aws", "error", "", "not tabs"),
    "a quote left open": ("gcp", "ssh_user: ubuntu", 'ssh_user: "ubuntu', "error", "", "is not YAML"),
    "a key twice": ("aws", "max_workers: 12 ", "cluster_name: b\nmax_workers: 12 ", "error", "cluster_name", "twice"),
    "an unknown key": ("aws", "max_workers: 12", "max_worker: 12", "error", "max_worker", "Did you mean max_workers?"),
    "an unknown key of a node type": (
        "azure",
        "    priority: 10\n    min_workers",
        "    prioritty: 10\n    min_workers",
        "error",
        "available_node_types.gpu_spot.prioritty",
        "Did you mean priority?",
    ),
    "text for a number": ("gcp", "max_workers: 12", "max_workers: twelve", "error", "max_workers", "a whole number"),
    "no such head": ("aws", "head_node_type: head", "head_node_type: haed", "error", "", "head_node_type"),
    "an unknown cloud": ("aws", "type: aws", "type: aww", "error", "", "aww"),
    "more at least than together": (
        "aws",
        "min_workers: 0\n    max_workers: 4",
        "min_workers: 40\n    max_workers: 40",
        "error",
        "",
        "max_workers",
    ),
    "a head that works": (
        "aws",
        'resources: {"CPU": 0, "GPU": 0}',
        'resources: {"CPU": 4}',
        "error",
        "available_node_types.head",
        "the head offers 4 CPUs to work",
    ),
    "a resource misspelt": (
        "gcp",
        'resources: {"CPU": 16, "GPU": 1}',
        'resources: {"CPU": 16, "gpus": 1}',
        "error",
        "available_node_types.gpu_spot.resources.gpus",
        "Ray's name is 'GPU'",
    ),
    "no resources": (
        "gcp",
        'resources: {"CPU": 16, "GPU": 1}',
        "resources: {}",
        "error",
        "available_node_types.gpu_spot",
        "names no resources",
    ),
    "no token": (
        "aws",
        "--env RAY_AUTH_MODE=token",
        "--env A=b",
        "error",
        "docker.run_options",
        "token authentication",
    ),
    "an open dashboard": (
        "aws",
        "ray start --head ",
        "ray start --head --dashboard-host=0.0.0.0 ",
        "error",
        "head_start_ray_commands[1]",
        "opens the dashboard",
    ),
    "an open security group": (
        "aws",
        "  region: us-west-2",
        "  region: us-west-2\n  security_group: {IpPermissions: "
        "[{FromPort: 8265, ToPort: 8265, IpProtocol: tcp, IpRanges: [{CidrIp: 0.0.0.0/0}]}]}",
        "error",
        "provider.security_group.IpPermissions[0]",
        "to the whole internet",
    ),
    "a spot head": (
        "aws",
        "InstanceType: m7i.xlarge",
        "InstanceType: m7i.xlarge\n      InstanceMarketOptions: {MarketType: spot}",
        "error",
        "available_node_types.head",
        "runs on spot",
    ),
    "spot last": (
        "aws",
        "    priority: 0\n    min_workers: 0\n    max_workers: 4",
        "    priority: 20\n    min_workers: 0\n    max_workers: 4",
        "warning",
        "available_node_types.gpu_spot",
        "spot is not preferred to gpu",
    ),
    "an image without version": (
        "aws",
        '"<SET: your image with a tag, see clusters/docker/README.md>"',
        "registry.example/lerobot:latest",
        "warning",
        "docker.image",
        "names no version",
    ),
    "a machine image of old": (
        "aws",
        "      InstanceType: c7i.4xlarge\n      ImageId: *ami\n",
        "      InstanceType: c7i.4xlarge\n",
        "warning",
        "available_node_types.decode_spot.node_config",
        "names no ImageId",
    ),
    "a version without tokens": ("kubernetes", '"2.60.0"', '"2.49.0"', "error", "spec.rayVersion", "2.49.0 knows no"),
    "a number for text": (
        "kubernetes",
        'num-cpus: "0"',
        "num-cpus: 0",
        "error",
        "spec.headGroupSpec.rayStartParams.num-cpus",
        'Write it in quotes: "0".',
    ),
    "a misspelt field of KubeRay": (
        "kubernetes",
        "maxReplicas: 8",
        "maxReplica: 8",
        "error",
        "spec.workerGroupSpecs[0].maxReplica",
        "Did you mean maxReplicas?",
    ),
    "a required field of KubeRay": (
        "kubernetes",
        "      maxReplicas: 8\n",
        "",
        "error",
        "spec.workerGroupSpecs[0]",
        "has no `maxReplicas`",
    ),
    "a misspelt field of a pod": (
        "kubernetes",
        "image: *image",
        "imagee: *image",
        "error",
        "spec.workerGroupSpecs[0].template.spec.containers[0].imagee",
        "Did you mean image?",
    ),
    "an amount that is none": (
        "kubernetes",
        "limits: {cpu: 500m, memory: 512Mi}",
        "limits: {cpu: 500m, memory: 512 MB}",
        "error",
        "spec.autoscalerOptions.resources.limits.memory",
        "must be an amount, not '512 MB'",
    ),
    "a device misspelt": (
        "kubernetes",
        'limits: {cpu: "8", memory: 48Gi, nvidia.com/gpu: "1"}',
        'limits: {cpu: "8", memory: 48Gi, nvidia.com/gpus: "1"}',
        "error",
        "spec.workerGroupSpecs[0].template.spec.containers[0].resources.limits.nvidia.com/gpus",
        "Did you mean nvidia.com/gpu?",
    ),
    "a start option misspelt": (
        "kubernetes",
        '        num-gpus: "0"\n      template',
        '        num-gpu: "0"\n      template',
        "error",
        "spec.workerGroupSpecs[1].rayStartParams.num-gpu",
        "Did you mean num-gpus?",
    ),
    "authentication off": ("kubernetes", "mode: token", "mode: disabled", "error", "spec.authOptions", "is off"),
    "an open service": ("kubernetes", "ClusterIP", "LoadBalancer", "error", "spec.headGroupSpec.serviceType", "opens"),
    "the old autoscaler": ("kubernetes", "    version: v2\n", "", "warning", "spec.autoscalerOptions", "v2"),
    "another kind": ("kubernetes", "kind: RayCluster", "kind: RayClutser", "error", "kind", "Did you mean RayCluster?"),
    "an open dashboard in a script": (
        "slurm",
        "--include-dashboard=false",
        "--dashboard-host=0.0.0.0",
        "error",
        "",
        "opens the dashboard",
    ),
    "no token in a script": ("slurm", "RAY_AUTH_MODE=token ", "", "error", "", "token authentication is off"),
    "a script that does not parse": ("slurm", 'mkdir -p "$run_dir"', 'mkdir -p "$run_dir', "error", "", "not a shell"),
    "a head that works in a script": ("slurm", "--num-cpus=0 ", "", "error", "", "offers CPUs"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name, tmp_path):
    place, old, new, level, field, words = MISTAKES[name]
    source = CLUSTERS / place / ("train.sbatch" if place == "slurm" else "cluster.yaml")
    text = source.read_text()
    assert old in text, "the example has changed: change this case with it"
    path = tmp_path / source.name
    path.write_text(text.replace(old, new, 1))
    found = [line_of(finding, "f") for finding in check(path).of_level(level)]
    wanted = [each for each in found if words in each and (f" {field}:" in each if field else True)]
    assert wanted, found
    if field and not field.endswith("]"):  # the line is that of the field, or of the mapping that lacks it
        number = int(wanted[0].split(":")[1])
        assert field.split(".")[-1].split("[")[0].split("/")[-1] in path.read_text().splitlines()[number - 1]


def check(path: Path) -> Report:
    return check_file(path, ray_check=ray_up_verdict)


def test_several_mistakes_are_all_named_in_order(tmp_path):
    text = (CLUSTERS / "aws" / "cluster.yaml").read_text()
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace("max_workers: 12", "max_worker: 12").replace("ssh_user:", "ssh_usr:"))
    lines = [finding.line for finding in check(path).of_level("error")]
    assert len(lines) == 2
    assert lines == sorted(lines)


def test_spot_alone_is_worth_a_word(tmp_path):
    text = (CLUSTERS / "aws" / "cluster.yaml").read_text()
    start, end = text.index("  gpu:\n"), text.index("  decode_spot:\n")
    path = tmp_path / "cluster.yaml"
    path.write_text(text[:start] + text[end:])
    assert any("spot without a fallback" in finding.message for finding in check(path).of_level("warning"))


def test_merged_mappings_keep_their_lines(tmp_path):
    """What a YAML merge brings in is found where it is written."""
    path = tmp_path / "cluster.yaml"
    text = (CLUSTERS / "azure" / "cluster.yaml").read_text()
    path.write_text(text.replace("imageVersion: latest", 'imageVersion: "<SET: a version>"'))
    found = next(each for each in check(path).of_level("unset") if "a version" in each.message)
    assert "imageVersion" in path.read_text().splitlines()[(found.line or 0) - 1]


def test_words_tell_what_always_runs(tmp_path):
    path = tmp_path / "cluster.yaml"
    text = (CLUSTERS / "aws" / "cluster.yaml").read_text()
    path.write_text(text.replace("min_workers: 0", "min_workers: 1", 1))
    words = "\n".join(check(path).words)
    assert "1 × gpu_spot g6.4xlarge" in words
    assert "1 × gpu_spot always stay" in words
