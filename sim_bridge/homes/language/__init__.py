"""
The language of generator 2: what people say about a route, in a few thousand patterns.

``facts`` works out what is true of a route, ``content`` chooses what to say so that no other route
fits, ``tell`` says it with the patterns of ``phrases`` and the words of ``lexicon``, which
``grammar`` reads; ``variants`` gives a text another form.
"""

from sim_bridge.homes.language.facts import Facts, route_facts
from sim_bridge.homes.language.tell import tell, told
from sim_bridge.homes.language.variants import VARIANTS, varied

__all__ = ["VARIANTS", "Facts", "route_facts", "tell", "told", "varied"]
