"""
Small mistakes, put into source one at a time: what a test suite must notice.

The operators are the classic ones of mutation testing (DeMillo, Lipton and Sayward 1978; Offutt's
sufficient set): a comparison negated or off by one, a clause or a statement dropped, a constant
halved or one more, a sign, ``any`` for ``all``.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OFF_BY_ONE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
SIGNS: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
OTHERS = {"any": "all", "all": "any", "min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutant:
    """
    One mistake in one file.

    Attributes:
        function: the function or class it is in, dotted; empty at the top of the module.
        line: of the mistake, from 1.
        operator: which kind it is.
        start, end: the bytes of the source that ``after`` takes the place of.
        before, after: the text, and the mistake.
    """

    function: str
    line: int
    operator: str
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: str) -> str:
        """``source`` with the mistake in it."""
        text = source.encode()
        return (text[: self.start] + self.after.encode() + text[self.end :]).decode()


def mutants(source: str) -> list[Mutant]:
    """Every mistake that the operators make in ``source``, in its order."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for function, node in _walk(ast.parse(source), ""):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = source.encode()[start:end].decode()
        for operator, after in _mistakes(node):
            found.append(Mutant(function, node.lineno, operator, start, end, before, after))
    return found


def _walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    """
    Every statement and expression that decides or acts, with the function it is in; no
    annotations, nothing inside a sentence (an f-string), and no ``assert``, which is true.
    """
    if isinstance(node, ast.JoinedStr | ast.Assert):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            inner = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{function}.{child.name}".lstrip(".")
            elif hasattr(child, "lineno"):
                yield function, child
            yield from _walk(child, inner)


def _mistakes(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Kind and text of every mistake at one place, in brackets where it is an expression."""
    for operator, mistake in _other_nodes(node):
        text = ast.unparse(mistake)
        yield operator, f"({text})" if isinstance(mistake, ast.expr) else text


def _other_nodes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(left, ops, comparators):
            for table, operator in ((NEGATED, "negated"), (OFF_BY_ONE, "off by one")):
                for i, op in enumerate(ops):
                    if type(op) in table:
                        swapped = [*ops[:i], table[type(op)](), *ops[i + 1 :]]
                        yield operator, ast.Compare(left, swapped, comparators)
        case ast.BoolOp(op, values):
            for i in range(len(values)):
                rest = [*values[:i], *values[i + 1 :]]
                yield "clause dropped", rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(ast.Not(), operand):
            yield "negated", operand
        case ast.UnaryOp(ast.USub(), operand):
            yield "sign", operand
        case ast.BinOp(left, op, right) if type(op) in SIGNS:
            yield "sign", ast.BinOp(left, SIGNS[type(op)](), right)
        case ast.BinOp(left, ast.BitAnd(), right):  # the clauses of arrays
            yield "clause dropped", left
            yield "clause dropped", right
        case ast.Constant(value) if isinstance(value, int | float) and not isinstance(value, bool):
            if value:
                half = value // 2 if isinstance(value, int) else value / 2
                yield "constant halved", ast.Constant(half)
            if isinstance(value, int):
                yield "one more", ast.Constant(value + 1)
        case ast.Call(ast.Name(name), arguments, keywords) if name in OTHERS:
            yield (
                f"{OTHERS[name]} for {name}",
                ast.Call(ast.Name(OTHERS[name]), arguments, keywords),
            )
        case ast.Call(ast.Attribute(value, name), arguments, keywords) if name in OTHERS:
            other = ast.Attribute(value, OTHERS[name])
            yield f"{OTHERS[name]} for {name}", ast.Call(other, arguments, keywords)
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.If(orelse=[]):
            yield "statement dropped", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement dropped", ast.Pass()
