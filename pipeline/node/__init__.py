"""What a machine can do: kernels, GPUs, compilers."""
