"""Ray Data's own lasting actors, kept on the driver's node.

Ray Data has a few actors per cluster that need no resources and live for ever, on the node of whoever executes a
dataset first. That would be a training process: its node is then never idle, and no autoscaler ends it. They are looked
up by name, so whoever makes them first decides where they are. `tests/on_ray/test_autoscaling.py` fails when a new one
appears.
"""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def keep_lasting_actors_here() -> None:
    """On the driver, before training processes start: make them on its node unless the cluster has them."""
    try:
        from ray._common.usage.usage_lib import usage_stats_enabled
        from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator
        from ray.data._internal.execution.node_trackers import actor_location
        from ray.data._internal.stats import get_or_create_stats_actor
        from ray.data._internal.usage import actor as usage

        get_or_create_stats_actor()
        actor_location.get_or_create_actor_location_tracker()
        default_autoscaling_coordinator.get_or_create_autoscaling_coordinator()
        if usage_stats_enabled():
            usage.get_or_create_usage_collection_actor()
    except (ImportError, AttributeError) as error:  # they are Ray's own affair and may move
        logger.warning("nodes that train may not be seen as idle after the run, so that nothing ends them: %s", error)
