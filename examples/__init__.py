"""Train and sample a diffusion model of atlases: `python -m gaussianverse.examples.train_atlas --help`."""
