"""Environments a policy acts in. Read `reach`, the small one that ships with the package, then `rollout`.

`make` builds an environment from its config, `keys` and `stage` speak to it in dataset keys, `hosts` and `process` hold
it, `fit` compares it with a policy. `player` is the policy in the middle of an episode, `episode` what happens in one,
`rollout.play` the two together, `summary` what came of it.
"""
