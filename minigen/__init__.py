"""minigen: generative models where every formula stands once, tested against an exact answer."""

__version__ = "0.1.0"
