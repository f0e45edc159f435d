"""Small trained adapters on frozen pretrained policies, by any method of the `peft` library, in LeRobot's files.

Reading order: `files` (what an adapter's folder holds), `targets` (which modules), `method` (settings to a `peft`
config), `attach` (an adapter on a policy, its weights), `plan` (what a run trains), `load` (base plus adapter, merged).
"""
