"""
The colours that instructions can name: saturated ones for objects, lighter ones for walls, so that
a red lamp shows before a red wall.
"""

OBJECT_RGB: dict[str, tuple[int, int, int]] = {
    "red": (214, 24, 24),
    "orange": (250, 130, 10),
    "yellow": (250, 226, 30),
    "green": (20, 140, 40),
    "turquoise": (10, 200, 190),
    "blue": (20, 60, 215),
    "purple": (120, 30, 165),
    "pink": (250, 95, 180),
    "brown": (105, 58, 22),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
"""Colour of an object by its name, 8 bit RGB."""

WALL_RGB: dict[str, tuple[int, int, int]] = {
    "red": (206, 92, 88),
    "orange": (232, 168, 98),
    "yellow": (236, 222, 126),
    "green": (118, 182, 112),
    "turquoise": (122, 212, 206),
    "blue": (112, 146, 216),
    "purple": (164, 120, 196),
    "pink": (240, 172, 204),
    "brown": (150, 116, 86),
    "white": (232, 230, 224),
    "grey": (140, 142, 146),
}
"""Colour of the walls of a room by its name, 8 bit RGB."""


def shaded(rgb: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    """
    ``rgb`` made darker (``factor`` < 1), 8 bit; houses are rendered without lights, so faces carry
    their own shade.
    """
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in rgb)
    return red, green, blue
