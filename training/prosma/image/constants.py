"""Facts that both halves share. Needs the standard library alone."""

import re

LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in a grey value, ITU-R BT.601
MM3_PER_ML = 1000.0
CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")  # names of a case's channels in nnU-Net's data sets
LABEL_SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")  # endings of label maps
