"""Recipes, batches from trajectories, the trainer."""
