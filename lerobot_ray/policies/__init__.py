"""The model plane: what a robot is controlled by, trained as LeRobot trains it and kept in the files LeRobot reads.

Read `protocol`, then `registry`, then one policy, `act/` or `diffusion/`. This module imports nothing; torch comes with
the modules that need it.
"""
