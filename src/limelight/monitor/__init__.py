"""What is seen and kept of a run while it trains: the console, metrics.jsonl, TensorBoard, monitor.csv.

Each logger has a module of its own; train.py makes them and runners speak to :class:`Loggers` only.
"""

from limelight.monitor.logger import Logger, Loggers

__all__ = ["Logger", "Loggers"]
