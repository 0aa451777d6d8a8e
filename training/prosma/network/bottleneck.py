"""Self-attention at the coarsest stage of a ProSMA-UNet, in 2D and 3D and for images of any size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .gate import CONVOLUTION

BOTTLENECKS = ("none", "attention")
EXPANSION = 2  # of the channels inside the perceptron


class AttentionBlock(nn.Module):
    """A pre-norm transformer block on the voxels of a feature. (B, C, S) -> (B, C, S).

        x = x + DW(x)                                    position: depthwise convolution 3
        x = x + W_o softmax(q k^T / sqrt(C / heads)) v   q, k, v = W LayerNorm(x), in `heads` parts
        x = x + W_2 GELU(W_1 LayerNorm(x))

    Sources: the transformer is that of Vaswani et al. (arXiv 1706.03762), its norms stand before each part (Xiong et al.,
    arXiv 2002.04745). Where a voxel lies tells a convolution with zeros beyond the border, which works at any size (Chu et
    al., "Conditional Positional Encodings", arXiv 2102.10882). Attention looks at all pairs of voxels, so its work grows with
    the square of their number; memory does not, where PyTorch's `scaled_dot_product_attention` has a fused kernel.
    """

    def __init__(self, spatial_dims: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = CONVOLUTION[spatial_dims](channels, channels, 3, padding=1, groups=channels)
        self.attention_norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.attention_out = nn.Linear(channels, channels)
        self.perceptron_norm = nn.LayerNorm(channels)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, EXPANSION * channels), nn.GELU(), nn.Linear(EXPANSION * channels, channels)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(x)
        shape = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)  # (B, voxels, C)
        x = x + self.attended(self.attention_norm(x))
        x = x + self.perceptron(self.perceptron_norm(x))
        return x.transpose(1, 2).unflatten(2, shape)

    def attended(self, x: Tensor) -> Tensor:
        """(B, voxels, C) -> (B, voxels, C)."""
        parts = self.query_key_value(x).unflatten(2, (3, self.heads, -1))  # (B, voxels, 3, heads, C / heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        return self.attention_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def make_bottleneck(kind: str, spatial_dims: int, channels: int, blocks: int, heads: int) -> nn.Sequential:
    """What stands between an encoder whose coarsest stage has so many channels and the decoder; empty for ``none``.

    Raises ValueError with the reason if these cannot describe one.
    """
    if kind not in BOTTLENECKS:
        raise ValueError(f"bottleneck should be one of {', '.join(BOTTLENECKS)}, not {kind!r}")
    if kind == "none":
        return nn.Sequential()
    if channels % heads:
        raise ValueError(
            f"bottleneck_heads should divide the {channels} channels of the coarsest stage, not be {heads}"
        )
    return nn.Sequential(*(AttentionBlock(spatial_dims, channels, heads) for _ in range(blocks)))
