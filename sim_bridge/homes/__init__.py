"""
Procedural homes that language can describe, and the episodes in them; see ``docs/houses.md``.

``plan`` draws rooms and openings, ``furnish`` the furniture, ``mesh`` the ``.glb``, ``routes``
finds shortest paths, ``episodes`` draws and describes routes, ``instruction`` (generator 1) and
``language`` (generator 2) word them, ``dataset`` writes the splits.
"""

from sim_bridge.homes.dataset import SPLITS, check_generator, ensure_split, first_episodes

__all__ = ["SPLITS", "check_generator", "ensure_split", "first_episodes"]
