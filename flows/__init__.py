"""Prefect flows around `pipeline/`: order, states, artifacts, live progress. No mathematics."""
