"""`clusters/aws/cluster.yaml` against an EC2 on loopback: what `ray up` prepares, and the machines it would start."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "clusters" / "aws" / "cluster.yaml"


@pytest.fixture
def ec2(monkeypatch, tmp_path):
    """A boto3 client of a moto server; Ray's own clients go there too."""
    server_module = pytest.importorskip("moto.server")
    import boto3

    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair is written to ~/.ssh
    (tmp_path / ".ssh").mkdir()
    yield boto3.client("ec2", region_name="us-west-2")
    server.stop()


@pytest.mark.slow
def test_what_ray_up_would_start(ec2, monkeypatch):
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    text = CLUSTER.read_text()
    image = ec2.describe_images()["Images"][0]["ImageId"]
    config = yaml.safe_load(text)
    for body in config["available_node_types"].values():
        body["node_config"]["ImageId"] = image
    with monkeypatch.context() as patched:  # Ray waits a while, twice, until all of AWS knows of a new role
        patched.setattr("ray.autoscaler._private.aws.config.time", SimpleNamespace(sleep=lambda _: None))
        config = _bootstrap_config(config, no_config_cache=True)

    groups = ec2.describe_security_groups()["SecurityGroups"]
    ours = next(group for group in groups if group["GroupName"].startswith("ray-autoscaler"))
    from_outside = [rule for rule in ours["IpPermissions"] if rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [(22, 22)], "SSH and nothing else"
    assert os.listdir(Path.home() / ".ssh"), "a key to log in with"
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}

    provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    for name in ("head", "gpu_spot", "gpu", "decode_spot"):
        kind = "head" if name == "head" else "worker"
        tags = {"ray-node-type": kind, "ray-node-status": "uninitialized", "ray-user-node-type": name}
        provider.create_node(config["available_node_types"][name]["node_config"], tags, 1)
    machines = [
        machine for reservation in ec2.describe_instances()["Reservations"] for machine in reservation["Instances"]
    ]
    found = {
        next(tag["Value"] for tag in machine["Tags"] if tag["Key"] == "ray-user-node-type"): machine
        for machine in machines
    }
    assert {name: machine["InstanceType"] for name, machine in found.items()} == {
        "head": "m7i.xlarge",
        "gpu_spot": "g6.4xlarge",
        "gpu": "g6.4xlarge",
        "decode_spot": "c7i.4xlarge",
    }
    assert [name for name, machine in sorted(found.items()) if machine.get("InstanceLifecycle") == "spot"] == [
        "decode_spot",
        "gpu_spot",
    ]
    running = provider.non_terminated_nodes({})
    assert len(running) == 4
    provider.terminate_nodes(running)
    assert provider.non_terminated_nodes({}) == []
