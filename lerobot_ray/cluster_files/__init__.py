"""Checks the files that start clusters (`ray up`, KubeRay, Slurm scripts) and says in words what they will do.

Reading order: `check` (one file: what kind, which checks), `source` (YAML with line numbers), `findings` (a remark),
`schema` (from a JSON schema's verdict to words), then the kinds: `ray_up`, `kuberay` with `kuberay_schema`, `script`.
The first two make a `plan`, what will be started; `rules` judges by it what every cluster of ours needs, `explain`
tells it in words.
"""

from lerobot_ray.cluster_files.check import Report, check_file
from lerobot_ray.cluster_files.findings import Finding, line_of

__all__ = ["Finding", "Report", "check_file", "line_of"]
