"""Algorithms: each a value that says what it can do, what it costs, and how it is done."""
