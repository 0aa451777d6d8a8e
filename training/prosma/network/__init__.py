"""The paper: the proximal-sparse skip gate and ProSMA-UNet, in 2D and 3D. Needs torch alone.

| file | what it holds |
| --- | --- |
| `gate` | the gate, and the proximal operators that make it sparse |
| `bottleneck` | self-attention at the coarsest stage |
| `unet` | the U-Net whose skips are gated |
| `gate_monitor` | what the gates do while a network runs |
"""
