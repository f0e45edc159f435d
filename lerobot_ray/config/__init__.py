"""One run, described: frozen dataclasses, the command line and the files they are read from.

Reading order: `train` (the root, and the checks across sections), its sections (`dataset`, `policy`, `optim`,
`parallel`, `ray`, …), then how they are read and written: `decode`, `parse`, `files`. Imports neither torch nor ray.
"""
