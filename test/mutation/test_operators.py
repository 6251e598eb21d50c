"""What counts as a mistake, and where it is put."""

import pytest
from operators import mutants


def texts(source):
    return {(m.operator, m.applied(source)) for m in mutants(source)}


@pytest.mark.parametrize(
    ("source", "operator", "mistake"),
    [
        ("x = a < b", "negated", "x = (a >= b)"),
        ("x = a < b", "off by one", "x = (a <= b)"),
        ("x = a <= b < c", "off by one", "x = (a < b < c)"),
        ("x = a is None", "negated", "x = (a is not None)"),
        ("x = not a", "negated", "x = (a)"),
        ("x = a and b and c", "clause dropped", "x = (a and c)"),
        ("x = a or b", "clause dropped", "x = (b)"),
        ("x = a & b", "clause dropped", "x = (a)"),
        ("x = a - b", "sign", "x = (a + b)"),
        ("x = -a", "sign", "x = (a)"),
        ("x = 4000", "constant halved", "x = (2000)"),
        ("x = 4000", "one more", "x = (4001)"),
        ("x = 0.5", "constant halved", "x = (0.25)"),
        ("x = any(y)", "all for any", "x = (all(y))"),
        ("x = y.all()", "any for all", "x = (y.any())"),
        ("f(x)", "statement dropped", "pass"),
        ("x.y = 1", "statement dropped", "pass"),
        ("if a:\n    b()", "statement dropped", "pass"),
        ("def f():\n    raise E", "statement dropped", "def f():\n    pass"),
    ],
)
def test_a_mistake_of_every_kind(source, operator, mistake):
    assert (operator, mistake) in texts(source)


def test_what_is_not_run_is_left_alone():
    source = 'def f(x: Literal[1] = None) -> A | B:\n    """Twice 2."""\n    return x\n'
    assert not mutants(source)


def test_sentences_are_left_alone():
    assert not mutants('x = f"about {y:.2f}, {y + 1}"')


def test_a_mistake_is_named_by_its_function_and_line():
    source = "class A:\n    def f(self):\n        return 'ä', 1 < 2\n"
    negated = next(m for m in mutants(source) if m.operator == "negated")
    assert (negated.function, negated.line, negated.before) == ("A.f", 3, "1 < 2")
    assert negated.applied(source).splitlines()[2] == "        return 'ä', (1 >= 2)"
