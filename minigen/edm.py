"""The design space of diffusion models."""
