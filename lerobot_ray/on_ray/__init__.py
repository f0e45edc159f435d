"""Where Ray comes in. Everything below this folder runs without it, and only this folder imports it.

Reading order: `framing` (a block of the stream as one message), `ingest` (a plan through Ray Data, in order), `stats`
(a dataset's statistics as a job).
"""
