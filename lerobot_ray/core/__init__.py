"""The words everything else is written in. Read `types`, then `errors`, then `layout`. Nothing heavy at import time."""
