"""exo joins the devices a person owns into one AI endpoint."""

__version__ = "0.1.0"
