"""Every file in clusters/ is right, and says what it will start."""

from __future__ import annotations

from pathlib import Path

import pytest

from lerobot_ray.cluster import main
from lerobot_ray.cluster_files import check_file
from lerobot_ray.on_ray.ray_up_schema import ray_up_verdict

CLUSTERS = Path(__file__).parents[2] / "clusters"
FILES = sorted(path for path in CLUSTERS.rglob("*") if path.suffix in (".yaml", ".sbatch", ".sh"))
WORDS = {
    "aws/cluster.yaml": ["gpu_spot: up to 4 g6.4xlarge", "gpu: up to 4", "when gpu_spot cannot be had", "token only"],
    "gcp/cluster.yaml": ["decode_spot: up to 8 n2-standard-16 (16 CPUs each), decodes, spot", "only the head stays"],
    "azure/cluster.yaml": ["gpu_spot: up to 4 Standard_NV36ads_A10_v5 (36 CPUs, 1 GPU each), trains, spot"],
    "kubernetes/cluster.yaml": ["gpu: up to 8 (8 CPUs, 1 GPU each), trains", "decode after 2 minutes", "/shared"],
    "kubernetes/job.yaml": ["the cluster goes when the job ends", "up to 2 more times if it fails"],
    "slurm/train.sbatch": ["2 nodes, 4 GPUs each, 32 CPUs each", "never"],
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CLUSTERS)))
def test_a_file_of_ours_is_right(path):
    report = check_file(path, ray_check=ray_up_verdict)
    assert [finding for finding in report.findings if finding.level != "unset"] == []
    assert len(report.of_level("unset")) <= 4, "few parameters to set"
    for words in WORDS.get(str(path.relative_to(CLUSTERS)), []):
        assert words in "\n".join(report.words)


def test_every_place_has_files():
    places = {path.name for path in CLUSTERS.iterdir() if path.is_dir()}
    assert places == {"aws", "gcp", "azure", "kubernetes", "slurm", "one-machine", "docker"}
    assert {name.split("/")[0] for name in WORDS} | {"one-machine", "docker"} == places


def test_a_file_with_its_parameters_set_is_ready(tmp_path, capsys):
    text = (CLUSTERS / "aws" / "cluster.yaml").read_text()
    assert main(["check", str(CLUSTERS / "aws" / "cluster.yaml")]) == 1
    assert "cluster.yaml:25: docker.image: yours to set" in capsys.readouterr().out
    assert main(["check", "--template", str(CLUSTERS / "aws" / "cluster.yaml")]) == 0
    for mark, value in (
        ("<SET: your image with a tag, see clusters/docker/README.md>", "registry.example/lerobot:1"),
        ("<SET: an AMI of the region with Docker and the NVIDIA driver, ami-…>", "ami-1"),
        ("<SET: DNS name of an EFS file system, fs-….efs.us-west-2.amazonaws.com>", "fs-1.efs.example"),
    ):
        assert mark in text
        text = text.replace(mark, value)
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    capsys.readouterr()
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "starts   the head m7i.xlarge: no training and no decoding" in out
    assert out.endswith("cluster.yaml: right\n")


def test_a_file_of_no_known_kind(tmp_path, capsys):
    path = tmp_path / "other.yaml"
    path.write_text("a: 1\n")
    assert main(["check", str(path)]) == 2
    assert "neither a file for `ray up`" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "absent.yaml")]) == 2
