"""Finds text that pages show as Markdown and that nothing says is shown as it is.

Streamlit reads Markdown in nearly everything that it is told to show. What a person or a file
supplied goes there through `literal`, `escaped` or `sentence` of pages/components/text.py; what
else is put together may hold words of the source code and numbers.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BODIES = {
    "markdown", "caption", "info", "warning", "error", "success", "write", "header", "subheader",
    "title", "toast", "metric", "page_link", "button", "download_button", "link_button", "expander",
    "popover", "checkbox", "toggle", "radio", "pills", "segmented_control", "tabs", "progress",
    "spinner", "status", "text_input", "text_area", "number_input", "selectbox", "multiselect",
    "slider", "select_slider", "file_uploader", "form_submit_button", "dialog", "feedback",
    "Column", "TextColumn", "NumberColumn", "CheckboxColumn", "ListColumn", "LineChartColumn",
}  # fmt: skip
"""Functions of Streamlit that read Markdown in what they show first; columns, in their help"""
KEYWORDS = {"label", "help", "body", "text", "captions", "caption", "delta", "tabs"}
"""And in these of any call of theirs; `placeholder` and the options of a selectbox are plain"""
OPTIONS = {"radio", "pills", "segmented_control"}
"""Those whose options are Markdown as well, by themselves or by `format_func`"""
VALUES = {"metric"}
"""Those whose second argument is"""
SAFE_CALLS = {
    "literal", "escaped", "sentence", "seconds_text", "bytes_text", "len", "int", "float", "round",
    "abs", "sum", "bool", "range", "columns", "strftime", "layer_in_words",
}  # fmt: skip
PASSING = {
    "zip",
    "enumerate",
    "sorted",
    "list",
    "set",
    "reversed",
    "min",
    "max",
    "map",
    "str",
    "iter",
}
"""Those that give what they are given"""
SAME_TEXT = {
    "capitalize", "lower", "upper", "strip", "removeprefix", "replace", "get", "items", "values",
    "tolist", "pop", "setdefault",
}  # fmt: skip
"""Methods that give what they are called on, or a part of it"""
NUMBER_NAMES = {"layer", "latent", "position", "fraction", "n_layers"}
"""Attributes that are numbers wherever they are"""
TABLES = {"setting", "kind"}
"""Names of what stands in tables of the source code"""
NUMBERS = {"int", "float", "bool", "int | None", "float | None"}


class Found(NamedTuple):
    where: str
    text: str
    shown_by: str


class Pages:
    """The source of all pages, with where each function is defined and called."""

    def __init__(self, files: list[Path]):
        self.trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.calls: dict[str, list[tuple[ast.Call, ast.AST]]] = {}
        self.scope_of: dict[ast.AST, ast.AST] = {}
        for tree in self.trees.values():
            self._note(tree, tree)

    def _note(self, node: ast.AST, scope: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self.scope_of[child] = scope
            if isinstance(child, ast.FunctionDef):
                self.functions.setdefault(child.name, []).append(child)
            if isinstance(child, ast.Call):
                name = ast.unparse(child.func).rpartition(".")[2]
                self.calls.setdefault(name, []).append((child, scope))
            self._note(child, child if isinstance(child, ast.FunctionDef | ast.Lambda) else scope)

    def unsafe(self) -> Iterator["Found"]:
        """Each expression that may be text of a person or a file, with where it is shown."""
        for path, tree in self.trees.items():
            for call in ast.walk(tree):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                    for part in shown_parts(call):
                        for found in self._unsafe_parts(part, self.scope_of[call], ()):
                            where = f"{path.name}:{call.lineno}"
                            yield Found(where, ast.unparse(found), call.func.attr)

    def _unsafe_parts(self, node, scope, seen) -> Iterator[ast.AST]:
        """The parts of an expression that are neither words of the source code, nor numbers, nor
        made literal."""
        again = lambda *parts: (  # noqa: E731
            found for part in parts for found in self._unsafe_parts(part, scope, seen)
        )
        match node:
            case ast.Constant():
                return
            case ast.JoinedStr(values=values):
                yield from again(*values)
            case ast.FormattedValue(format_spec=spec) if spec and _is_of_a_number(spec):
                return
            case ast.FormattedValue(value=value):
                yield from again(value)
            case ast.BinOp(op=ast.Add() | ast.Mult(), left=left, right=right):
                yield from again(left, right)
            case ast.BinOp() | ast.Compare() | ast.UnaryOp():
                return  # sums of numbers
            case ast.IfExp(body=body, orelse=other):
                yield from again(body, other)
            case ast.BoolOp(values=values) | ast.List(elts=values) | ast.Tuple(elts=values):
                yield from again(*values)
            case ast.Starred(value=value):
                yield from again(value)
            case ast.ListComp(elt=one) | ast.GeneratorExp(elt=one):
                yield from again(one)
            case ast.Dict(values=values):
                yield from again(*values)
            case ast.DictComp(key=key, value=value):
                yield from again(key, value)
            case ast.SetComp(elt=one):
                yield from again(one)
            case ast.NamedExpr(value=value):
                yield from again(value)
            case ast.Subscript(slice=ast.Constant(value=name)) if name in NUMBER_NAMES:
                return
            case ast.Subscript(value=value):
                yield from again(value)
            case ast.Name(id=name):
                yield from self._of_name(node, name, scope, seen)
            case ast.Call(func=function):
                yield from self._of_call(node, function, scope, seen)
            case ast.Attribute(attr=name) if name in NUMBER_NAMES or name.lstrip("_").isupper():
                return
            case ast.Attribute(value=ast.Name() | ast.Subscript() | ast.Call() as owner):
                if ast.unparse(owner) not in TABLES and any(self._unsafe_parts(owner, scope, seen)):
                    yield node
            case _:
                yield node

    def _of_call(self, node, function, scope, seen):
        name = ast.unparse(function).rpartition(".")[2]
        if name in SAFE_CALLS or name.endswith("Column"):
            return
        if name in PASSING:
            for part in node.args:
                if isinstance(part, ast.Name) and part.id in SAFE_CALLS:
                    return  # map(literal, …)
                yield from self._unsafe_parts(part, scope, seen)
            return
        if name == "join":
            yield from self._unsafe_parts(node.args[0], scope, seen)
        elif name == "format" and isinstance(function, ast.Attribute):
            yield from self._unsafe_parts(function.value, scope, seen)
            for part in node.args:
                yield from self._unsafe_parts(part, scope, seen)
        elif name in SAME_TEXT and isinstance(function, ast.Attribute):
            yield from self._unsafe_parts(function.value, scope, seen)
        elif name in self.functions and name not in seen:
            for defined in self.functions[name]:
                for part in ast.walk(defined):
                    if isinstance(part, ast.Return | ast.Yield) and part.value:
                        inner = self.scope_of[part]
                        yield from self._unsafe_parts(part.value, inner, (*seen, name))
        elif name not in seen:
            yield node

    def _of_name(self, node, name, scope, seen):
        if name.lstrip("_").isupper() or (name, id(scope)) in seen:
            return
        seen = (*seen, (name, id(scope)))
        assigned = list(_assigned(scope, name))
        for value in assigned:
            yield from self._unsafe_parts(value, scope, seen)
        if assigned:
            return
        if isinstance(scope, ast.FunctionDef) and (argument := _argument(scope, name)):
            if argument.annotation and ast.unparse(argument.annotation) in NUMBERS:
                return
            yield from self._of_argument(node, name, scope, seen)
        elif scope in self.scope_of and self.scope_of[scope] is not scope:
            yield from self._of_name(node, name, self.scope_of[scope], seen)
        else:
            yield node

    def _of_argument(self, node, name, function, seen):
        """What callers give for it."""
        names = [one.arg for one in function.args.args]
        given = 0
        for call, scope in self.calls.get(function.name, ()):
            by_name = [one.value for one in call.keywords if one.arg == name]
            place = names.index(name) if name in names else len(call.args)
            if names[:1] == ["self"]:
                place -= 1
            for value in by_name or call.args[place : place + 1]:
                given += 1
                yield from self._unsafe_parts(value, scope, seen)
        if not given:
            yield node


def shown_parts(call: ast.Call) -> Iterator[ast.AST]:
    """The arguments of a call of Streamlit that it reads Markdown in."""
    name = call.func.attr
    if name not in BODIES or _is_no_streamlit(call.func.value):
        return
    # The head of a column is drawn as it is; what stands in its help is Markdown.
    plain = {"label"} if name.endswith("Column") else set()
    yield from call.args[: 0 if plain else 2 if name in OPTIONS | VALUES else 1]
    for keyword in call.keywords:
        if keyword.arg in KEYWORDS - plain:
            yield keyword.value
        if (
            keyword.arg == "format_func"
            and name in OPTIONS
            and isinstance(keyword.value, ast.Lambda)
        ):
            yield keyword.value.body


def _is_no_streamlit(value: ast.AST) -> bool:
    return isinstance(value, ast.Constant) or ast.unparse(value) in {"logging", "log", "figure"}


def _is_of_a_number(spec: ast.JoinedStr) -> bool:
    text = "".join(part.value for part in spec.values if isinstance(part, ast.Constant))
    return any(sign in text for sign in ",.%+") or text[-1:] in set("dfeg")


def _assigned(scope: ast.AST, name: str) -> Iterator[ast.AST]:
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name) and target.id == name:
                        yield value
                    elif isinstance(target, ast.Tuple | ast.List):
                        for place, one in enumerate(target.elts):
                            if isinstance(one, ast.Name) and one.id == name:
                                yield _part(value, place)
            case ast.AnnAssign(target=ast.Name(id=found), value=value) if found == name and value:
                yield value
            case ast.AugAssign(
                target=ast.Name(id=found) | ast.Subscript(value=ast.Name(id=found)), value=value
            ) if found == name:
                yield value
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=found), attr="append" | "extend"), args=[value]
            ) if found == name:
                yield value
            case ast.NamedExpr(target=ast.Name(id=found), value=value) if found == name:
                yield value
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                if isinstance(target, ast.Tuple):
                    for place, part in enumerate(target.elts):
                        if any(
                            isinstance(one, ast.Name) and one.id == name for one in ast.walk(part)
                        ):
                            yield _part(value, place)
                elif isinstance(target, ast.Name) and target.id == name:
                    yield value


def _part(value: ast.AST, place: int) -> ast.AST:
    """What the n-th name of a tuple gets."""
    if isinstance(value, ast.Tuple):
        return value.elts[place]
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "zip":
        return value.args[place]
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "enumerate":
        return value.args[0] if place else ast.Constant(0)
    return value


def _argument(function: ast.FunctionDef, name: str) -> ast.arg | None:
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return next((one for one in every if one.arg == name), None)
