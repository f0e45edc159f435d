"""Checkpoints on disk: LeRobot's layout, committed as a whole. Read `commit`, `retention`, then the state files."""
