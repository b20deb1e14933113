"""The machine taken apart: what its parts hold inside, and what follows if one of them is changed."""
