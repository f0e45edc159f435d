"""Submitting a run: everything between a command line here and a process that trains elsewhere.

Reading order: `site` (what the machines of a job see), `datasets`, `checkpoints` and `secrets` (what must be there, and
how it gets there), `portable` (the config without what only this machine has), `run_file` (how it travels). A Ray
cluster: `ray_job` (a run ready to be submitted), `ray_site` (the cluster it goes to), `ray_plan` (from a command line),
`notes` and `again` (what is kept of a job, and the one that continues it), `follow` (watching). `hub_job` (Hugging Face
Jobs), `command` (what a person types).
"""
