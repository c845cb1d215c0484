"""The commands besides the agent, one module each. Each reads its registries once, and ends."""
