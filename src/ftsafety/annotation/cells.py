"""Text in CSV that people open with a spreadsheet."""

import re

#: Excel has room for 32,767 characters in a cell.
LONGEST_CELL = 32_000
CUT = " […the sheet has no room for more: the form shows all of it]"
#: Where a cell may begin that acts as a formula: https://owasp.org/www-community/attacks/CSV_Injection. Where
#: the list separator is a semicolon or a tab, a spreadsheet begins cells and rows within a quoted text too.
FORMULA = re.compile(r'(\A|[;\t\r\n])(?=[\s"]*[=+\-@＝＋－＠])')
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def safe_cell(text: str) -> str:
    """Text of which no spreadsheet takes a part for a formula, by quotation marks; control characters go.

    Nothing undoes it: no text is read back but comments, to be kept.
    """
    text = CONTROL.sub("", text)
    if len(text) > LONGEST_CELL:
        text = text[:LONGEST_CELL] + CUT
    return FORMULA.sub(r"\1'", text)
