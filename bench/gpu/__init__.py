"""`make bench-gpu`: parity, speed and quality of the GPU profiles."""
