"""Prose of all files, checked against a list of stilted words. ``python -m tests.contract.prose [FILE...]``.

Prose is the text of pages, and docstrings, comments and text with spaces in code. Quoted code (between backticks) is
left out. To use a word of the list on purpose, put it between backticks, or end the line with ``prose: ignore``.
Words that are written twice and, in pages, sentences of more than `MOST_WORDS` words are found too.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.contract.test_project import ROOT, tracked

WORDS = {
    r"go(?:es)? on|went on": "resume, continue",
    r"stands? twice": "is duplicate",
    r"lacks?": "has no, is missing",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"anew": "again",
    r"judg(?:es|ed|ing)|judge(?![:.,\]])": "evaluate, assess",
    r"somebody|nobody|whoever|whomever": "a user, an annotator, no one",
    r"beside": "next to, with",
    r"at once": "immediately, at the same time",
    r"for ever": "forever, without end",
    r"hunts? for": "search for",
    r"(?:nothing|none) but": "only",
    r"as (?:it|they) stands?": "as shown, unchanged",
    r"costs (?:itself|themselves)": "is skipped",
    r"obey(?:s|ed|ing)?": "apply, follow",
    r"what came of|is not believed|moods?": "say what happens",
    r"whence|thereof|wherein|thrice|betwixt|amongst|whilst": "the plain word",
    r"looked? after": "check, maintain",
    r"be had|(?:is|are) had from": "is available",
    r"(?P<word>the|an?|of|to|in|is|are|was|and|or|by|for|with|on|at|as|it|be|not|if|from) (?P=word)": "the word once",
    r"gives? way": "wait",
}  # fmt: skip
"""Pattern of words -> what to write instead."""
QUESTION = re.compile(r"(Who|Whom|What|Whether|Where|How|Why|When|Which)\b")
"""First words of a docstring that say nothing about the thing itself."""
PATTERN = re.compile("|".join(rf"(?P<w{i}>\b(?:{word})\b)" for i, word in enumerate(WORDS)), re.IGNORECASE)
CODE = re.compile(r"`[^`]*`|https?://\S+")
MOST_WORDS = 35
"""Of a sentence, or of its part before a colon or semicolon."""
PARAGRAPH_ENDS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*#|]|\d+\.) )|\n(?=[-=]{4,}\n)")
SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+(?=[^a-z])|(?<=[:;])\s+")
NO_WORDS = re.compile(r"<!--.*?-->|\]\([^)]*\)|^[-=]{4,}$", re.DOTALL | re.MULTILINE)
"""Comments, addresses of links, and underlines of headings."""
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".cff", ".html", ".js", ".ipynb", ".example", ""}
GENERATED = ("reports/", "studies/large/", "requirements.lock", "LICENSE", "dvc.lock", "tests/contract/prose.py")
"""Files that stages write, or whose text is not ours."""


class Finding(NamedTuple):
    """A word of the list: place, word, and what to write instead."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}; write {self.instead}"


def check(path: Path) -> Iterator[Finding]:
    """Find words of the list in one file."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if path.suffix == ".py":
        yield from (Finding(name, line, word, "a noun or a verb first") for line, word in questions(ast.parse(text)))
        parts = python_prose(text)
    elif path.suffix == ".ipynb":
        parts = notebook_prose(text)
    else:
        parts = iter(enumerate(blank_code(text).splitlines(), start=1))
    if path.suffix == ".md":
        yield from (Finding(name, line, f"{start} ...", "two sentences") for line, start in long_sentences(text))
    for line, part in parts:
        for match in PATTERN.finditer(CODE.sub("", part)):
            if path.suffix == ".ipynb" or "prose: ignore" not in lines[line - 1]:
                yield Finding(name, line, match[0], list(WORDS.values())[int(str(match.lastgroup)[1:])])


def blank_code(text: str) -> str:
    """A page with the lines of its code blocks empty."""
    return re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def long_sentences(text: str) -> Iterator[tuple[int, str]]:
    """Lines and beginnings of the long sentences of a page; tables and headings are none.

    >>> list(long_sentences("Short.\\n\\nIt is " + "very " * 40 + "long."))
    [(3, 'It is very very')]
    """
    text, place = NO_WORDS.sub(lambda found: "\n" * found[0].count("\n"), blank_code(text)), 0
    for paragraph in PARAGRAPH_ENDS.split(text):
        place = text.index(paragraph, place)
        if not paragraph.lstrip().startswith(("|", "#")):
            for sentence in SENTENCE_ENDS.split(CODE.sub("X", paragraph)):
                words = [word for word in sentence.split() if any(map(str.isalnum, word))]
                if len(words) > MOST_WORDS:
                    blank = paragraph[: len(paragraph) - len(paragraph.lstrip())]
                    yield (text[:place] + blank).count("\n") + 1, " ".join(words[:4])


def python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines of comments, docstrings and other strings with spaces, with their numbers.

    >>> list(python_prose("x = 'judge'  # of all\\n'two words'"))
    [(1, '# of all'), (2, "'two words'")]
    """
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds and (" " in token.string.strip() or token.type == tokenize.COMMENT):
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def notebook_prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines of the text of a notebook, with the numbers of their cells."""
    for number, cell in enumerate(json.loads(text)["cells"], start=1):
        if cell["cell_type"] == "markdown":
            yield from ((number, line) for line in "".join(cell["source"]).splitlines())


def questions(code: ast.Module) -> Iterator[tuple[int, str]]:
    """First words of docstrings that are questions, with their lines."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(code):
        if isinstance(node, documented) and (found := QUESTION.match(ast.get_docstring(node) or "")):
            yield getattr(node, "lineno", 1), found[0]


def prose_files() -> list[Path]:
    """Files of the project whose prose is checked."""
    return [
        path
        for path in tracked()
        if path.suffix in SUFFIXES
        and not path.relative_to(ROOT).as_posix().startswith(GENERATED)
        and not path.name.endswith((".png", ".gitignore"))
    ]


def main() -> int:
    """Print the findings; 1 when there are any."""
    paths = [Path(name).resolve() for name in sys.argv[1:]] or prose_files()
    findings = [str(found) for path in paths for found in check(path)]
    print("\n".join(findings) or "prose: no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
