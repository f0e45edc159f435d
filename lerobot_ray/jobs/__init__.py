"""Submitting a run: everything between a command line here and a process that trains elsewhere.

Reading order: `site` (what is known about the machines of a job), `datasets`, `checkpoints` and `secrets` (what must be
there, and how it gets there), `portable` (the config without what only this machine has), `run_file` (how it travels),
`ray_job` (a job server), `follow` (watching), `hub_job` (Hugging Face Jobs), `command` (what a person types).
"""
