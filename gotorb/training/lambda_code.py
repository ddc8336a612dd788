"""Code of ``Lambda`` layers in files of Keras 2, read as data and never run.

Such a file holds the bytecode of a function. A reader decodes it to numbers, text and tuples only. Its instructions are
then followed one by one: calls of TensorFlow's or Keras' functions by name on the layer's input, arithmetic and
constants. Jumps, other globals and all other instructions are refused.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ROOTS = ("tf", "tensorflow", "K", "KB", "backend", "keras", "tf_keras", "tfk", "nn")
"""Names of modules in calls."""
BARE = ("l2_normalize",)
"""Functions that may be called without a module."""
MAX_CODE, MAX_DEPTH, MAX_ITEMS, MAX_STEPS = 20_000, 12, 500, 500
REF = 0x80
ARITHMETIC = {0: "add", 5: "multiply", 8: "power", 10: "subtract", 11: "divide"}
"""Argument of BINARY_OP (Python 3.11) -> operation; in-place operations have 13 more."""
BINARY = {19: "power", 20: "multiply", 23: "add", 24: "subtract", 25: "getitem", 27: "divide",
          55: "add", 56: "subtract", 57: "multiply", 29: "divide", 67: "power"}  # fmt: skip
"""Instruction (up to Python 3.10) -> operation, in-place operations included."""


class Unreadable(ValueError):
    """Code that cannot be rebuilt."""


class Code(NamedTuple):
    """Code of a function: instructions, constants, names, and local variables, arguments first."""

    instructions: bytes
    constants: tuple[Any, ...]
    names: tuple[str, ...]
    variables: tuple[str, ...]
    n_arguments: int
    is_new: bool
    captured: tuple[str, ...]


@dataclass
class _Reader:
    """Reader of marshalled code of Python 3.6 to 3.11."""

    data: bytes
    layout: str
    at: int = 0
    known: list[Any] = field(default_factory=list)

    def take(self, n: int) -> bytes:
        if n < 0 or self.at + n > len(self.data):
            raise Unreadable("cut code")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def read(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH or len(self.known) > MAX_ITEMS:
            raise Unreadable("code too deep")
        byte = self.take(1)[0]
        kind, place = chr(byte & ~REF), None
        if byte & REF:
            place = len(self.known)
            self.known.append(None)
        value = self._value(kind, depth)
        if place is not None:
            self.known[place] = value
        return value

    def _value(self, kind: str, depth: int) -> Any:
        simple = {"N": None, "T": True, "F": False, ".": Ellipsis}
        if kind in simple:
            return simple[kind]
        if kind == "i":
            return self.number()
        if kind == "g":
            return struct.unpack("<d", self.take(8))[0]
        if kind in "zZ":
            return self.take(self.take(1)[0]).decode("ascii")
        if kind in "aAut":
            return self.take(self.number()).decode("utf-8")
        if kind == "s":
            return self.take(self.number())
        if kind in "()":
            n = self.take(1)[0] if kind == ")" else self.number()
            if not 0 <= n <= MAX_ITEMS:
                raise Unreadable("a long tuple")
            return tuple(self.read(depth + 1) for _ in range(n))
        if kind == "r":
            place = self.number()
            if not 0 <= place < len(self.known):
                raise Unreadable("a broken reference")
            return self.known[place]
        if kind == "c" and depth == 0:
            return self._code()
        raise Unreadable(f"code with a part of the kind {kind!r}")

    def _code(self) -> Code:
        """Code in the layout of Python 3.6 and 3.7, 3.8 to 3.10, or 3.11."""
        n_arguments = self.number()
        for _ in range({"3.7": 4, "3.8": 5, "3.11": 4}[self.layout]):
            self.number()
        instructions, constants, names, variables = (self.read(1) for _ in range(4))
        kinds = self.read(1)
        if self.layout != "3.11":
            captured = [*kinds, *self.read(1)]
            self.read(1), self.read(1), self.number(), self.read(1)
        else:
            captured = [name for name, one in zip(variables, kinds, strict=True) if not one & 0x20]
            self.read(1), self.read(1), self.read(1), self.number(), self.read(1), self.read(1)
        if self.at != len(self.data):
            raise Unreadable("code that does not end")
        return Code(instructions, constants, names, variables, n_arguments, self.layout == "3.11", tuple(captured))


def read_code(text: str) -> Code:
    """Decode the code of a function in a file of Keras 2.

    Parameters
    ----------
    text : str
        base64 of the marshalled code.

    Returns
    -------
    Code

    Raises
    ------
    Unreadable
        If it is broken, too long, or of another version of Python.
    """
    if len(text) > MAX_CODE:
        raise Unreadable(f"code of {len(text)} characters")
    try:
        data = base64.b64decode(text.encode("ascii"))
    except (binascii.Error, UnicodeError):
        raise Unreadable("broken base64") from None
    for one in ("3.8", "3.7", "3.11"):
        try:
            return _checked(_Reader(data, one).read())
        except (Unreadable, UnicodeError, struct.error, TypeError, ValueError, RecursionError) as error:
            reason = error
    raise Unreadable(f"code of an unknown version of Python ({reason})")


def _checked(code: Any) -> Code:
    texts = isinstance(code, Code) and all(
        isinstance(some, tuple) and all(isinstance(one, str) for one in some) for some in (code.names, code.variables)
    )
    if not texts or not isinstance(code.instructions, bytes) or not isinstance(code.constants, tuple):
        raise Unreadable("no code of a function")
    return code  # type: ignore[no-any-return]


class _Name(NamedTuple):
    """A function or module, by its path: ("tf", "math", "l2_normalize")."""

    path: tuple[str, ...]


_NULL = _Name(())


@dataclass
class _Follower:
    """Interpreter of a function's instructions, with a stack of tensors, constants and names."""

    code: Code
    local: dict[str, Any]
    apply: Callable[[str, Sequence[Any], Mapping[str, Any]], Any]
    stack: list[Any] = field(default_factory=list)
    keywords: tuple[str, ...] = ()

    def run(self) -> Any:
        """Value that the function returns."""
        raw, extended = self.code.instructions, 0
        if len(raw) > 2 * MAX_STEPS:
            raise Unreadable("a long function")
        for at in range(0, len(raw) - 1, 2):
            instruction, argument = raw[at], raw[at + 1] | extended << 8
            extended = argument if instruction == 144 else 0
            if instruction == 83:
                return self.stack.pop()
            if instruction != 144:
                self._step(instruction, argument)
        raise Unreadable("a function without an end")

    def _step(self, instruction: int, argument: int) -> None:
        if instruction in (0, 151, 166, 9):  # caches and markers of 3.11, NOP
            return
        if self.code.is_new and instruction in NEW_STEPS:
            NEW_STEPS[instruction](self, argument)
        elif not self.code.is_new and instruction in BINARY:
            self._operate(BINARY[instruction])
        elif not self.code.is_new and instruction in OLD_STEPS:
            OLD_STEPS[instruction](self, argument)
        elif instruction in STEPS:
            STEPS[instruction](self, argument)
        else:
            raise Unreadable(f"instruction {instruction} of a function")

    def _operate(self, operation: str) -> None:
        right, left = self.stack.pop(), self.stack.pop()
        if isinstance(left, _Name) or isinstance(right, _Name):
            raise Unreadable("arithmetic with a module")
        self.stack.append(self.apply(operation, [left, right], {}))

    def name(self, name: str) -> None:
        if name not in (*ROOTS, *BARE):
            raise Unreadable(f"the global name {name!r}")
        self.stack.append(_Name((name,)))

    def attribute(self, name: str) -> None:
        owner = self.stack.pop()
        if not isinstance(owner, _Name):
            raise Unreadable(f"the attribute {name!r} of a tensor")
        self.stack.append(_Name((*owner.path, name)))

    def take(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise Unreadable("an empty stack")
        taken = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return taken

    def call(self, n: int, keywords: Sequence[str] = ()) -> None:
        given = self.take(n)
        named = dict(zip(keywords, given[n - len(keywords) :], strict=True))
        function = self.stack.pop()
        if not isinstance(function, _Name) or (len(function.path) < 2 and function.path[:1] != BARE):
            raise Unreadable("a call of something else than a function of TensorFlow")
        if function.path[-1] == "epsilon" and not given:
            self.stack.append(1e-7)
        else:
            self.stack.append(self.apply(".".join(function.path), given[: n - len(keywords)], named))

    def load(self, argument: int) -> None:
        name = self.code.variables[argument]
        if name not in self.local:
            raise Unreadable(f"the variable {name!r} without a value")
        self.stack.append(self.local[name])

    def dereference(self, argument: int) -> None:
        names = self.code.variables if self.code.is_new else self.code.captured
        self.stack.append(self.local[names[argument]])

    def store(self, argument: int) -> None:
        self.local[self.code.variables[argument]] = self.stack.pop()

    def imported(self, argument: int) -> None:
        self.take(2)
        self.name(self.code.names[argument].split(".", maxsplit=1)[0])

    def extend(self, argument: int) -> None:
        items = self.stack.pop()
        self.stack[-argument] = [*self.stack[-argument], *items]

    def call_new(self, n: int) -> None:
        keywords, self.keywords = self.keywords, ()
        given = self.take(n)
        owner = self.take(2)  # NULL and the function, or the two of LOAD_METHOD
        self.stack += [owner[1] if owner[0] is _NULL else owner[0], *given]
        self.call(n, keywords)

    def global_new(self, argument: int) -> None:
        if argument & 1:
            self.stack.append(_NULL)
        self.name(self.code.names[argument >> 1])

    def method_new(self, argument: int) -> None:
        self.attribute(self.code.names[argument])
        self.stack.insert(-1, _NULL)

    def operate_new(self, argument: int) -> None:
        found = ARITHMETIC.get(argument % 13)
        if found is None:
            raise Unreadable(f"arithmetic of kind {argument}")
        self._operate(found)

    def words(self, argument: int) -> None:
        self.keywords = self.code.constants[argument]

    def call_words(self, argument: int) -> None:
        self.call(argument, self.stack.pop())


STEPS: dict[int, Callable[[_Follower, int], Any]] = {
    1: lambda self, _: self.stack.pop(),
    100: lambda self, argument: self.stack.append(self.code.constants[argument]),
    102: lambda self, argument: self.stack.append(tuple(self.take(argument))),
    103: lambda self, argument: self.stack.append(self.take(argument)),
    106: lambda self, argument: self.attribute(self.code.names[argument]),
    108: lambda self, argument: self.imported(argument),
    11: lambda self, _: self.stack.append(self.apply("negative", [self.stack.pop()], {})),
    124: lambda self, argument: self.load(argument),
    125: lambda self, argument: self.store(argument),
    133: lambda self, argument: self.stack.append(slice(*self.take(argument))),
    162: lambda self, argument: self.extend(argument),
}
"""Instructions of all versions, and their effects."""
OLD_STEPS: dict[int, Callable[[_Follower, int], Any]] = {
    116: lambda self, argument: self.name(self.code.names[argument]),
    131: lambda self, argument: self.call(argument),
    136: lambda self, argument: self.dereference(argument),
    141: lambda self, argument: self.call_words(argument),
    160: lambda self, argument: self.attribute(self.code.names[argument]),
    161: lambda self, argument: self.call(argument),
}
"""Instructions up to Python 3.10."""
NEW_STEPS: dict[int, Callable[[_Follower, int], Any]] = {
    2: lambda self, _: self.stack.append(_NULL),
    25: lambda self, _: self._operate("getitem"),
    116: lambda self, argument: self.global_new(argument),
    122: lambda self, argument: self.operate_new(argument),
    137: lambda self, argument: self.dereference(argument),
    149: lambda self, argument: None,
    160: lambda self, argument: self.method_new(argument),
    171: lambda self, argument: self.call_new(argument),
    172: lambda self, argument: self.words(argument),
}
"""Instructions of Python 3.11."""


def follow(
    code: Code,
    inputs: Sequence[Any],
    apply: Callable[[str, Sequence[Any], Mapping[str, Any]], Any],
    *,
    captured: Sequence[Any] = (),
) -> Any:
    """Follow a function's instructions.

    Parameters
    ----------
    code : Code
        From `read_code`.
    inputs : sequence
        Values of its arguments, defaults included.
    apply : callable
        Function from a name, arguments and options to the value of that call.
    captured : sequence
        Values of the variables of its closure.

    Returns
    -------
    object
        Value that the function returns.

    Raises
    ------
    Unreadable
        If an instruction is not supported.
    """
    if len(inputs) < code.n_arguments:
        raise Unreadable("a function of several arguments")
    try:
        known = dict(zip(code.variables, inputs, strict=False)) | dict(zip(code.captured, captured, strict=False))
        return _Follower(code, known, apply).run()
    except (IndexError, TypeError, AttributeError, KeyError) as error:
        raise Unreadable(f"broken code ({error})") from None
