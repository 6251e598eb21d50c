"""What 'janusvln go' says of a drive under way."""

from types import SimpleNamespace

from janusvln_ros.cli.go import show


def test_what_may_not_be_understood_is_told_once_before_the_first_decision(capsys):
    told = {"probabilities": [0.1, 0.7, 0.1, 0.1], "inference_time": 0.02, "path_length": 0.0}
    for step in range(2):
        show(SimpleNamespace(step=step, action=1, warning="no kitchens", **told))
    first, *rest = capsys.readouterr().err.splitlines()
    assert "may not be understood: no kitchens" in first
    assert len(rest) == 2 and not any("kitchens" in line for line in rest)
