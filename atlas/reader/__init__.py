"""Read a published dataset for training."""
