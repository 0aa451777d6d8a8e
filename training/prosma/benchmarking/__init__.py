"""How fast a whole volume is and what it needs, beside what other tools take on the same computer: `prosma benchmark`."""
