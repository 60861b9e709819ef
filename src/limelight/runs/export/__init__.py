"""An agent as one file that other programs load: a network from raw observations to the environment's actions."""
