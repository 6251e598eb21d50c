"""janusvln tally: the failures of a run that is there, and a sentence for one that is not."""

import json

from janusvln_ros.cli.main import main


def test_tally_of_a_run_counts_all_its_episodes_and_wants_the_data_it_drove(
    small_houses, tmp_path, capsys
):
    out, size = tmp_path / "run", ["--size", "32x24"]
    data = ["--data", str(small_houses)]
    assert main(["evaluate", "forward", *data, "--episodes", "8", "--out", str(out), *size]) == 0
    capsys.readouterr()
    assert main(["tally", str(out), *data, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == 8
    assert sum(row["episodes"] for row in result["outcomes"].values()) == 8
    assert main(["tally", str(out), *data]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in result["outcomes"])
    assert main(["tally", str(tmp_path / "none"), *data]) == 2
    assert "holds no finished evaluation" in capsys.readouterr().err
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["data"]["sha256"] = "0"
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert main(["tally", str(out), *data]) == 2
    assert "another file than the one" in capsys.readouterr().err
