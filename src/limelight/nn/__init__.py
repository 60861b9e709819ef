"""Networks: encoders, cores, heads and action distributions, on two engines."""

from limelight.nn.model import ActorCritic, make_model
from limelight.nn.network import make_network
from limelight.nn.policy import ModelPolicy

__all__ = ["ActorCritic", "ModelPolicy", "make_model", "make_network"]
