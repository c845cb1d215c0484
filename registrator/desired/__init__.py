"""Turns containers into services: what should stand in every registry."""
