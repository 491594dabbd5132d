"""What the YAML parser objects to, in the words of who writes a config."""

import re

from ruamel.yaml.error import MarkedYAMLError

_COLON = (
    "this `:` cannot stand here: one is missing in the line above, the line is indented wrongly, or"
    " text with `: ` in it needs quotes"
)
_INDENT = (
    "is not indented as the lines that it belongs to: those of one section begin in the same"
    " column, with spaces"
)
_LEFT_OVER = (
    "the value has ended before this: a bracket is closed twice, or a quote is closed too early;"
    " text with quotes in it needs the other kind around it"
)
_ALIAS = (
    "what begins with * is an alias, and this one is not defined; if it is text, put it in quotes"
)
# What the parser says of its own steps, and what the writer of the file has done; looked through
# from the top. More than a character is not quoted: it may be a password without its quotes.
_PLAIN_WORDS = (
    (r"found character '\\t'", "a tab cannot indent a line: use spaces"),
    (r"found character '(.)'", "text cannot begin with {0} here: put it in quotes"),
    (r"found unknown escape character '(.)'", r"\{0} means nothing in double quotes: use single"),
    (r"found undefined alias", _ALIAS),
    (r"found undefined tag handle", "text cannot begin with ! here: put it in quotes"),
    (r"mapping values are not allowed", _COLON),
    (r"expected <block end>, but found '(?:<scalar>|[\]},])'", _LEFT_OVER),
    (r"expected <block end>", _INDENT),
    (r"expected a single document", "a second document begins here (`---`): a config is one"),
)


def in_words(error: MarkedYAMLError) -> tuple[str, int, int]:
    """Return what is wrong, and its line and column (from 1; line 1, column 0 if none is known)."""
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    context, problem = error.context or "", error.problem or ""
    message = ", ".join(part for part in (context, problem) if part)
    if "quoted scalar" in context and "end of stream" in problem:
        # The end of the file tells nobody where the quote is that has no other.
        mark, message = begun or mark, "this quote is not closed"
    elif "flow" in context and "expected" in problem and begun is not None:
        message = (
            f"the bracket that is opened in line {begun.line + 1} is not closed before this; text"
            " with brackets in it, or ${…} between brackets, needs quotes"
        )
    else:
        for pattern, words in _PLAIN_WORDS:
            if found := re.search(pattern, f"{context} {problem}"):
                message = words.format(*found.groups())
                break
    return (message, mark.line + 1, mark.column + 1) if mark else (message, 1, 0)
