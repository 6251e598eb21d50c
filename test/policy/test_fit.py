"""What does not fit is refused before it is loaded, with what would fit."""

from pathlib import Path

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLNConfig
from janusvln_ros.model.footprint import SHORTER, Room, on_paper
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.policy.fit import fit

FULL = JanusVLNConfig.from_pretrained(
    Path(__file__).parents[2] / "benchmarks" / "configs" / "full"
)
CPU, GPU = torch.device("cpu"), torch.device("cuda")
NETWORK = on_paper(FULL)
PLENTY = Room("this machine", 10**12, 10**12)


@pytest.fixture(autouse=True)
def counted_once(monkeypatch):
    monkeypatch.setattr("janusvln_ros.policy.fit.on_paper", lambda config: NETWORK)


def card(gigabytes, **options):
    """The 7B + 1B network on a GPU that is called by its size, nearly all of it free."""
    total = gigabytes * 10**9
    there = (Room(f"a {gigabytes} GB card", total, int(0.97 * total)), PLENTY)
    return fit(FULL, GPU, there=there, **options)


def machine(free, **options):
    return fit(FULL, CPU, there=(Room("this machine", 64 * 10**9, free), None), **options)


def test_the_most_exact_precision_that_fits_is_chosen():
    chosen = {gb: str(card(gb).use) for gb in (24, 32, 40, 80)}
    assert chosen[24] == "int8 with 8 + 48 frames"
    assert chosen[32] == chosen[40] == chosen[80] == "bfloat16 with 8 + 48 frames"
    assert machine(64 * 10**9).use.precision == "float32"


def test_a_memory_in_a_byte_comes_before_a_smaller_network():
    assert str(card(28, spatial_precision="auto").use) == (
        "bfloat16 with 8 + 48 frames (spatial memory in int8)"
    )
    assert card(28).use.precision == "int8"


def test_what_was_chosen_is_said_with_what_it_takes():
    why = card(24).why
    assert "int8 with 8 + 48 frames takes" in why and "weights 11.9 GB" in why
    assert "23.3 GB free on a 24 GB card" in why
    assert card(80, precision="bfloat16").why == ""


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(InputError, match=r"bfloat16 with 8 . 48 frames.*23.3 GB free") as refused:
        card(24, precision="bfloat16")
    offers = str(refused.value).partition("what fits is ")[2].split(" or ")
    assert "int8 with 8 + 48 frames" in offers and len(offers) == 3


@pytest.mark.parametrize("memory", ["released", "dual"])
@pytest.mark.parametrize("gigabytes", [12, 16, 24])
def test_every_offer_fits_where_it_was_made(memory, gigabytes):
    """And the next longer window of the same precisions does not."""
    with pytest.raises(InputError) as refused:
        card(gigabytes, precision="bfloat16", memory=memory)
    offers = str(refused.value).partition("what fits is ")[2].split(" or ")
    for offer in offers:
        precision, _, initial, _, window, *rest = offer.split()
        spatial = rest[-1].strip(")") if len(rest) > 1 else None
        given = {"precision": precision, "spatial_precision": spatial, "memory": memory}
        card(gigabytes, window=FrameWindow(int(initial), int(window)), **given)
        longer = [w for w in SHORTER if w > int(window)]
        if int(initial) == 8 and longer:
            with pytest.raises(InputError):
                card(gigabytes, window=FrameWindow(8, min(longer)), **given)


def test_a_window_is_never_chosen_for_the_user():
    with pytest.raises(InputError, match=r"8 . 48 frames"):
        card(14, spatial_precision="auto", memory="dual")
    assert card(14, window=FrameWindow(4, 8), spatial_precision="auto").use.window.window == 8


def test_a_camera_that_is_as_tall_as_wide_takes_more():
    wide, square = card(24, precision="int8"), (480, 480)
    with pytest.raises(InputError, match="46 x 46 patches"):
        card(24, precision="int8", size=square)
    assert card(40, precision="int8", size=square).need.total > wide.need.total


def test_the_machine_around_a_gpu_counts_too():
    small = Room("this machine", 2 * 10**9, 10**9)
    with pytest.raises(InputError, match=r"beside the GPU .*but this machine has 1.0 GB"):
        fit(FULL, GPU, precision="bfloat16", there=(Room("a card", 10**11, 10**11), small))


def test_a_card_that_shares_the_machines_memory_needs_room_for_both():
    free = 31 * 10**9
    machine_alone = Room("this machine", free, free)
    shared = Room("a board", free, free, shared=True)
    assert fit(FULL, GPU, there=(Room("a card", free, free), machine_alone)).use.precision == (
        "bfloat16"
    )
    assert fit(FULL, GPU, there=(shared, machine_alone)).use.precision == "int8"


def test_a_cpu_is_counted_with_the_pictures_it_keeps():
    need = machine(64 * 10**9, precision="bfloat16", memory="released").need
    assert need.memories["pictures"] == 512 * 391 * 3584 * 2
    assert need.host == 0


def test_nothing_fits_is_said_as_that():
    with pytest.raises(InputError, match="nothing smaller fits either"):
        machine(4 * 10**9)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"precision": "int3"}, "precision is 'int3': choose auto or float32"),
        ({"spatial_precision": "int4"}, "spatial_precision is 'int4'"),
        ({"window": FrameWindow(-1, 4)}, "-1 . 4 frames"),
        ({"size": (3, 480)}, "3x480"),
    ],
)
def test_what_cannot_be_is_named(options, says):
    with pytest.raises(InputError, match=says):
        machine(10**12, **options)
