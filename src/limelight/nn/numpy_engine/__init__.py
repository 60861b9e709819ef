"""The written-out NumPy engine: small networks and heads without autograd."""
