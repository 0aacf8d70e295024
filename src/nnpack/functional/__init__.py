"""The layers of a network as functions: arguments -> problem -> plan -> one native call."""
