"""The same network, made fast, for inference and for training. What is fast, why, in which file, and its plain twin:

| file | what | why it is fast | plain twin in `network` |
| --- | --- | --- | --- |
| `network` | `accelerate`: the whole, checked at load | half precision where it pays | `ProSMAUNet` |
| `blocks` | encoder and decoder blocks | no concatenation, fewer multiplications | `ConvolutionBlock` |
| `gates` | proximal and attention gate | norm and gate in one pass, in place | `SpatialGate`, `AttentionSkip` |
| `stencils` | the gate's sum of dilated convolutions | never dilates in 3D | `CompatibilityField` |
| `norm` | instance norm and what follows it | a piece in the cache at a time | `GroupNorm` of the blocks |
| `onednn` | all calls of PyTorch's private operators | channels last, fused additions | |
| `autotune` | which of several ways is fastest here | measured once, remembered for the user | |
| `allocator` | glibc keeps a network's large blocks | no page faults: 1.7 to 2 times at 96^3 | |
| `fallback` | the log line where a fast way is not taken | | |
| `training_network` | `use_fast_training`: the classes of a network that is trained | | `ProSMAUNet` |
| `training_norm` | norm and activation, forward and backward | as one, sample by sample | `GroupNorm` |
| `training_convolutions` | convolutions, forward and backward | as in `blocks`; no dilation | those of `network` |
| `training_gates` | the gate on the decoder's grid | one pass of the skip, gradients added in passing | `SpatialGate` |

The mathematics that the fast ways rest on:

- Channels lie last in memory throughout, and every convolution calls oneDNN (for small volumes PyTorch itself takes
  unfolded patches and a matrix product). A single channel becomes three: each voxel with its neighbours along one axis.
- Skip and decoder feature are never concatenated: the second convolution adds to the result of the first. The decoder
  feature's upsampling and convolution are one transposed convolution, of fewer multiplications.
- A convolution before a norm needs no bias. The box gate clip(1 + gamma z - lambda, 0, 1) is one scale and shift of the
  unnormalised field, and a clamp; the signed and the shrinking gate are divided by their thresholds, which leaves one
  threshold 1 for all channels.
- The channel gate's mean of the upsampled decoder feature is linear in the mean before the upsampling.

Rules: the fast network shares the plain one's weights and never changes it. It is tried on a test image at load: where an
operator is missing or an answer is off, the plain network serves. A tensor without a fast way (gradients wanted, float64,
another device, a PyTorch without oneDNN) goes through the plain twin, block by block. Each of these is logged, once per
process and reason, under `prosma.fast`. A network in training (`training_network`) is the plain one with other classes.
"""
