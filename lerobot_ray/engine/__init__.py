"""The training loop and what it moves: plain torch, no ray.

Reading order: `loop` and `step` (the loop, one optimizer step), `learner` (their parts), `host` (what the loop asks of
its surroundings), `optim` and `schedule` (config to optimizer and schedule), `parallel` (DDP and FSDP2), then the rest.
"""
