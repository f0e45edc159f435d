"""Checkpoints, policies and datasets on the Hub.

Reading order: `client` (one call, tried again), `content` (what a repository holds, by digest), `upload` (files in one
commit), `push` (a checkpoint with its tag, a finished policy), `pusher` (the thread beside training), `preflight` (what
is refused before it starts), `card` and `curve` (the page of a policy), `fetch` (the way back), `dataset`.
"""
