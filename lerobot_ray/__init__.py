"""Train LeRobot policies on LeRobot datasets, on one laptop or a Ray cluster, with the same command.

Reading order: `core` (words), `config` (one run), `data` (samples in order), `policies` and `processing` (the model),
`checkpoint`, `engine` (the loop), `on_ray` (the cluster). Importing this package imports none of them.
"""

__version__ = "0.1.0.dev0"
