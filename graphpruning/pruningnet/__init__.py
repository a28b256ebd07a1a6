"""Weights for a sub-network of any width, generated from aggregated features."""
