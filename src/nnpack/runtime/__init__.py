"""Running plans: the native executor, its workers, and recycled memory. Knows no convolution."""
