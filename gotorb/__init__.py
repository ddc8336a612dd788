"""gotorb: a survey's own images in, a trusted real/bogus classifier out."""

__version__ = "0.1.0"
