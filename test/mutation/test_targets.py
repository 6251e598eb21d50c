"""What `make mutants` works on is there: files, functions, tests and texts."""

from operators import mutants
from run import ROOT, fixed, path_of, possible, read_yaml, seconds_of_tests


def test_every_fixed_mistake_fits_its_file():
    assert len(fixed()) == 16


def test_every_target_has_its_functions_and_tests():
    for module, target in read_yaml("targets").items():
        names = {m.function for m in mutants((ROOT / path_of(module)).read_text())}
        for wanted in target.get("functions", []):
            assert any(f"{name}.".startswith(f"{wanted}.") for name in names), wanted
    tests = {test for mistake in [*possible(), *fixed()] for test in mistake.tests}
    assert not [test for test in tests if not (ROOT / test).exists()]


def test_a_mistake_that_is_called_equivalent_can_still_be_made():
    for one in read_yaml("equivalent"):
        source = (ROOT / path_of(one["file"])).read_text()
        made = {(m.function, m.before, m.after) for m in mutants(source)}
        assert (one["function"], one["before"], one["after"]) in made, one
        assert one["why"]


def test_tests_that_are_named_by_file_and_by_folder_are_all_run(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_near.py").write_text("def test_near():\n    pass\n")
    assert seconds_of_tests(tmp_path, ["tests/test_near.py", "tests"], 60.0) is not None
    (tests / "test_far.py").write_text("def test_far():\n    assert False\n")
    assert seconds_of_tests(tmp_path, ["tests/test_near.py", "tests"], 60.0) is None
