"""Layers: weights packed ahead and plans kept, for any batch and image size."""
