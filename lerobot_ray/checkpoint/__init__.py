"""Checkpoints on disk: LeRobot's layout, committed as a whole. Read `commit`, then `retention`, then the state files."""
