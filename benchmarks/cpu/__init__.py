"""exo's CPU kernels beside MLX's own and beside llama.cpp."""
