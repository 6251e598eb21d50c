"""
Furniture: what stands in a home, of which colour, and where.

Things stand against walls or free in a room, leave 0.65 m passages and the openings clear, and
every (colour, kind) occurs once in a home.
"""

from dataclasses import dataclass, replace

import numpy as np

from sim_bridge.homes.colours import OBJECT_RGB
from sim_bridge.homes.plan import PASSAGE_M, Plan, Rect, Room, door_zone, gap


@dataclass(frozen=True)
class Kind:
    """
    A kind of thing: its ``size`` (width along the wall, depth, height, metres), and where it
    stands.

    ``place`` is "wall" or "free"; ``weight`` is how often it is drawn.
    """

    name: str
    size: tuple[float, float, float]
    place: str
    weight: float = 1.0


KINDS: tuple[Kind, ...] = (
    Kind("lamp", (0.55, 0.55, 1.65), "wall", 1.5),
    Kind("wardrobe", (1.10, 0.55, 2.00), "wall", 1.3),
    Kind("shelf", (0.95, 0.40, 1.80), "wall", 1.2),
    Kind("fridge", (0.70, 0.65, 1.75), "wall", 0.8),
    Kind("clock", (0.50, 0.35, 1.95), "wall", 0.7),
    Kind("column", (0.45, 0.45, 2.60), "free", 0.9),
    Kind("cabinet", (0.95, 0.45, 1.00), "wall", 1.0),
    Kind("table", (1.10, 0.75, 0.76), "free", 1.0),
    Kind("chair", (0.55, 0.55, 1.00), "wall", 1.0),
    Kind("sofa", (1.70, 0.80, 0.90), "wall", 0.8),
    Kind("bed", (1.30, 1.90, 1.00), "wall", 0.6),
    Kind("box", (0.75, 0.75, 0.80), "wall", 1.0),
    Kind("barrel", (0.65, 0.65, 1.00), "wall", 0.9),
)
"""What stands in homes of generator 1."""

ALL_KINDS: tuple[Kind, ...] = (
    *KINDS,
    Kind("stool", (0.42, 0.42, 0.62), "wall", 0.8),
    Kind("desk", (1.25, 0.62, 1.15), "wall", 0.8),
    Kind("plant", (0.60, 0.60, 1.40), "wall", 1.1),
    Kind("toilet", (0.46, 0.68, 0.95), "wall", 0.7),
    Kind("bathtub", (1.55, 0.74, 0.62), "wall", 0.6),
    Kind("sink", (0.60, 0.48, 1.05), "wall", 0.8),
    Kind("stove", (0.66, 0.62, 0.98), "wall", 0.8),
    Kind("television", (1.20, 0.42, 1.20), "wall", 1.0),
    Kind("mirror", (0.66, 0.30, 1.75), "wall", 0.8),
    Kind("piano", (1.42, 0.60, 1.22), "wall", 0.7),
    Kind("washing machine", (0.64, 0.62, 0.90), "wall", 0.8),
    Kind("fireplace", (1.30, 0.42, 1.20), "wall", 0.6),
    Kind("coat rack", (0.50, 0.50, 1.75), "wall", 0.8),
    Kind("ladder", (0.55, 0.50, 1.80), "wall", 0.7),
)
"""What stands in homes of generator 2."""

KIND = {kind.name: kind for kind in ALL_KINDS}


@dataclass(frozen=True)
class Thing:
    """
    A piece of furniture in room ``room``: ``rect`` is its footprint, ``height`` its top above the
    floor, ``facing`` the unit vector (x, z) of its front. ``design`` (generator 2) chooses among
    the shapes of its kind.
    """

    kind: str
    colour: str
    room: int
    rect: Rect
    height: float
    facing: tuple[int, int]
    design: int = 0

    @property
    def name(self) -> str:
        """How an instruction calls it, as in "red lamp"."""
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> np.ndarray:
        """Middle of its footprint, (x, z)."""
        x0, z0, x1, z1 = self.rect
        return np.array([(x0 + x1) / 2, (z0 + z1) / 2])


def furnish(rng: np.random.Generator, plan: Plan, generator: int = 1) -> tuple[Thing, ...]:
    """Draw the things of every room of ``plan``, as a generator does."""
    used: set[str] = set()
    rooms = [
        _furnish_room(rng, plan, room, used, KINDS if generator == 1 else ALL_KINDS)
        for room in plan.rooms
    ]
    things = tuple(t for room in rooms for t in room)
    return things if generator == 1 else tuple(_shaped(rng, plan, t) for t in things)


def _shaped(rng: np.random.Generator, plan: Plan, thing: Thing) -> Thing:
    """A thing with a design and a height of its own, on at most its footprint."""
    height = thing.height * float(rng.uniform(0.92, 1.08))
    if thing.kind == "column":
        height = plan.wall_height
    x0, z0, x1, z1 = thing.rect
    # It keeps its back at the wall and gives way at the sides and in front.
    side, front = rng.uniform((0.0, 0.0), (0.06, 0.08)).tolist()
    dx, dz = (side, front) if thing.facing[0] == 0 else (front, side)
    dx, dz = dx * (x1 - x0), dz * (z1 - z0)
    fx, fz = thing.facing
    rect = (x0 + dx * (fx <= 0), z0 + dz * (fz <= 0), x1 - dx * (fx >= 0), z1 - dz * (fz >= 0))
    return replace(thing, rect=rect, height=round(height, 3), design=int(rng.integers(1 << 16)))


def _furnish_room(
    rng: np.random.Generator,
    plan: Plan,
    room: Room,
    used: set[str],
    kinds: tuple[Kind, ...],
) -> list[Thing]:
    """Things of one room; their colours differ from each other and from the walls."""
    area = (room.rect[2] - room.rect[0]) * (room.rect[3] - room.rect[1])
    wanted = (
        int(rng.integers(1, 3))
        if room.hallway
        else int(np.clip(rng.normal(area / 3.2, 0.9), 3, 6))
    )
    zones = [door_zone(door, room) for door in plan.doors_of[room.index]]
    grown = np.array([-PASSAGE_M, -PASSAGE_M, PASSAGE_M, PASSAGE_M])
    for leaf in plan.leaves:
        if leaf.room == room.index:
            x0, z0, x1, z1 = (grown + leaf.rect).tolist()
            zones.append((x0, z0, x1, z1))
    # Colours of other rooms' walls come first: routes that end "at the thing with the colour of
    # the room where you started" need them.
    palette = [
        c for c in OBJECT_RGB if c != room.colour and not (c == "white" and room.colour == "grey")
    ]
    palette = [palette[i] for i in rng.permutation(len(palette))]
    weights = np.array(
        [
            k.weight * (0.0 if room.hallway and (k.size[1] > 0.5 or k.place == "free") else 1.0)
            for k in kinds
        ]
    )
    found: list[Thing] = []
    for _ in range(wanted * 6):
        if len(found) == wanted or not palette:
            break
        # Now and then a second thing of a kind that is already there, so that its colour matters.
        if found and rng.random() < 0.25:
            kind = KIND[found[int(rng.integers(len(found)))].kind]
        else:
            kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        if kind.name in ("bed", "sofa") and any(t.kind in ("bed", "sofa") for t in found):
            continue
        colour = next((c for c in palette if f"{c} {kind.name}" not in used), None)
        if colour is None:
            continue
        for placed in (_place(rng, room, kind) for _ in range(8)):
            if (
                placed is not None
                and all(gap(placed[0], thing.rect) >= PASSAGE_M for thing in found)
                and all(gap(placed[0], zone) > 0.0 for zone in zones)
            ):
                rect, facing = placed
                found.append(Thing(kind.name, colour, room.index, rect, kind.size[2], facing))
                palette.remove(colour)
                used.add(found[-1].name)
                break
    return found


def _place(
    rng: np.random.Generator, room: Room, kind: Kind
) -> tuple[Rect, tuple[int, int]] | None:
    """
    A draw of where a thing of ``kind`` may stand in an empty ``room``, and its facing; None where
    it does not fit.
    """
    facing = ((0, 1), (0, -1), (1, 0), (-1, 0))[int(rng.integers(4))]
    along, across = (0, 1) if facing[0] == 0 else (1, 0)
    size = kind.size[along], kind.size[across]
    low, high = room.rect[:2], room.rect[2:]
    if kind.place == "free":
        spans = [(low[i] + PASSAGE_M, high[i] - PASSAGE_M - size[i]) for i in (0, 1)]
        if any(first > last for first, last in spans):
            return None
        at = [float(rng.uniform(first, last)) for first, last in spans]
    else:
        first, last = low[along], high[along] - size[along]
        if last - first < 0.1 or high[across] - low[across] < size[across] + 0.9:
            return None
        place = float(rng.uniform(first, last))
        # Touch the wall at the side, or leave a passage there.
        if place - first < PASSAGE_M:
            place = first + 0.03 if last - first > 0.06 else first
        elif last - place < PASSAGE_M:
            place = last - 0.03
        behind = low[across] + 0.02 if facing[across] > 0 else high[across] - 0.02 - size[across]
        at = [place, behind] if along == 0 else [behind, place]
    return (at[0], at[1], at[0] + size[0], at[1] + size[1]), facing
