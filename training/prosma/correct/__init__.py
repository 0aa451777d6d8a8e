"""Correcting a result. Light: Slicer's process imports it.

| file | what it holds |
| --- | --- |
| `refine` | strokes move a mask's border: from the strokes to the new mask |
| `stroke_features` | what is known of each voxel near a stroke |
| `stroke_network` | the small networks that weigh it, read from refine.npz |
| `review` | the places of a result that are likely to be wrong, worst first |
| `prompting` | from a stroke to a mask with a promptable network: where it looks, what of its answer is taken |
| `prompt_input` | what such a network sees: the image, what was said, what is known |
| `crop` | cubes of patient space that follow what was said, and their way to a patch and back |
| `sensitivity` | a label's border moved by a shift of its log odds, without a new run |
"""
