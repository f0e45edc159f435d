"""Where numbers over time go: a file beside the results always, MLflow and Weights & Biases if wanted.

Reading order: `protocol` (what a tracker is), `build` (from a config to the trackers of a run), `guarded` (why none of
them can stop or slow training), then the trackers: `jsonl` (read back by `metric_log`), `mlflow`, `wandb`.
"""
