"""ACT (Zhao et al., 2023): a transformer that predicts a chunk of actions, trained as the decoder of a VAE.

Reading order: `config`, `policy` (loss and action selection), `model` (the network), `transformer` (its layers).
"""
