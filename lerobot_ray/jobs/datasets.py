"""The dataset of a job: where it is, whether the job's machines see it there, and if not, how it gets to them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from lerobot_ray.config.dataset import DatasetConfig
from lerobot_ray.core.errors import DatasetError, StorageError
from lerobot_ray.core.layout import INFO_PATH
from lerobot_ray.data.metadata import check_files, open_metadata
from lerobot_ray.data.storage import lerobot_home
from lerobot_ray.hub.client import token
from lerobot_ray.hub.dataset import push_dataset
from lerobot_ray.jobs import hub_repo
from lerobot_ray.jobs.site import Site, is_url


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """How a job gets at its dataset."""

    config: DatasetConfig
    """As the job sees it."""
    says: str
    """For the person who submits."""
    push: Path | None = None
    """A folder of this machine to push privately to the Hub first."""
    copy: tuple[Path, str] | None = None
    """A folder of this machine, and the URL or other folder it is copied to first."""
    on_hub: bool = False
    """The job reads it from the Hub."""


def plan_dataset(dataset: DatasetConfig, site: Site, *, storage: str | None, shared: str | None = None) -> DatasetPlan:
    """`storage`: URL of an object store that the job's machines read; `shared`: a folder they see, and perhaps this
    machine too (`job.mounts`). Changes nothing; DatasetError when the job could not get at the dataset."""
    local = local_copy(dataset, site)
    if local is None:
        return _elsewhere(dataset, site)
    check_local(dataset, local)
    there = site.path_there(local)
    if there is not None:
        where = "in place" if site.is_here else f"as {there} there"
        return DatasetPlan(config=replace(dataset, root=there), says=f"dataset: {local}, {where}")
    if dataset.root is None and _is_on_hub(dataset):
        return _from_hub(dataset)
    if shared is not None and Path(shared).is_dir() and site.path_there(shared) is not None:
        folder = Path(shared) / "datasets" / dataset.repo_id
        if not folder.exists():
            return DatasetPlan(
                config=replace(dataset, root=site.path_there(folder), revision=None),
                copy=(local, str(folder)),
                says=f"dataset: {local} is only here and is copied to {folder}",
            )
    if storage is not None:
        url = f"{storage.rstrip('/')}/datasets/{dataset.repo_id}"
        return DatasetPlan(
            config=replace(dataset, root=url, revision=None),
            copy=(local, url),
            says=f"dataset: {local} is only here and is copied to {url}",
        )
    if "/" in dataset.repo_id and token():
        plan = DatasetPlan(
            config=replace(dataset, root=None, revision=None),
            push=local,
            on_hub=True,
            says=f"dataset: {local} is only here and is pushed, privately, to the Hub as {dataset.repo_id}",
        )
        if _is_on_hub(dataset):
            raise DatasetError(
                f"dataset.root={dataset.root} is only on this machine, and the Hub has a dataset {dataset.repo_id} "
                "already, which may be another. Leave out --dataset.root to train on that one, or give this one "
                "another --dataset.repo_id."
            )
        return plan
    raise DatasetError(
        f"{local} is only on this machine, and {site.name} does not see it. Log in to the Hub (hf auth login) to have "
        "it pushed privately, give an object store as --job.upload_to=s3://…, or say where the job sees that "
        "folder: "
        '--job.mounts=\'{"/here": "/there"}\'.'
    )


def make_available(plan: DatasetPlan, *, tags: list[str] | None = None) -> None:
    """Does what the plan says."""
    if plan.push is not None:
        push_dataset(plan.push, plan.config.repo_id, private=True, tags=tuple(tags or ()))
    if plan.copy is not None:
        copy_folder(*plan.copy)


def local_copy(dataset: DatasetConfig, site: Site) -> Path | None:
    """The folder of this machine that the run would train on; None when it is elsewhere."""
    if is_url(dataset.root):
        return None
    if dataset.root is not None:
        folder = Path(dataset.root).expanduser().absolute()
        if folder.is_dir():
            return folder
        if site.is_here:
            raise DatasetError(
                f"{dataset.repo_id}: there is no folder {folder}. Correct dataset.root, or leave it out."
            )
        return None
    recorded = lerobot_home() / dataset.repo_id
    return recorded if dataset.revision is None and (recorded / INFO_PATH).is_file() else None


def check_local(dataset: DatasetConfig, folder: Path) -> None:
    """DatasetError unless it can be read and is whole."""
    check_files(open_metadata(dataset.repo_id, root=folder))


def copy_folder(folder: Path, url: str) -> None:
    """Every file of a folder below another one, or below a URL of an object store; keys come from the environment."""
    import pyarrow.fs as pafs

    try:
        if not is_url(url):
            shutil.copytree(folder, url)
            return
        target, base = pafs.FileSystem.from_uri(url)
        pafs.copy_files(str(folder), base, destination_filesystem=target)
    except (OSError, ValueError, NotImplementedError) as error:
        raise StorageError(f"{folder} cannot be copied to {url}: {error}") from error


def _elsewhere(dataset: DatasetConfig, site: Site) -> DatasetPlan:
    if is_url(dataset.root):
        return DatasetPlan(config=dataset, says=f"dataset: {dataset.root}")
    if dataset.root is not None:
        return DatasetPlan(
            config=dataset,
            says=f"dataset: {dataset.root} is not on this machine and is taken for a folder of {site.name}",
        )
    if not _is_on_hub(dataset):
        raise DatasetError(
            f"there is no dataset {dataset.repo_id}: not in {lerobot_home() / dataset.repo_id}, and not on the Hub for "
            "this account. Correct dataset.repo_id, log in (hf auth login), or give dataset.root."
        )
    return _from_hub(dataset)


def _from_hub(dataset: DatasetConfig) -> DatasetPlan:
    return DatasetPlan(
        config=replace(dataset, root=None), says=f"dataset: {dataset.repo_id}, from the Hub", on_hub=True
    )


def _is_on_hub(dataset: DatasetConfig) -> bool:
    """Whether the Hub has it. A name that cannot be a repository's is not asked for."""
    if dataset.repo_id.count("/") != 1:
        return False
    return hub_repo.is_visible(dataset.repo_id, kind="dataset")
