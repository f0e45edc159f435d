"""Ray's own verdict on a file for `ray up`."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
from pathlib import Path
from typing import Any


def ray_up_verdict(config: dict[str, Any]) -> tuple[list[Any], str]:
    """What `ray up` would refuse: every error of Ray's schema (jsonschema's), and a line on anything else."""
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    errors = list(validator.iter_errors(config))
    if errors:
        return errors, ""
    logger = logging.getLogger("ray.autoscaler._private.util")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it tells of defaults it fills in
        with contextlib.redirect_stdout(io.StringIO()):  # it talks to a person at a terminal
            validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:  # in what the defaults of a cloud add
        return [error], ""
    except KeyError as error:
        return [], f"{error.args[0]!r} is missing."
    except Exception as error:  # its checks raise what they like
        return [], f"{str(error).strip() or type(error).__name__}"
    finally:
        logger.setLevel(level)
    return [], ""
