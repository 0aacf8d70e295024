"""Code generation: vector code for the machine at hand. Knows no convolution."""
