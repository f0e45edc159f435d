"""Checkpoints on disk: LeRobot's layout, written beside training, committed whole, loaded on any number of workers.

Reading order: `commit` and `retention` (which folders there are), `state` (where a run stands), `tensors`, `snapshot`
(the copy between two steps), `save` (its files; `optimizer` and `rng` are formats of theirs), `writer` (the thread),
`find` and `load` (the way back, with `saved`: tensors in files). In parts, written by all ranks: `shares`, `together`,
`sharded`; made whole: `assemble`, `convert`.
"""
