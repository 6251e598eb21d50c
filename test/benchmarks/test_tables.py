"""Tables of the docs are replaced whole, and nothing else is."""

import pytest
import report

PAGE = "# A\n\n<!-- x: made by benchmarks/x.py -->\nold\n<!-- /x -->\n\nrest \\1\n"


def test_a_table_takes_the_place_of_the_one_before(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    report.put_table("x", r"new \1", page)
    report.put_table("x", report.rows(["a", "b"], [[1, 2]]), page)
    assert page.read_text() == PAGE.replace("old", "| a | b |\n| --- | --- |\n| 1 | 2 |")


def test_a_page_without_the_place_is_named_and_kept(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(ValueError, match=r"page\.md has no place for the table of y"):
        report.put_table("y", "new", page)
    assert page.read_text() == PAGE


def test_every_script_that_fills_in_a_table_has_its_place_in_the_docs():
    page = report.DOCS.read_text()
    for name in ("model_steps", "gpu_steps", "device_parity", "device_training"):
        assert page.count(f"<!-- {name}: made by benchmarks/{name}.py -->") == 1
        assert page.count(f"<!-- /{name} -->") == 1


def test_a_processor_has_no_card():
    assert report.card("cpu") == {} and report.card_in_words({}) == ""
