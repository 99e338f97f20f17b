"""What the benchmarks share: measuring in turn, real activations, quality on the same tokens."""
