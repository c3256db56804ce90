"""Checks of a machine: kernels, GPUs, compilers."""
