"""`urban`: geo-tile datasets, multimodal urban representations and an honest benchmark of them."""

__version__ = "0.1.0"
