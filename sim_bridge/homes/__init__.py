"""
Procedural homes that language can describe, and the episodes in them; see ``docs/houses.md``.

``plan`` draws rooms and openings, ``furnish`` the furniture, ``mesh`` the ``.glb``, ``routes``
finds shortest paths, ``episodes`` draws and describes routes, ``instruction`` words them,
``dataset`` writes the splits.
"""

from sim_bridge.homes.dataset import SPLITS, ensure_split, first_episodes

__all__ = ["SPLITS", "ensure_split", "first_episodes"]
