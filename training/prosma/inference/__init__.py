"""From an image and a model to labels on the image's own grid. The way of an image through the room:

| step | file | what happens |
| --- | --- | --- |
| options | `options` | what is asked for, checked against the model |
| preprocessing | `pipeline` | `Prepared`, made once: region of interest, channels, reorienting, resampling, normalisation |
| ahead | `ahead` | in batches another process has made `Prepared`, while the network was at work on the case before |
| fit | `fit` | whether the image looks like those of the training: `encoder_features`, and their `distance` from those |
| sliding window | `sliding_window` | tiles, Gaussian blending, scores accumulated band by band |
| forward passes | `prediction` | softmax, averaged over flips, gate map, gate statistics; several networks: `ensemble` |
| way back | `back_to_image` | scores resampled to the image's grid, argmax, probabilities, entropy |
| presence | `presence` | whether a picture shows a structure at all |
| quality | `quality` | the Dice that each segment is likely to have, by what `quality_meter` saw of the scores |
| one piece | `one_piece` | parts that lie apart are left out, where the model says so |
| result | `segmentation` | labels on the whole grid, and what goes with them |

`segmenter` is the door: a model loaded once, and the steps in order. Where memory does not suffice it goes down the
`memory_ladder`. Where a model has a `finder`, a coarse network first says where in the volume its structures lie. `prompts`
answers strokes with a promptable model. `devices` finds a processor that really works; `run_log` is progress, notices and
seconds of one run.

Axes: images are (C, I, J, K), the model's grid is (C, X, Y, Z) in the model's orientation; `Canonical.view` of
`image.geometry` is the one place where one becomes the other, and `image.axes` the one where (K, J, I) is.
"""
