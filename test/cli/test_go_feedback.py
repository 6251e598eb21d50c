"""What 'janusvln go' says of a drive under way."""

from types import SimpleNamespace

from janusvln_ros.cli.go import show

FIGURES = {"probabilities": [0.1, 0.7, 0.1, 0.1], "inference_time": 0.02, "path_length": 0.0}


def said_of(capsys, **told):
    """The lines for a drive of two decisions."""
    for step in range(2):
        show(SimpleNamespace(step=step, action=1, **told, **FIGURES))
    return capsys.readouterr().err.splitlines()


def test_what_may_not_be_understood_is_told_once_before_the_first_decision(capsys):
    first, *rest = said_of(capsys, warning="no kitchens", told="")
    assert "may not be understood: no kitchens" in first
    assert len(rest) == 2 and not any("kitchens" in line for line in rest)


def test_what_the_network_is_told_is_told_once_before_the_first_decision(capsys):
    first, *rest = said_of(capsys, warning="", told="Turn left.")
    assert first.endswith("the network is told: Turn left.")
    assert len(rest) == 2 and not any("told" in line for line in rest)
