"""How a network, a cell, a difference and a curve look: SVG text."""

from optnas.drawing.curve import draw_curve
from optnas.drawing.difference import draw_difference
from optnas.drawing.draw import draw
from optnas.drawing.draw_cell import draw_cell

__all__ = ["draw", "draw_cell", "draw_curve", "draw_difference"]
