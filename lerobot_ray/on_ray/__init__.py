"""Where Ray comes in. Everything below this folder runs without it, and only this folder imports it.

Reading order: `trainer` (the driver: from a config to an exit code), `run_setup` (what a run is), `plan_run` with
`run_samples` and `pretrained` (how that is settled before it starts), `cluster` and `run_folder` (where it runs,
where it writes), `capacity` and `waiting` (what a cluster may become, what a run waits for), `fit` (Ray Train as it
is used), `ending` (what is said at the end), `worker` (one training process, wired), `build_learner` and
`rank_stream` (its model, its samples), `beside` (what happens beside its steps), `train_host` and `board` (how
workers and driver talk), then the stream: `framing` (a block as one message), `decode` (in an actor), `placement` (on
which node), `segment` (one execution of Ray Data), `ingest` (a rank's blocks, in order). `stats` counts a dataset's
statistics as a job.
"""
