"""Networks: encoders → cores → heads, put together in model.ActorCritic."""
