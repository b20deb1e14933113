"""The machine taken apart: what its parts hold inside, and what follows from a change there."""
