"""hushtune: fine-tune a small language model on private text, and release it only when the evidence says so."""

__version__ = "0.1.0"
