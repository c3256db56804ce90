"""Native CPU kernels in C++, compiled when the package is installed: rasteriser, loss, and a fit's whole step."""
