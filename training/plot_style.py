"""What all plots have in common: their size, style and colours, and how names are written."""

from service.card import Feature, Target

WIDTH = 6.5  # inches
LETTER = 6.5  # points that a letter is wide, about; there are 72 to an inch
LONGEST_NAME = 24  # characters of a label that are written
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar sign
}

# Everybody can distinguish these: M. Okabe and K. Ito, https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY, YELLOW, DARK = "#cc79a7", "#56b4e9", "#f0e442", "#333333"
LABEL_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW)


def named(column: Feature | Target) -> str:
    """Write a column with its unit, if it has one."""
    return f"{column.name} ({column.unit})" if column.unit else column.name


def shortened(name: str) -> str:
    """Cut the middle out of a long name: names often differ at their ends."""
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
