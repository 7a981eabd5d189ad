"""Measuring a checkpoint: figures with their protocol."""
