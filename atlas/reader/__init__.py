"""Reading a published dataset for training."""
