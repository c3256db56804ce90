"""Training and sampling a diffusion model of atlases; run as `python -m examples.train_atlas --help`."""
