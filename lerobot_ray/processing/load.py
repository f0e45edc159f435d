"""Reads a saved pipeline back, with settings of the caller's in place of saved ones.

Everything that can be wrong with the file is found before the first step is built; unknown steps are named together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import ProcessorError, nearest
from lerobot_ray.processing.pipeline import Pipeline
from lerobot_ray.processing.source import Source, open_source
from lerobot_ray.processing.step import class_at, step_class, step_names, unknown_step
from lerobot_ray.processing.tokenize import load_tokenizer

Overrides = Mapping[str, Mapping[str, Any]]
"""Registry or class name of a step -> constructor arguments that replace saved ones."""


def load_pipeline(
    pretrained: str | Path, name: str, *, revision: str | None = None, overrides: Overrides | None = None
) -> Pipeline:
    """The pipeline saved as `<name>.json` in a folder or Hub repository, or the JSON file given directly.

    `overrides` must name steps the file has. Statistics given there win over the saved ones.
    """
    source, file_name = open_source(pretrained, name, revision)
    document = read_document(source.require(file_name))
    where = f"{source.place}/{file_name}"
    check_overrides(document, overrides or {}, where)
    steps = [_build(entry, _override(entry, overrides or {}), source, where) for entry in document["steps"]]
    return Pipeline(steps, name=document.get("name", name))


def read_document(path: Path) -> dict[str, Any]:
    """The parsed file, its shape checked and every step in it known."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProcessorError(f"{path} is not JSON: {error}.") from None
    steps = document.get("steps") if isinstance(document, dict) else None
    if not isinstance(steps, list) or not all(isinstance(entry, dict) for entry in steps):
        raise ProcessorError(f'{path} does not describe a pipeline: expected {{"name": …, "steps": [{{…}}, …]}}.')
    if unknown := [problem for entry in steps if (problem := unknown_step(entry))]:
        raise ProcessorError(
            f"{path} has steps this package does not know: {', '.join(unknown)}. Install the package they come with, "
            "register them with lerobot_ray.processing.register_step, or, for a policy that LeRobot brings, install "
            f"lerobot-ray[lerobot]. Known: {', '.join(step_names())}."
        )
    return document


def check_overrides(document: Mapping[str, Any], overrides: Overrides, where: str) -> None:
    """Raises ProcessorError for an override whose step the file does not have."""
    present = list(dict.fromkeys(name for entry in document["steps"] for name in entry_names(entry)))
    for name in overrides:
        if name not in present:
            near = nearest(name, present)
            hint = f" Did you mean {near}?" if near else ""
            raise ProcessorError(f"{where} has no step {name} to override.{hint} It has {', '.join(present)}.")


def entry_names(entry: Mapping[str, Any]) -> list[str]:
    """What overrides may call a step of a file: its registry name, or its class's name and that of our own class."""
    if name := entry.get("registry_name"):
        return [name]
    path = str(entry.get("class", ""))
    ours = getattr(class_at(path), "registry_name", "")
    return [path.rpartition(".")[2], *([ours] if ours else [])]


def _override(entry: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in entry_names(entry):
        merged.update(overrides.get(name, {}))
    return merged


def _build(entry: Mapping[str, Any], override: Mapping[str, Any], source: Source, where: str) -> Any:
    name = entry_names(entry)[-1]
    found = step_class(entry["registry_name"]) if entry.get("registry_name") else class_at(entry["class"])
    assert found is not None, name  # read_document refused it otherwise
    arguments = {**(entry.get("config") or {}), **override}
    folder = _artifact_folder(entry, source)
    if folder and name == "tokenizer_processor" and not {"tokenizer", "tokenizer_name"} & set(override):
        arguments["tokenizer"] = load_tokenizer(folder)
    try:
        step = found(**arguments)
    except TypeError as error:
        raise ProcessorError(f"{where}, step {name}: {error}. Its config is {sorted(arguments)}.") from None
    replaced = any(override.get(argument) is not None for argument in getattr(found, "state_arguments", ("stats",)))
    if (state_file := entry.get("state_file")) and not replaced:
        step.load_state_dict(_load_tensors(source.require(state_file)))
    return step


def _load_tensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ProcessorError(f"{path} is not a whole safetensors file: {error}.") from None


def _artifact_folder(entry: Mapping[str, Any], source: Source) -> str | None:
    """A tokenizer's folder beside the pipeline, named in `artifacts` by later versions of LeRobot. Local ones only."""
    for folder in (entry.get("artifacts") or {}).values():
        if isinstance(folder, str) and (Path(source.place) / folder).is_dir():
            return str(Path(source.place) / folder)
    return None
