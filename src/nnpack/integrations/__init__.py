"""Other libraries' networks, run by this one; each needs an extra of its own."""
