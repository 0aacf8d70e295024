"""``nnpack bench``: single layers of well-known networks, ours against every installed peer."""
