"""Numbers that both halves count with. Needs the standard library alone."""

LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in a grey value, ITU-R BT.601
MM3_PER_ML = 1000.0
