"""A run's config on disk, in two files side by side.

`train_config.json` holds exactly the keys that LeRobot 0.6.1 accepts, because its parser refuses any other.
`lerobot_ray.json` holds the rest: our settings, those of newer LeRobot versions, and values that LeRobot's types have
no room for. Both together are the config; `train_config.json` alone, as LeRobot writes it, is one with our defaults.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot_ray.config.decode import decode, is_choice, members, type_hints
from lerobot_ray.config.encode import encode
from lerobot_ray.config.marks import is_own, value_in_lerobot
from lerobot_ray.config.origin import Origin
from lerobot_ray.config.text import read_json, read_yaml
from lerobot_ray.config.train import TrainConfig
from lerobot_ray.core.errors import ConfigError
from lerobot_ray.core.layout import OWN_CONFIG_NAME, TRAIN_CONFIG_NAME

FORMAT_KEY, FORMAT = "format", 1
_RABC = {"progress_path": None, "kappa": None, "epsilon": None, "head_mode": None}


def save_train_config(config: TrainConfig, folder: Path | str) -> None:
    """Writes both files into `folder`."""
    theirs, own = split(TrainConfig, encode(config))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((TRAIN_CONFIG_NAME, theirs), (OWN_CONFIG_NAME, {FORMAT_KEY: FORMAT, **own})):
        (folder / name).write_text(json.dumps(values, indent=4), encoding="utf-8")


def load_train_config(path: Path | str) -> TrainConfig:
    """The config of a folder that holds both files, of a `train_config.json`, or of one JSON or YAML file."""
    path = Path(path)
    values, origin = read_config_file(path / TRAIN_CONFIG_NAME if path.is_dir() else path)
    return decode(TrainConfig, values, origin=origin)


def read_config_file(file: Path) -> tuple[dict[str, Any], Origin]:
    """The raw values of a config file, with those of the `lerobot_ray.json` beside a `train_config.json`."""
    values, origin = migrate(_read_mapping(file)), Origin(file=str(file))
    own_file = file.with_name(OWN_CONFIG_NAME)
    if file.name != TRAIN_CONFIG_NAME or not own_file.is_file():
        return values, origin
    own = _read_mapping(own_file)
    if own.pop(FORMAT_KEY, FORMAT) != FORMAT:
        raise ConfigError(f"{own_file} was written by a newer version of lerobot_ray. Update the package to read it.")
    merged, own_places = merge(TrainConfig, values, own)
    return merged, Origin(file=str(file), elsewhere=dict.fromkeys(own_places, str(own_file)))


def split(kind: type, encoded: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what LeRobot's file holds, what ours holds) of an encoded config section."""
    theirs: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = encoded[field.name]
        section = _section(kind, field.name)
        if is_own(field):
            own[field.name] = value
        elif section is not None and value is not None:
            theirs[field.name], inner = split(section, value)
            own.update({field.name: inner} if inner else {})
        else:
            theirs[field.name] = value_in_lerobot(field, value)
            own.update({field.name: value} if theirs[field.name] != value else {})
    return theirs, own


def merge(
    kind: type, theirs: Mapping[str, Any], own: Mapping[str, Any], path: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """(what `split` took apart, put together; the places that are `own`'s). Nothing is checked yet."""
    merged, places = dict(theirs), []
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key, value in own.items():
        is_shared = key in fields and not is_own(fields[key])
        section, beside = _section(kind, key) if is_shared else None, theirs.get(key)
        if section is not None and isinstance(value, Mapping) and isinstance(beside, Mapping):
            merged[key], below = merge(section, beside, value, (*path, key))
            places += below
        else:
            merged[key] = value
            places.append((*path, key))
    return merged, places


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Settings under the names that LeRobot gave them before 0.6: `use_rabc` and `rabc_*`."""
    if not any(key == "use_rabc" or key.startswith("rabc_") for key in values):
        return values
    rest = {key: value for key, value in values.items() if key != "use_rabc" and key.removeprefix("rabc_") not in _RABC}
    if values.get("use_rabc"):
        options = {name: values[f"rabc_{name}"] for name in _RABC if f"rabc_{name}" in values}
        rest["sample_weighting"] = {"type": "rabc", **options}
    return rest


def _section(kind: type, name: str) -> type | None:
    """The config class of a field that is a plain section, not one of several kinds."""
    for part in members(type_hints(kind)[name]):
        if dataclasses.is_dataclass(part) and isinstance(part, type) and not is_choice(part):
            return part
    return None


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{file} is not there.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from error
    values = read_json(text, name=str(file)) if file.suffix == ".json" else read_yaml(text, name=str(file))
    if not isinstance(values, dict):
        raise ConfigError(f"{file} does not hold settings: expected a mapping at the top.")
    return values
