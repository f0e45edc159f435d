"""A saved adapter as a policy to run: its base with the adapter on it, or both merged into one whole policy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lerobot_ray.core.errors import PolicyError
from lerobot_ray.core.layout import ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME, POSTPROCESSOR_NAME, PREPROCESSOR_NAME
from lerobot_ray.policies.adapters.attach import adapter_of, is_quantised, without_adapter
from lerobot_ray.policies.adapters.files import holds_adapter, write_settings
from lerobot_ray.policies.adapters.plan import build_adapted, plan_adapter
from lerobot_ray.policies.config_file import policy_folder, read_config
from lerobot_ray.policies.weights import save_weights


def load_adapted(config: Any, **build: Any) -> Any:
    """The policy of a config with `use_peft`, whose `pretrained_path` is the adapter's: base plus adapter, to run."""
    path = config.pretrained_path
    if not path or not holds_adapter(path, revision=config.pretrained_revision):
        raise PolicyError(
            f"policy.use_peft says that weights are an adapter's, and {path or 'policy.pretrained_path'} holds no "
            f"{ADAPTER_CONFIG_NAME}. Name the adapter's folder."
        )
    plan = plan_adapter(config, None)
    assert plan is not None
    return build_adapted(config, plan, loads_weights=True, **build).eval()


def merge_adapter(folder: str | Path, into: str | Path) -> Path:
    """Writes the adapter's base with the adapter added to its weights as a whole policy, processors beside it.

    What comes out needs neither `peft` nor the base. PolicyError for a quantised base, whose weights would round the
    adapter away, and for methods that `peft` cannot add to weights.
    """
    place, into = policy_folder(folder), Path(into)
    if into.exists() and any(into.iterdir()):
        raise PolicyError(f"{into} is not empty. Name another folder for the merged policy.")
    config = read_config(place)
    config.pretrained_path = str(place)
    policy = load_adapted(config)
    if is_quantised(policy):
        raise PolicyError(
            f"the base of {place} is quantised: added to its weights, the adapter would be rounded away. Run it as "
            "base plus adapter, or merge into the base as it was before."
        )
    adapter = adapter_of(policy)
    assert adapter is not None
    try:
        merged: Any = without_adapter(policy)
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise PolicyError(f"{adapter.settings['peft_type']} adapters cannot be merged: {error}.") from error
    merged.config.use_peft, merged.config.pretrained_path = False, None
    merged.save_pretrained(into)
    for path in place.iterdir():
        if path.name.startswith((PREPROCESSOR_NAME, POSTPROCESSOR_NAME)):
            shutil.copyfile(path, into / path.name)
    return into


def save_adapter(policy: Any, folder: Path, state_dict: Any = None) -> None:
    """The adapter's two files, as they are in a checkpoint."""
    adapter = adapter_of(policy)
    assert adapter is not None
    write_settings(adapter.settings, folder)
    save_weights(adapter.weights() if state_dict is None else state_dict, folder / ADAPTER_WEIGHTS_NAME)
