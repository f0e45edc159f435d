"""Diffusion policy (Chi et al., 2023): actions are denoised by a U-Net over time, given what was observed.

Reading order: `config`, `policy` (loss and action selection), `model` (conditioning and sampling), `unet`, `vision`,
`schedule`.
"""
