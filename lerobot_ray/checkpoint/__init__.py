"""Checkpoints on disk: LeRobot's layout, written beside training, committed whole, loaded on any number of workers.

Reading order: `commit` and `retention` (which folders there are), `state` (where a run stands), `tensors`, `snapshot`
(the copy between two steps), `save` (its files; `optimizer` and `rng` are formats of theirs), `writer` (the thread),
`find` and `load` (the way back).
"""
